/**
 * The Generic Interrupt Controller of a machine: distributor, redistributors (GICv3), and delivery to the host's CPUs.
 *
 * Delivery is immediate and a CPU acknowledges at once, so an edge is consumed by it. A level interrupt is signalled when its line
 * rises and again whenever it becomes deliverable while the line is high (unmask); a handler that leaves the line high and the
 * interrupt unmasked is not called again, where real hardware would storm.
 */
import { GICD_SIZE, GICR_STRIDE, SPI_MAX } from '../../arch/gic/index.ts';
import type { Bus, InterruptSink, MmioTarget } from '../../ports/bus.ts';
import { Count, Loss, type LossCode } from '../../ports/ledger.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { Tap } from '../../ports/tap.ts';
import { assign, Distributor, type DistributorOwner, test } from './distributor.ts';
import { Redistributor, type RedistributorOwner } from './redistributor.ts';

export interface GicOptions {
  readonly version: 2 | 3;
  /** Host-physical base of the distributor, 64 KiB. */
  readonly distributor: number;
  /** GICv3: base of the redistributors, 128 KiB for each CPU. */
  readonly redistributors?: number;
  /** Shared peripheral interrupts, 1 to 988. */
  readonly spis: number;
  /** Bits of an interrupt id, 14 to 24; default 16. */
  readonly lpiBits?: number;
  readonly cpus: number;
}

/** What caches something of the LPIs (an ITS) and must forget it when their delivery changes. */
export interface LpiWatcher {
  lpisChanged(): void;
}

/** Takes interrupts before a kernel is there. */
class NobodyHome implements InterruptSink {
  private readonly tap: Tap;
  constructor(tap: Tap) {
    this.tap = tap;
  }
  interrupt(intid: number, _cpu: number): void {
    this.tap.ledger[Count.LOST + Loss.NO_HANDLER]++;
    const why = `interrupt ${intid} arrived before a kernel took over the CPUs`;
    this.tap.observer?.hop({ at: 'lost', where: 'GIC', loss: Loss.NO_HANDLER, why });
  }
}

export class Gic implements DistributorOwner, RedistributorOwner {
  readonly version: 2 | 3;
  readonly cpus: number;
  /** LPIs end below 2^lpiBits. */
  readonly lpiBits: number;
  readonly distributor: Distributor;
  readonly redistributors: readonly Redistributor[];
  /** Register ranges for the bus. */
  readonly regions: readonly { readonly base: number; readonly size: number; readonly target: MmioTarget }[];
  /** The host CPUs: the kernel's irq core. Set by whoever wires a host together. */
  sink: InterruptSink;
  readonly tap: Tap;
  private readonly lines = new Int32Array(32);
  /** Pending SPIs that the ledger counts. */
  private readonly counted = new Int32Array(32);
  private readonly watchers: LpiWatcher[] = [];

  /** @throws RangeError for a GIC that the architecture does not have. */
  constructor(options: GicOptions, memory: PhysicalMemory, tap: Tap) {
    check(options);
    this.version = options.version;
    this.cpus = options.cpus;
    this.lpiBits = options.lpiBits ?? 16;
    this.tap = tap;
    this.sink = new NobodyHome(tap);
    this.distributor = new Distributor(this, options.version, options.spis, options.cpus, this.lpiBits);
    const regions: { base: number; size: number; target: MmioTarget }[] = [
      { base: options.distributor, size: GICD_SIZE, target: this.distributor },
    ];
    const redistributors: Redistributor[] = [];
    const { redistributors: base } = options;
    for (let cpu = 0; base !== undefined && options.version === 3 && cpu < options.cpus; cpu++) {
      const part = new Redistributor(memory, this, cpu, cpu === options.cpus - 1, this.lpiBits);
      redistributors.push(part);
      regions.push({ base: base + cpu * GICR_STRIDE, size: GICR_STRIDE, target: part });
    }
    this.redistributors = redistributors;
    this.regions = regions;
  }

  /** Maps the registers. */
  attach(bus: Bus): void {
    for (const { base, size, target } of this.regions) bus.map(base, size, target);
  }

  /** Tells `watcher` when enables of LPIs change. */
  watch(watcher: LpiWatcher): void {
    this.watchers.push(watcher);
  }

  /**
   * A message-signalled SPI (a v2m frame). Answers the loss when there is no such edge interrupt, else -1: it was delivered, is now
   * pending, or was merged into one that is.
   */
  raiseSpi(intid: number): LossCode | -1 {
    const target = this.distributor.edgeTarget[intid];
    if (target > 0) {
      this.sink.interrupt(intid, target - 1);
      return -1;
    }
    if (!this.distributor.isImplemented(intid) || !this.distributor.isEdge(intid)) return Loss.NO_SUCH_INTID;
    if (test(this.distributor.pending, intid)) this.tap.ledger[Count.COALESCED]++;
    else {
      assign(this.distributor.pending, intid, true);
      assign(this.counted, intid, true);
      this.tap.ledger[Count.PENDING]++;
    }
    return -1;
  }

  /** A wire: INTx, or a platform device. Edge interrupts latch its rise; level interrupts follow it. No effect for an id that is no SPI. */
  setLine(intid: number, level: boolean): void {
    if (!this.distributor.isImplemented(intid)) return;
    const before = test(this.lines, intid);
    assign(this.lines, intid, level);
    if (!level || before) return;
    if (this.distributor.isEdge(intid)) assign(this.distributor.pending, intid, true);
    this.reconsider(intid);
  }

  /** Is the wire asserted? */
  line(intid: number): boolean {
    return test(this.lines, intid);
  }

  /** A pending LPI of a CPU became deliverable, or may have: fires it. Answers whether it fired. */
  releaseLpi(redistributor: Redistributor, lpi: number): boolean {
    if (!this.lpisFlow(redistributor) || lpi >= redistributor.limit) return false;
    if (!redistributor.isPending(lpi) || !redistributor.isEnabled(lpi)) return false;
    redistributor.setPending(lpi, false);
    this.tap.ledger[Count.PENDING]--;
    this.sink.interrupt(lpi, redistributor.cpu);
    return true;
  }

  /** Looks at everything that is pending for a CPU. */
  releaseLpis(redistributor: Redistributor): void {
    if (!this.lpisFlow(redistributor)) return;
    if (redistributor.restored) this.adopt(redistributor);
    if (redistributor.pendingCount === 0) return;
    for (const lpi of redistributor.pendingLpis()) this.releaseLpi(redistributor, lpi);
  }

  /** Do LPIs of this CPU reach it at all? (Whether they are enabled one by one is in the property table.) */
  lpisFlow(redistributor: Redistributor): boolean {
    return redistributor.enabled && this.distributor.group1Enabled;
  }

  reconsider(intid: number): void {
    const cpu = this.distributor.target(intid);
    if (cpu < 0) return;
    if (test(this.distributor.pending, intid)) {
      assign(this.distributor.pending, intid, false);
      if (test(this.counted, intid)) {
        assign(this.counted, intid, false);
        this.tap.ledger[Count.PENDING]--;
      }
      this.sink.interrupt(intid, cpu);
    } else if (!this.distributor.isEdge(intid) && test(this.lines, intid)) this.sink.interrupt(intid, cpu);
  }

  withdrawn(intid: number): void {
    if (!test(this.counted, intid)) return;
    assign(this.counted, intid, false);
    this.drop(`SPI ${intid} was pending when software cleared it through GICD_ICPENDR`);
  }

  controlChanged(): void {
    this.tellWatchers();
    for (const redistributor of this.redistributors) this.releaseLpis(redistributor);
  }

  lpisSwitched(redistributor: Redistributor): void {
    this.tellWatchers();
    if (redistributor.enabled && !redistributor.restored) this.forget(redistributor);
    this.releaseLpis(redistributor);
  }

  /** One pending interrupt less, and it ends here. */
  drop(why: string): void {
    this.tap.ledger[Count.PENDING]--;
    this.tap.ledger[Count.LOST + Loss.TORN_DOWN]++;
    this.tap.observer?.hop({ at: 'lost', where: 'GIC', loss: Loss.TORN_DOWN, why });
  }

  /** Bits that software put into a pending table count as sent by it, and those that it took out as lost: the ledger stays even. */
  private adopt(redistributor: Redistributor): void {
    redistributor.restored = false;
    const bits = redistributor.pendingLpis().length;
    const unknown = bits - redistributor.pendingCount;
    redistributor.pendingCount = bits;
    this.tap.ledger[Count.PENDING] += unknown;
    this.tap.ledger[unknown < 0 ? Count.LOST + Loss.TORN_DOWN : Count.SENT] += Math.abs(unknown);
  }

  /** LPIs come up with a table that software declares zero (PENDBASER.PTZ): what was pending before is gone. */
  private forget(redistributor: Redistributor): void {
    for (; redistributor.pendingCount > 0; redistributor.pendingCount--) {
      this.drop(`an LPI of CPU ${redistributor.cpu} was pending when software brought up an empty pending table`);
    }
  }

  private tellWatchers(): void {
    for (const watcher of this.watchers) watcher.lpisChanged();
  }
}

function check({ version, redistributors, spis, lpiBits = 16, cpus }: GicOptions): void {
  const whole = (what: string, value: number, low: number, high: number): void => {
    if (!Number.isInteger(value) || value < low || value > high) {
      throw new RangeError(`${what}: expected ${low} to ${high}, got ${value}`);
    }
  };
  whole('spis', spis, 1, SPI_MAX);
  whole('lpiBits', lpiBits, 14, 24);
  whole('cpus', cpus, 1, version === 2 ? 8 : 65536);
  if (version === 3 && redistributors === undefined) {
    throw new RangeError('redistributors: a GICv3 needs their base address');
  }
}
