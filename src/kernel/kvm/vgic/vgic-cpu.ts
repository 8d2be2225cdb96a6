/** A virtual CPU's side of the guest's GIC: the list of what it could acknowledge, and its CPU interface. */
import type { Tap } from '../../../ports/tap.ts';
import type { Job, WorkQueue } from '../../../ports/work.ts';
import type { CpuInterface } from '../irqchip.ts';
import type { VgicIrq } from './vgic-irq.ts';

/** What ICC_IAR1 reads when nothing is pending. */
export const SPURIOUS = 1023;
/** Priorities of five bits; the value is "idle", below every interrupt. */
const IDLE = 32;

/**
 * Interrupts of one priority wait in the order of their arrival, in doubly linked lists through the interrupts
 * themselves; a bit map finds the highest priority in one step. The CPU interface is as a guest has it that enabled
 * group 1 and opened the priority mask: the port has no system registers to close them.
 */
export class VgicCpu implements CpuInterface, Job {
  readonly index: number;
  readonly privates: VgicIrq[] = [];
  /** GICR_CTLR.EnableLPIs. */
  lpisEnabled = false;
  /** GICR_PENDBASER. */
  pendbaser = 0n;
  private readonly tap: Tap;
  private readonly work: WorkQueue;
  /** Bit 31 - b: the list of priority b is not empty. */
  private waiting = 0;
  private readonly heads: (VgicIrq | null)[] = new Array<VgicIrq | null>(IDLE).fill(null);
  private readonly tails: (VgicIrq | null)[] = new Array<VgicIrq | null>(IDLE).fill(null);
  /** Priorities of acknowledged interrupts, and the interrupts; each higher than the one before. */
  private readonly running = new Int32Array(IDLE);
  private readonly acknowledged: (VgicIrq | null)[] = new Array<VgicIrq | null>(IDLE).fill(null);
  private depth = 0;
  private listener: (() => void) | null = null;
  private posted = false;
  /** Told of each end of interrupt of a shared peripheral: KVM's ack notifiers (resample). */
  onEoi: (irq: VgicIrq) => void = () => {};

  constructor(index: number, tap: Tap, work: WorkQueue) {
    this.index = index;
    this.tap = tap;
    this.work = work;
  }

  enqueue(irq: VgicIrq, bucket: number): void {
    const tail = this.tails[bucket];
    irq.queuedOn = this;
    irq.bucket = bucket;
    irq.previous = tail;
    irq.next = null;
    if (tail === null) this.heads[bucket] = irq;
    else tail.next = irq;
    this.tails[bucket] = irq;
    this.waiting |= 0x8000_0000 >>> bucket;
    this.kick();
  }

  dequeue(irq: VgicIrq): void {
    const { bucket, previous, next } = irq;
    if (previous === null) this.heads[bucket] = next;
    else previous.next = next;
    if (next === null) this.tails[bucket] = previous;
    else next.previous = previous;
    if (this.heads[bucket] === null) this.waiting &= ~(0x8000_0000 >>> bucket);
    irq.queuedOn = null;
    irq.previous = null;
    irq.next = null;
  }

  get pending(): boolean {
    return Math.clz32(this.waiting) < this.priority();
  }

  acknowledge(): number {
    const bucket = Math.clz32(this.waiting);
    if (bucket >= this.priority()) return SPURIOUS;
    const irq = this.heads[bucket] as VgicIrq;
    this.running[this.depth] = bucket;
    this.acknowledged[this.depth] = irq;
    this.depth += 1;
    this.dequeue(irq);
    irq.acknowledged();
    if (this.tap.observer !== null) this.observe(irq.intid, 'acknowledge');
    return irq.intid;
  }

  /** Priority drop and deactivation (EOImode 0). An identifier that was not acknowledged here has no effect. */
  endOfInterrupt(intid: number): void {
    let at = this.depth - 1;
    while (at >= 0 && this.acknowledged[at]?.intid !== intid) at -= 1;
    if (at < 0) return;
    const irq = this.acknowledged[at] as VgicIrq;
    if (this.tap.observer !== null) this.observe(intid, 'eoi');
    for (let i = at; i < this.depth - 1; i += 1) {
      this.running[i] = this.running[i + 1];
      this.acknowledged[i] = this.acknowledged[i + 1];
    }
    this.depth -= 1;
    this.acknowledged[this.depth] = null;
    if (!irq.lpi) {
      irq.active = false;
      this.onEoi(irq);
      irq.refresh();
    }
    this.kick();
  }

  listen(listener: (() => void) | null): void {
    this.listener = listener;
    this.kick();
  }

  /** The guest is told after the walk that made the interrupt pending, never inside it. */
  run(): void {
    this.posted = false;
    if (this.listener !== null && this.pending) this.listener();
  }

  /** The priority that an interrupt must beat. */
  private priority(): number {
    return this.depth === 0 ? IDLE : this.running[this.depth - 1];
  }

  private kick(): void {
    if (this.posted || this.listener === null || !this.pending) return;
    this.posted = true;
    this.work.post(this);
  }

  private observe(intid: number, action: 'acknowledge' | 'eoi'): void {
    this.tap.observer?.hop({ at: 'guest-cpu', intid, cpu: this.index, action });
  }
}
