/** The in-kernel interrupt controllers of an x86 VM: a local APIC for each CPU, and an I/O APIC for lines. */
import type { Tap } from '../../../ports/tap.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import { KVM_IRQ_ROUTING_MSI } from '../../../uapi/kvm.ts';
import type { IoDevice } from '../io-bus.ts';
import type { CpuInterface, GuestIrqchip, InjectTarget } from '../irqchip.ts';
import { pinEntry, type RoutingEntry } from '../routing.ts';
import type { Vm } from '../vm.ts';
import { IOAPIC_PINS, IoApic } from './io-apic.ts';
import { LocalApic } from './local-apic.ts';

export const LAPIC_BASE = 0xfee0_0000;
export const IOAPIC_BASE = 0xfec0_0000;
/** irqchip numbers of a route: the two 8259s, and the I/O APIC. */
const KVM_IRQCHIP_IOAPIC = 2;
const LOWEST_PRIORITY = 1;

/** LDR, DFR, SVR. */
const ROUTING_REGISTERS = new Set([0xd0, 0xe0, 0xf0]);

/** A message as the I/O APIC and MSIs send it. */
export interface ApicMessage {
  readonly destination: number;
  readonly logical: boolean;
  readonly lowest: boolean;
  readonly vector: number;
  readonly level: boolean;
}

export class ApicChip implements GuestIrqchip, IoDevice {
  readonly name = 'lapic';
  readonly initialized = true;
  readonly needsDeviceId = false;
  readonly apics = new Map<number, LocalApic>();
  readonly ioapic: IoApic;
  readonly tap: Tap;
  private readonly vm: Vm;

  constructor(vm: Vm) {
    this.vm = vm;
    this.tap = vm.context.tap;
    this.ioapic = new IoApic(this);
    vm.bus.add(LAPIC_BASE, 0x1000, this);
    vm.bus.add(IOAPIC_BASE, 0x1000, this.ioapic);
    vm.setRouting(new Map(Array.from({ length: IOAPIC_PINS }, (_, i) => [i, [pinEntry(i, KVM_IRQCHIP_IOAPIC, i)]])));
  }

  /** kvm_set_routing_entry: the 8259s have eight pins each, and lead nowhere here. */
  hasPin(irqchip: number, pin: number): boolean {
    return irqchip === KVM_IRQCHIP_IOAPIC ? pin < IOAPIC_PINS : irqchip < KVM_IRQCHIP_IOAPIC && pin < 8;
  }

  addCpu(index: number): void {
    const { tap, work } = this.vm.context;
    const apic = new LocalApic(index, tap, work);
    apic.onEoi = (vector) => this.ioapic.endOfInterrupt(vector, (pin) => this.vm.notifyAcked(pin));
    this.apics.set(index, apic);
    this.vm.invalidate();
  }

  resolve(route: RoutingEntry): InjectTarget | number {
    if (route.type !== KVM_IRQ_ROUTING_MSI) {
      return route.irqchip === KVM_IRQCHIP_IOAPIC ? this.ioapic.pin(route.pin) : -ERRNO.EINVAL;
    }
    return this.target({
      destination: (route.addressLo >>> 12) & 0xff,
      logical: (route.addressLo & 4) !== 0,
      lowest: ((route.data >>> 8) & 7) === LOWEST_PRIORITY,
      vector: route.data & 0xff,
      level: (route.data & 0x8000) !== 0,
    });
  }

  /**
   * kvm_irq_delivery_to_apic: who takes the message. EINVAL: no CPU has the destination (KVM's -1); EBUSY: those that have it are
   * switched off, so that it is dropped.
   */
  target(message: ApicMessage): ApicTarget | number {
    const named = [...this.apics.values()].filter((apic) => matches(apic, message));
    if (named.length === 0) return -ERRNO.EINVAL;
    const enabled = named.filter((apic) => apic.enabled);
    if (enabled.length === 0) return -ERRNO.EBUSY;
    return new ApicTarget(message.lowest ? enabled.slice(0, 1) : enabled, message.vector, message.level);
  }

  setLine(pin: number, level: boolean): number {
    return this.ioapic.setLine(pin, level);
  }

  cpuInterface(index: number): CpuInterface | number {
    return this.apics.get(index) ?? -ERRNO.ENXIO;
  }

  /** Every CPU sees its own at the same address. */
  read(offset: number, _size: number, cpu: number): number {
    return this.apics.get(cpu)?.read(offset) ?? 0;
  }

  write(offset: number, size: number, value: number, cpu: number): void {
    this.apics.get(cpu)?.write(offset, size, value);
    // Identities and the enable bit decide where messages go; an end of interrupt does not.
    if (ROUTING_REGISTERS.has(offset)) this.vm.invalidate();
  }

  destroy(): void {
    this.ioapic.destroy();
    for (const apic of this.apics.values()) apic.destroy();
  }
}

/** A vector of one CPU, or of several (a broadcast: the first carries the ledger's interrupt, the rest are copies). */
export class ApicTarget implements InjectTarget {
  private readonly first: LocalApic;
  private readonly others: readonly LocalApic[];
  private readonly vector: number;
  private readonly level: boolean;

  constructor(apics: readonly LocalApic[], vector: number, level: boolean) {
    this.first = apics[0];
    this.others = apics.slice(1);
    this.vector = vector;
    this.level = level;
  }

  inject(): void {
    this.first.inject(this.vector, this.level);
    for (let i = 0; i < this.others.length; i += 1) this.others[i].accept(this.vector, this.level);
  }

  raise(): void {
    this.first.accept(this.vector, this.level);
    for (const apic of this.others) apic.accept(this.vector, this.level);
  }
}

/** Intel SDM 12.6.2: physical ids with 0xff for all; logical ids are a mask, flat or by cluster. */
function matches(apic: LocalApic, { destination, logical }: ApicMessage): boolean {
  if (destination === 0xff) return true;
  if (!logical) return apic.index === destination;
  if (apic.flat) return (apic.logicalId & destination) !== 0;
  return apic.logicalId >> 4 === destination >> 4 && (apic.logicalId & destination & 0xf) !== 0;
}

/** KVM_CREATE_IRQCHIP. */
export function createIrqchip(vm: Vm): number {
  const { refusals } = vm.context;
  if (vm.irqchip !== null) return refusals.refuse('EEXIST', 'the VM has an interrupt controller already');
  if (vm.vcpus.size > 0)
    return refusals.refuse('EINVAL', 'virtual CPUs exist already', undefined, 'create it before them');
  vm.irqchip = new ApicChip(vm);
  return 0;
}
