/**
 * The local APICs as the bus sees them: the 1 MiB at 0xfee00000 in which a write is an interrupt message. APIC id n is CPU n. A CPU
 * acknowledges at once, so a message is delivered or lost, never pending.
 */
import {
  addressDestination,
  Delivery,
  MSI_ADDR_DEST_MODE_LOGICAL,
  MSI_ADDR_REMAPPABLE,
  MSI_RANGE_BASE,
  MSI_RANGE_SIZE,
  VECTOR_FIRST,
  x86Intid,
} from '../../arch/x86/index.ts';
import { fromHalves, type Hpa, hex } from '../../ports/address.ts';
import type { Bus, DoorbellPage, InterruptSink, MmioTarget, MsiController } from '../../ports/bus.ts';
import { Count, Loss, type LossCode } from '../../ports/ledger.ts';
import type { Tap } from '../../ports/tap.ts';
import { Status, type StatusCode, type Transaction } from '../../ports/transaction.ts';
import type { InterruptRemapping } from './remapping.ts';

/** Physical destination of every CPU. */
const BROADCAST = 0xff;

export class LocalApics implements MsiController, MmioTarget {
  readonly name = 'local APICs';
  readonly doorbells: readonly DoorbellPage[];
  readonly cpus: number;
  readonly remapping: InterruptRemapping | null;
  /** The host CPUs: the kernel's irq core. Set by whoever wires a host together. */
  sink: InterruptSink | null = null;
  private readonly tap: Tap;

  /** `remapping`: the VT-d unit's, or null where there is none. */
  constructor(cpus: number, tap: Tap, remapping: InterruptRemapping | null = null) {
    this.cpus = cpus;
    this.tap = tap;
    this.remapping = remapping;
    this.doorbells = [{ base: MSI_RANGE_BASE, size: MSI_RANGE_SIZE, register: 0, isolated: remapping !== null }];
  }

  attach(bus: Bus): void {
    bus.map(MSI_RANGE_BASE, MSI_RANGE_SIZE, this);
    bus.attachController(this);
  }

  message(tx: Transaction): StatusCode {
    const loss = this.accept(tx);
    return loss === -1 ? Status.OK : this.lose(loss, tx);
  }

  /** A message of a device or of the I/O APIC, whose wires the ledger does not count: -1 when a CPU has it, else why none has. */
  accept(tx: Transaction): LossCode | -1 {
    const { remapping } = this;
    const lo = tx.paLo;
    if (remapping === null || !remapping.enabled) return this.compatible(tx);
    if ((lo & MSI_ADDR_REMAPPABLE) === 0) {
      return remapping.allowCompatibility(tx.requester) ? this.compatible(tx) : Loss.REMAP_FAULT;
    }
    if (!remapping.resolve(tx.requester, lo, tx.data)) return Loss.REMAP_FAULT;
    return this.deliver(tx, remapping.vector, remapping.destination, remapping.logical, remapping.lowest);
  }

  /** The CPU's own registers are not modelled: a device or a CPU that reads the range gets zero. */
  read(_offset: number, _size: number): number {
    return 0;
  }
  write(_offset: number, _size: number, _value: number): void {}

  private compatible(tx: Transaction): LossCode | -1 {
    const mode = (tx.data >>> 8) & 7;
    const vector = tx.data & 0xff;
    if (mode > Delivery.LOWEST_PRIORITY || vector < VECTOR_FIRST) return Loss.NO_SUCH_INTID;
    const logical = (tx.paLo & MSI_ADDR_DEST_MODE_LOGICAL) !== 0;
    return this.deliver(tx, vector, addressDestination(tx.paLo), logical, mode === Delivery.LOWEST_PRIORITY);
  }

  /** Logical destinations are flat: a bit for each of the first eight CPUs. */
  private deliver(
    tx: Transaction,
    vector: number,
    destination: number,
    logical: boolean,
    lowest: boolean,
  ): LossCode | -1 {
    if (!logical && destination !== BROADCAST) {
      if (destination < 0 || destination >= this.cpus) return Loss.NO_SUCH_INTID;
      return this.signal(tx, vector, destination);
    }
    let taken = 0;
    for (let cpu = 0; cpu < this.cpus && !(lowest && taken > 0); cpu++) {
      if (logical && (cpu > 7 || (destination & (1 << cpu)) === 0)) continue;
      // One message, one interrupt for each CPU it names: the ledger counts the copies as sent.
      if (taken++ > 0) this.tap.ledger[Count.SENT]++;
      this.signal(tx, vector, cpu);
    }
    return taken === 0 ? Loss.NO_SUCH_INTID : -1;
  }

  private signal(tx: Transaction, vector: number, cpu: number): LossCode | -1 {
    if (this.tap.observer !== null) this.observe(tx, vector, cpu);
    if (this.sink === null) return Loss.NO_HANDLER;
    this.sink.interrupt(x86Intid(cpu, vector), cpu);
    return -1;
  }

  private lose(loss: LossCode, tx: Transaction): StatusCode {
    this.tap.ledger[Count.LOST + loss]++;
    if (this.tap.observer !== null) {
      this.tap.observer.hop({ at: 'lost', where: this.name, loss, why: this.explain(loss, tx) });
    }
    return Status.OK;
  }

  private explain(loss: LossCode, tx: Transaction): string {
    const message = `${hex(fromHalves(tx.paHi, tx.paLo))} data ${hex(tx.data >>> 0, 4)}`;
    if (loss === Loss.NO_HANDLER) return `${message} arrived before a kernel took over the CPUs`;
    const fault = this.remapping?.lastFault ?? null;
    if (loss === Loss.REMAP_FAULT && fault !== null) {
      return `${message} of ${hex(tx.requester, 4)}: interrupt remapping fault ${hex(fault.reason, 2)} at entry ${fault.index}`;
    }
    return `${message} names no CPU (of ${this.cpus}) or no vector that a message can raise`;
  }

  private observe(tx: Transaction, vector: number, cpu: number): void {
    this.tap.observer?.hop({
      at: 'controller',
      name: this.name,
      doorbell: fromHalves(tx.paHi, tx.paLo) as Hpa,
      data: tx.data >>> 0,
      deviceId: tx.requester,
      eventId: vector,
      intid: x86Intid(cpu, vector),
      cpu,
    });
  }
}
