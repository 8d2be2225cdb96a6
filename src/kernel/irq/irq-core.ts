/**
 * The interrupt core (kernel/irq): Linux irq numbers, their handlers, masking by depth, and the entry from the host's
 * interrupt controllers. `interrupt` is on the way of every MSI: a few array reads and one call, nothing allocated.
 */

import type { InterruptSink } from '../../ports/bus.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import type { KernelContext } from '../context.ts';
import type { IrqChip, IrqType } from './irq-chip.ts';
import type { IrqLine } from './irq-line.ts';
import type { IrqHandler } from './pci-irqs.ts';
import { SharedHandlers } from './shared-handlers.ts';
import { WireLine } from './wire-line.ts';

/** Irq 0 is no interrupt, as on every Linux architecture of today. */
const NO_IRQ = 0;
/** irq_alloc_descs starts behind the legacy numbers only on x86; the lowest free number wins on Arm. */
const FIRST_IRQ = 1;
const INITIAL_IRQS = 64;
/** note_interrupt (kernel/irq/spurious.c) gives up behind this many interrupts in a row that nobody served. */
const GIVE_UP = 99_900;

/** A row of /proc/interrupts. */
export interface InterruptRow {
  readonly irq: number;
  /** Interrupts taken, by CPU. */
  readonly counts: readonly number[];
  readonly chip: string;
  readonly hwirq: number;
  readonly trigger: 'Edge' | 'Level';
  /** Names of the handlers, joined by `, ` as Linux does. */
  readonly action: string;
}

export class IrqCore implements InterruptSink {
  private readonly context: KernelContext;
  private readonly cpus: number;
  private readonly ledger: Float64Array;
  /** Interrupt id of the controllers to irq; grows with the highest id in use. */
  private irqOfIntid = new Int32Array(INITIAL_IRQS);
  private readonly lines: (IrqLine | null)[] = [];
  private readonly handlers: (IrqHandler | null)[] = [];
  private readonly names: string[] = [];
  /** Number reserved by `allocate`. */
  private readonly taken: boolean[] = [];
  /** No free number is below this one. */
  private lowestFree = FIRST_IRQ;
  /** Nested disables; 0 is enabled. An irq without a handler has depth 1, as a descriptor that was never started. */
  private depth = new Int32Array(INITIAL_IRQS);
  /** An edge came while disabled: it is served when enabled (IRQS_PENDING). */
  private pending = new Uint8Array(INITIAL_IRQS);
  private level = new Uint8Array(INITIAL_IRQS);
  /** A level's handlers run now (IRQD_IRQ_INPROGRESS), and it was signalled again meanwhile. */
  private inFlow = new Uint8Array(INITIAL_IRQS);
  private again = new Uint8Array(INITIAL_IRQS);
  private counts: Float64Array;

  constructor(context: KernelContext, cpus = 1) {
    this.context = context;
    this.cpus = cpus;
    this.ledger = context.tap.ledger;
    this.counts = new Float64Array(INITIAL_IRQS * cpus);
    this.reserve(INITIAL_IRQS);
  }

  /** The lowest `count` free numbers that follow each other. The first of them. */
  allocate(count = 1): number {
    let irq = this.lowestFree;
    for (let free = 0; free < count; free++) {
      if (this.taken[irq + free]) {
        irq += free + 1;
        free = -1;
      }
    }
    this.reserve(irq + count);
    for (let i = irq; i < irq + count; i++) this.taken[i] = true;
    if (irq === this.lowestFree) this.lowestFree = irq + count;
    return irq;
  }

  /** Says what stands behind an allocated number. */
  setLine(irq: number, line: IrqLine): void {
    this.lines[irq] = line;
    this.level[irq] = line.level ? 1 : 0;
    this.depth[irq] = 1;
    this.counts.fill(0, irq * this.cpus, (irq + 1) * this.cpus);
  }

  /** Gives a number back; a handler that is still there is removed first. */
  release(irq: number): void {
    if (!this.exists(irq)) return;
    this.freeIrq(irq);
    this.lines[irq] = null;
    this.taken[irq] = false;
    this.lowestFree = Math.min(this.lowestFree, irq);
  }

  /** Interrupts with this id of the controller are this irq from now on. */
  associate(intid: number, irq: number): void {
    if (intid >= this.irqOfIntid.length) {
      const grown = new Int32Array(2 ** Math.ceil(Math.log2(intid + 1)));
      grown.set(this.irqOfIntid);
      this.irqOfIntid = grown;
    }
    this.irqOfIntid[intid] = irq;
  }

  dissociate(intid: number): void {
    if (intid < this.irqOfIntid.length) this.irqOfIntid[intid] = NO_IRQ;
  }

  /** The irq behind an interrupt id, or 0. */
  irqOf(intid: number): number {
    return intid < this.irqOfIntid.length ? this.irqOfIntid[intid]! : NO_IRQ;
  }

  /** irq_create_mapping of a wire: the irq of `hwirq`, made at its first use; functions that share the wire share it. */
  mapWire(chip: IrqChip, hwirq: number, type: IrqType): number {
    const known = this.irqOf(hwirq);
    if (known !== NO_IRQ) return known;
    const irq = this.allocate();
    chip.setType?.(hwirq, type);
    this.setLine(irq, new WireLine(chip, hwirq, type));
    this.associate(hwirq, irq);
    return irq;
  }

  interrupt(intid: number, cpu: number): void {
    const irq = intid < this.irqOfIntid.length ? this.irqOfIntid[intid]! : NO_IRQ;
    this.handle(irq, intid, cpu);
  }

  /** generic_handle_irq: for controllers that find the irq themselves. */
  handle(irq: number, intid: number, cpu: number): void {
    if (this.level[irq] === 1) {
      this.handleLevel(irq, intid, cpu);
      return;
    }
    const handler = this.handlers[irq]!;
    if (handler === null) {
      this.unhandled(irq, intid);
      return;
    }
    if (this.depth[irq]! > 0) {
      this.arrivedDisabled(irq);
      return;
    }
    const slot = irq * this.cpus + cpu;
    this.counts[slot] = this.counts[slot]! + 1;
    if (this.context.tap.observer !== null) this.observe(irq, intid);
    handler.handleIrq();
  }

  /**
   * handle_level_irq: the wire is masked while its handlers run; unmasking signals a line that is still asserted again, so a handler that
   * never quiets its function would run for ever. Linux gives such a line up after 99,900 turns.
   */
  private handleLevel(irq: number, intid: number, cpu: number): void {
    if (this.inFlow[irq] === 1) {
      this.again[irq] = 1;
      return;
    }
    this.inFlow[irq] = 1;
    const line = this.lines[irq]!;
    line.mask();
    for (let turn = 0; ; turn++) {
      this.again[irq] = 0;
      const handler = this.handlers[irq]!;
      if (handler === null || this.depth[irq]! > 0) break;
      if (turn === GIVE_UP) {
        this.context.log(`irq ${irq}: nobody cared`);
        this.depth[irq] = 1;
        break;
      }
      const slot = irq * this.cpus + cpu;
      this.counts[slot] = this.counts[slot]! + 1;
      if (this.context.tap.observer !== null) this.observe(irq, intid);
      handler.handleIrq();
      if (this.handlers[irq] === null || this.depth[irq]! > 0) break;
      line.unmask();
      if (this.again[irq] === 0) break;
      line.mask();
    }
    this.inFlow[irq] = 0;
  }

  /** request_irq. A `shared` handler joins others that are shared; the irq is unmasked with the first. */
  requestIrq(irq: number, handler: IrqHandler, name: string, shared = false): number {
    if (!this.exists(irq)) return this.context.refusals.refuse('EINVAL', `there is no irq ${irq}`, 'irq');
    const present = this.handlers[irq] ?? null;
    if (present !== null) {
      if (present instanceof SharedHandlers && shared) {
        present.add(handler, name);
        this.names[irq] = present.names;
        return 0;
      }
      return this.context.refusals.refuse('EBUSY', `irq ${irq} has the handler ${this.names[irq]} already`, 'irq');
    }
    this.handlers[irq] = shared ? new SharedHandlers(handler, name) : handler;
    this.names[irq] = name;
    this.depth[irq] = 0;
    this.lines[irq]?.unmask();
    return 0;
  }

  /** free_irq: masks first, so that nothing arrives without a handler. Of a shared irq only `handler` goes. */
  freeIrq(irq: number, handler: IrqHandler | null = null): void {
    const present = this.handlers[irq] ?? null;
    if (present === null) return;
    if (present instanceof SharedHandlers && handler !== null && present.remove(handler)) {
      this.names[irq] = present.names;
      return;
    }
    this.lines[irq]?.mask();
    this.depth[irq] = 1;
    this.handlers[irq] = null;
    this.names[irq] = '';
    if (this.pending[irq] === 1) {
      this.pending[irq] = 0;
      this.ledger[Count.PENDING]!--;
      this.lose(Loss.TORN_DOWN, irq, 'the handler was removed while an interrupt waited for enable_irq');
    }
  }

  disableIrq(irq: number): void {
    if (!this.exists(irq)) return;
    if (this.depth[irq]!++ === 0) this.lines[irq]?.mask();
  }

  /** One enable too many is a warning on Linux and changes nothing. */
  enableIrq(irq: number): void {
    if (!this.exists(irq) || this.handlers[irq] === null) return;
    if (this.depth[irq] === 0) {
      this.context.log(`Unbalanced enable for IRQ ${irq}`);
      return;
    }
    if (--this.depth[irq]! > 0) return;
    this.lines[irq]?.unmask();
    if (this.pending[irq] === 0 || this.depth[irq] !== 0) return;
    this.pending[irq] = 0;
    this.ledger[Count.PENDING]!--;
    this.handle(irq, -1, 0);
  }

  isDisabled(irq: number): boolean {
    return this.depth[irq]! > 0;
  }

  line(irq: number): IrqLine | null {
    return this.lines[irq] ?? null;
  }

  handler(irq: number): IrqHandler | null {
    return this.handlers[irq] ?? null;
  }

  /** /proc/interrupts: the irqs that have a handler, or that counted something. */
  interrupts(): InterruptRow[] {
    const rows: InterruptRow[] = [];
    for (const [irq, line] of this.lines.entries()) {
      if (line === null || line === undefined) continue;
      const counts = [...this.counts.subarray(irq * this.cpus, (irq + 1) * this.cpus)];
      if (this.handlers[irq] === null && counts.every((count) => count === 0)) continue;
      const trigger = line.level ? 'Level' : 'Edge';
      rows.push({ irq, counts, chip: line.chip, hwirq: line.hwirq, trigger, action: this.names[irq] ?? '' });
    }
    return rows;
  }

  private exists(irq: number): boolean {
    return (this.lines[irq] ?? null) !== null;
  }

  private unhandled(irq: number, intid: number): void {
    const which = irq === NO_IRQ ? `interrupt ${intid} belongs to no irq` : `irq ${irq} has no handler`;
    this.lose(Loss.NO_HANDLER, irq, which);
  }

  private arrivedDisabled(irq: number): void {
    if (this.pending[irq] === 1) {
      this.ledger[Count.COALESCED]!++;
      return;
    }
    this.pending[irq] = 1;
    this.ledger[Count.PENDING]!++;
  }

  private lose(loss: number, irq: number, why: string): void {
    this.ledger[Count.LOST + loss]!++;
    this.context.tap.observer?.hop({ at: 'lost', where: `irq ${irq}`, loss, why });
  }

  private observe(irq: number, intid: number): void {
    this.context.tap.observer?.hop({ at: 'irq', intid, irq, action: this.names[irq] ?? '' });
  }

  /** Makes the arrays hold `irqs` numbers. */
  private reserve(irqs: number): void {
    while (this.handlers.length < irqs) {
      this.handlers.push(null);
      this.lines.push(null);
      this.names.push('');
      this.taken.push(false);
    }
    if (irqs <= this.depth.length) return;
    const size = 2 ** Math.ceil(Math.log2(irqs));
    this.depth = grow(new Int32Array(size), this.depth);
    this.pending = grow(new Uint8Array(size), this.pending);
    this.level = grow(new Uint8Array(size), this.level);
    this.inFlow = grow(new Uint8Array(size), this.inFlow);
    this.again = grow(new Uint8Array(size), this.again);
    this.counts = grow(new Float64Array(size * this.cpus), this.counts);
  }
}

function grow<T extends Int32Array | Uint8Array | Float64Array>(into: T, from: T): T {
  into.set(from);
  return into;
}
