/** One run: a device handed to a guest on a host, its vectors enabled, and rung. */
import { CapabilityId } from '../../arch/pci/capability.ts';
import type { Host } from '../../kernel/boot/boot.ts';
import type { HostFunction } from '../../machine/pci/function.ts';
import { Count, LEDGER_SIZE, lossName } from '../../ports/ledger.ts';
import { type Assignment, GuestDriver, type GuestMap, type GuestVectors, VirtualMachine } from '../../vmm/index.ts';
import { UsageError } from '../usage.ts';
import type { DoorbellOption, RingOptions } from './options.ts';
import { bootHost, DEFAULT_VECTORS, guestMap, passedThrough, vmmPolicy } from './setup.ts';

/** What a run counted. */
export interface Totals {
  readonly sent: number;
  readonly delivered: number;
  readonly coalesced: number;
  readonly pending: number;
  readonly faults: number;
  readonly faultsOverflowed: number;
  /** By reason. */
  readonly lost: Readonly<Record<string, number>>;
  /** Vectors served in the wrong turn: neither lost nor late. */
  readonly outOfOrder: number;
}

/** RLIMIT_NOFILE of the VMM: two eventfds for each of 2,048 vectors, and some. */
const DESCRIPTORS = 8192;

export class RingSession {
  readonly host: Host;
  readonly map: GuestMap;
  readonly vm: VirtualMachine;
  readonly name: string;
  readonly assignment: Assignment;
  readonly guest: GuestDriver;
  readonly kind: 'msi' | 'msix';
  /** Vectors that the guest asked for, and that the host gave. */
  readonly requested: number;
  readonly granted: number;
  readonly interrupts: GuestVectors;
  readonly function: HostFunction;
  private readonly acknowledge: boolean;
  private readonly served = { vector: -1, outOfOrder: 0 };
  private next = 0;

  constructor(options: RingOptions, doorbell: DoorbellOption) {
    this.host = bootHost(options, doorbell);
    this.name = passedThrough(this.host);
    this.map = guestMap(options, this.host.machine.spec.architecture);
    const { process, kernel } = this.host.process({ comm: 'vmm', limits: { nofile: DESCRIPTORS } });
    this.vm = VirtualMachine.create(kernel, {
      map: this.map,
      cpus: this.host.machine.spec.cpus,
      iommu: options.iommu,
      guestPort: this.host.kvm.guestPort(process),
    });
    this.assignment = this.vm.assign(this.name, { doorbell: vmmPolicy(doorbell) });
    this.guest = GuestDriver.start(this.vm);
    this.function = this.host.machine.pci.function(this.name)!;
    const { config } = this.assignment.device.device;
    this.kind = config.find(CapabilityId.MSIX) === null ? 'msi' : 'msix';
    this.requested = this.vectorsFor(options);
    this.interrupts = this.enable();
    const { device } = this.assignment;
    this.granted = Math.min(
      this.requested,
      (this.kind === 'msix' ? device.msix?.allocated : device.msi?.allocated) ?? 0,
    );
    this.acknowledge = options.acknowledge;
    this.guest.paused = !this.acknowledge;
  }

  /** Rings `count` times, the vectors in turn, going on where the last call ended. */
  send(count: number): void {
    const { function: device, granted, served } = this;
    const { work } = this.host.machine;
    let vector = this.next;
    for (let i = 0; i < count; i++) {
      served.vector = -1;
      device.raise(vector);
      work.drain();
      if (this.acknowledge && served.vector !== vector) served.outOfOrder++;
      vector = vector + 1 === granted ? 0 : vector + 1;
    }
    this.next = vector;
  }

  totals(): Totals {
    const { ledger } = this.host.machine.tap;
    const lost: Record<string, number> = {};
    for (let slot = Count.LOST; slot < LEDGER_SIZE; slot++)
      if (ledger[slot]! > 0) lost[lossName(slot - Count.LOST)] = ledger[slot]!;
    const total = Object.values(lost).reduce((sum, part) => sum + part, 0);
    return {
      sent: ledger[Count.SENT]!,
      delivered: ledger[Count.DELIVERED]!,
      coalesced: ledger[Count.COALESCED]!,
      pending: ledger[Count.PENDING]!,
      faults: ledger[Count.FAULTS]!,
      faultsOverflowed: ledger[Count.FAULTS_OVERFLOWED]!,
      lost,
      // A lost interrupt was not served either; what remains came in the wrong turn, or twice.
      outOfOrder: Math.max(0, this.served.outOfOrder - total),
    };
  }

  close(): void {
    this.interrupts.disable();
    this.guest.detach();
    this.vm.close();
  }

  private vectorsFor(options: RingOptions): number {
    const { device } = this.assignment.device;
    const { count } = (this.kind === 'msix' ? device.msix : device.msi).info();
    if (count === 0) throw new UsageError(`--device: ${this.name} has neither MSI-X nor MSI`, 'ring');
    const wanted = options.vectors ?? Math.min(DEFAULT_VECTORS, count);
    if (wanted > count)
      throw new UsageError(
        `--vectors: ${this.name} has ${count} ${this.kind === 'msix' ? 'MSI-X' : 'MSI'} vectors, not ${wanted}`,
        'ring',
      );
    if (this.kind === 'msix' || Number.isInteger(Math.log2(wanted))) return wanted;
    if (options.vectors !== null)
      throw new UsageError(`--vectors: MSI has 1, 2, 4, 8, 16 or 32 vectors, not ${wanted}`, 'ring');
    return 2 ** Math.floor(Math.log2(wanted));
  }

  private enable(): GuestVectors {
    const { served } = this;
    const handler = (vector: number): void => {
      if (served.vector !== -1) served.outOfOrder++;
      served.vector = vector;
    };
    const { device } = this.assignment;
    return this.kind === 'msix'
      ? this.guest.enableMsix(device, this.requested, handler)
      : this.guest.enableMsi(device, this.requested, handler);
  }
}

export const lossesOf = (totals: Totals): number => Object.values(totals.lost).reduce((sum, part) => sum + part, 0);
