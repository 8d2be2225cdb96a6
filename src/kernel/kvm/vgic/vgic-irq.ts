/** One interrupt of a guest's GIC: struct vgic_irq of arch/arm64/kvm/vgic. */
import { Count, Loss } from '../../../ports/ledger.ts';
import type { InjectTarget } from '../irqchip.ts';
import type { Its } from './its.ts';
import type { Vgic } from './vgic.ts';
import type { VgicCpu } from './vgic-cpu.ts';

/** The first LPI. */
export const GIC_LPI_OFFSET = 8192;

export class VgicIrq implements InjectTarget {
  readonly intid: number;
  readonly lpi: boolean;
  private readonly vgic: Vgic;
  /** Where it would be acknowledged; null while the guest names no such CPU. */
  cpu: VgicCpu | null;
  enabled = false;
  /** 0 is the highest; the upper five bits count (VGIC_PRI_BITS). */
  priority = 0;
  /** Configured level sensitive. */
  level = false;
  /** An edge that waits (pending_latch). */
  latch = false;
  /** The input line, for level sensitive ones. */
  line = false;
  active = false;
  /** Of an LPI: the ITS that maps it and the collection of its event there. */
  its: Its | null = null;
  collection = -1;
  /** The ledger holds an interrupt as pending here. */
  private counted = false;
  /** Links in the list of `queuedOn`, which VgicCpu keeps. */
  queuedOn: VgicCpu | null = null;
  bucket = 0;
  previous: VgicIrq | null = null;
  next: VgicIrq | null = null;

  constructor(vgic: Vgic, intid: number, cpu: VgicCpu | null) {
    this.vgic = vgic;
    this.intid = intid;
    this.lpi = intid >= GIC_LPI_OFFSET;
    this.cpu = cpu;
  }

  get pending(): boolean {
    return this.latch || (this.level && this.line);
  }

  inject(): void {
    const { tap } = this.vgic;
    const coalesced = this.pending;
    if (tap.observer !== null) this.observe(coalesced);
    if (coalesced) {
      if (this.level) this.line = true;
      tap.ledger[Count.COALESCED]! += 1;
      return;
    }
    this.counted = true;
    tap.ledger[Count.PENDING]! += 1;
    this.raise();
  }

  raise(): void {
    if (this.level) this.line = true;
    else this.latch = true;
    this.refresh();
  }

  /** The level input falls. An edge input has no low. */
  lower(): void {
    if (!this.line) return;
    this.line = false;
    this.settle(Count.LOST + Loss.TORN_DOWN);
    this.refresh();
  }

  /** The pending state is taken away without an acknowledge: CLEAR, DISCARD, ICPENDR, a disabled redistributor. */
  clear(): void {
    this.latch = false;
    this.settle(Count.LOST + Loss.TORN_DOWN);
    this.refresh();
  }

  /** The CPU read its IAR. */
  acknowledged(): void {
    this.latch = false;
    if (!this.lpi) this.active = true;
    if (this.counted) {
      this.counted = false;
      const { ledger } = this.vgic.tap;
      ledger[Count.PENDING]! -= 1;
      ledger[Count.DELIVERED]! += 1;
    }
    this.refresh();
  }

  retarget(cpu: VgicCpu | null): void {
    if (this.cpu === cpu) return;
    this.cpu = cpu;
    this.refresh();
  }

  /** Puts it on, or takes it off, the list of interrupts that its CPU could acknowledge. */
  refresh(): void {
    const to = this.pending && this.enabled && !this.active && this.vgic.enabled ? this.cpu : null;
    const bucket = this.priority >> 3;
    if (this.queuedOn !== null && (this.queuedOn !== to || this.bucket !== bucket)) this.queuedOn.dequeue(this);
    if (to !== null && this.queuedOn === null) to.enqueue(this, bucket);
  }

  private settle(slot: number): void {
    if (!this.counted || this.pending) return;
    this.counted = false;
    const { ledger } = this.vgic.tap;
    ledger[Count.PENDING]! -= 1;
    ledger[slot]! += 1;
  }

  private observe(coalesced: boolean): void {
    const { intid, cpu, vgic } = this;
    const state = coalesced ? 'coalesced' : this.enabled && vgic.enabled ? 'sent' : 'pending';
    vgic.tap.observer?.hop({ at: 'guest-controller', name: vgic.name, intid, cpu: cpu?.index ?? -1, state });
  }
}
