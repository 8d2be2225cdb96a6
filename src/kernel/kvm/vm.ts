/** A virtual machine: struct kvm. Its file, its devices and its virtual CPUs share it; the last of them to go destroys it. */
import type { KernelContext } from '../context.ts';
import type { Process } from '../process.ts';
import { GuestMemory } from './guest-memory.ts';
import { IoBus } from './io-bus.ts';
import type { IoEventFds } from './ioeventfd.ts';
import type { GuestIrqchip } from './irqchip.ts';
import type { Irqfd } from './irqfd.ts';
import type { RoutingTable } from './routing.ts';
import type { Vgic } from './vgic/vgic.ts';

export type GuestArchitecture = 'arm64' | 'x86';

export interface Vcpu {
  readonly index: number;
  /** A guest CPU was attached: what KVM calls has_run_once. */
  hasRun: boolean;
  attached: boolean;
}

export class Vm {
  readonly context: KernelContext;
  /** Whose address space the memory slots name (kvm->mm). */
  readonly owner: Process;
  readonly architecture: GuestArchitecture;
  /** Bits of a guest-physical address. */
  readonly addressBits: number;
  readonly memory: GuestMemory;
  readonly bus = new IoBus();
  readonly vcpus = new Map<number, Vcpu>();
  readonly irqfds = new Set<Irqfd>();
  ioeventfds: IoEventFds | null = null;
  irqchip: GuestIrqchip | null = null;
  /** The same object as `irqchip` on an arm64 VM. */
  vgic: Vgic | null = null;
  hasVfioDevice = false;
  routing: RoutingTable = new Map();
  /** Moves when a resolved route may lead elsewhere; irqfds compare it before they use what they cached. */
  epoch = 0;
  private users = 0;

  constructor(context: KernelContext, owner: Process, architecture: GuestArchitecture, addressBits: number) {
    this.context = context;
    this.owner = owner;
    this.architecture = architecture;
    this.addressBits = addressBits;
    this.memory = new GuestMemory(owner.memory);
  }

  /** The first guest-physical address that does not exist. */
  get addressLimit(): number {
    return 2 ** this.addressBits;
  }

  invalidate(): void {
    this.epoch = (this.epoch + 1) | 0;
  }

  setRouting(table: RoutingTable): void {
    this.routing = table;
    for (const irqfd of this.irqfds) irqfd.update();
  }

  /** kvm_notify_acked_irq: the guest ended the interrupt of a pin; its resampling irqfds lower it, then tell their owner. */
  notifyAcked(pin: number): void {
    const acked = [...this.irqfds].filter((irqfd) => irqfd.resamplefd !== null && this.leadsTo(irqfd.gsi, pin));
    if (acked.length === 0) return;
    this.irqchip?.setLine(pin, false);
    for (const irqfd of acked) irqfd.resamplefd?.add(1);
  }

  private leadsTo(gsi: number, pin: number): boolean {
    return this.routing.get(gsi)?.some((entry) => entry.type === 1 && entry.pin === pin) ?? false;
  }

  get(): void {
    this.users += 1;
  }

  put(): void {
    this.users -= 1;
    if (this.users === 0) this.irqchip?.destroy();
  }
}
