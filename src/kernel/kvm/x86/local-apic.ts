/** A virtual CPU's local APIC (Intel SDM volume 3, chapter 12): what interrupts need, in xAPIC mode. */
import { Count, Loss } from '../../../ports/ledger.ts';
import type { Tap } from '../../../ports/tap.ts';
import type { Job, WorkQueue } from '../../../ports/work.ts';
import type { IoDevice } from '../io-bus.ts';
import type { CpuInterface } from '../irqchip.ts';

const ID = 0x20;
const VERSION = 0x30;
const TPR = 0x80;
const EOI = 0xb0;
const LDR = 0xd0;
const DFR = 0xe0;
const SVR = 0xf0;
const ISR = 0x100;
const TMR = 0x180;
const IRR = 0x200;
const SVR_ENABLED = 1 << 8;
const SPURIOUS = 1023;

/** Words of a 256-bit register. */
type Bits = Int32Array;

function highest(bits: Bits): number {
  for (let word = 7; word >= 0; word -= 1) {
    if (bits[word] !== 0) return word * 32 + 31 - Math.clz32(bits[word]);
  }
  return -1;
}

const test = (bits: Bits, vector: number): boolean => (bits[vector >> 5] & (1 << (vector & 31))) !== 0;
const set = (bits: Bits, vector: number): void => {
  bits[vector >> 5] |= 1 << (vector & 31);
};
const reset = (bits: Bits, vector: number): void => {
  bits[vector >> 5] &= ~(1 << (vector & 31));
};

export class LocalApic implements CpuInterface, IoDevice, Job {
  readonly name = 'LAPIC';
  readonly index: number;
  /** Software enable, SVR bit 8: off after reset, and then nothing is accepted. */
  enabled = false;
  private readonly tap: Tap;
  private readonly work: WorkQueue;
  private readonly irr: Bits = new Int32Array(8);
  private readonly isr: Bits = new Int32Array(8);
  private readonly tmr: Bits = new Int32Array(8);
  /** Vectors whose pending interrupt the ledger counts. */
  private readonly counted: Bits = new Int32Array(8);
  private taskPriority = 0;
  private spurious = 0xff;
  logicalId = 0;
  flat = true;
  private listener: (() => void) | null = null;
  private posted = false;
  /** The end of a level triggered interrupt, which the I/O APIC waits for. */
  onEoi: (vector: number) => void = () => {};

  constructor(index: number, tap: Tap, work: WorkQueue) {
    this.index = index;
    this.tap = tap;
    this.work = work;
  }

  /** An irqfd's interrupt: pending or coalesced, in the ledger. */
  inject(vector: number, level: boolean): void {
    const coalesced = test(this.irr, vector);
    if (this.tap.observer !== null) this.observe(vector, coalesced);
    if (coalesced) {
      this.tap.ledger[Count.COALESCED]! += 1;
      return;
    }
    this.tap.ledger[Count.PENDING]! += 1;
    set(this.counted, vector);
    this.accept(vector, level);
  }

  accept(vector: number, level: boolean): void {
    set(this.irr, vector);
    if (level) set(this.tmr, vector);
    else reset(this.tmr, vector);
    this.kick();
  }

  /** The VM is gone: what is pending is lost. */
  destroy(): void {
    this.irr.fill(0);
    for (let vector = 0; vector < 256; vector += 1) this.settle(vector, Count.LOST + Loss.TORN_DOWN);
  }

  get pending(): boolean {
    const vector = highest(this.irr);
    return this.enabled && vector >= 0 && vector >> 4 > this.processorPriority() >> 4;
  }

  /** INTA: the highest pending vector goes into service. */
  acknowledge(): number {
    if (!this.pending) return SPURIOUS;
    const vector = highest(this.irr);
    reset(this.irr, vector);
    set(this.isr, vector);
    this.settle(vector, Count.DELIVERED);
    if (this.tap.observer !== null) this.observeCpu(vector, 'acknowledge');
    return vector;
  }

  /** The register has no vector: the highest in service ends. `vector` must be that one, else nothing happens. */
  endOfInterrupt(vector: number): void {
    if (highest(this.isr) === vector) this.end();
  }

  listen(listener: (() => void) | null): void {
    this.listener = listener;
    this.kick();
  }

  run(): void {
    this.posted = false;
    if (this.listener !== null && this.pending) this.listener();
  }

  read(offset: number): number {
    switch (offset) {
      case ID:
        return (this.index << 24) >>> 0;
      case VERSION:
        return 0x0005_0014;
      case TPR:
        return this.taskPriority;
      case LDR:
        return (this.logicalId << 24) >>> 0;
      case DFR:
        return this.flat ? 0xffff_ffff : 0x0fff_ffff;
      case SVR:
        return this.spurious | (this.enabled ? SVR_ENABLED : 0);
      default:
        return this.readBits(offset);
    }
  }

  write(offset: number, _size: number, value: number): void {
    if (offset === EOI) this.end();
    else if (offset === TPR) this.taskPriority = value & 0xff;
    else if (offset === LDR) this.logicalId = (value >>> 24) & 0xff;
    else if (offset === DFR) this.flat = value >>> 28 === 0xf;
    else if (offset === SVR) {
      this.enabled = (value & SVR_ENABLED) !== 0;
      this.spurious = value & 0xff;
    }
    this.kick();
  }

  private readBits(offset: number): number {
    const word = (offset & 0x7f) >> 4;
    const bits = offset >= IRR ? this.irr : offset >= TMR ? this.tmr : this.isr;
    return offset >= ISR && offset < IRR + 0x80 && offset % 16 === 0 ? bits[word] >>> 0 : 0;
  }

  private processorPriority(): number {
    const inService = Math.max(highest(this.isr), 0);
    return inService >> 4 > this.taskPriority >> 4 ? inService & 0xf0 : this.taskPriority;
  }

  private end(): void {
    const vector = highest(this.isr);
    if (vector < 0) return;
    reset(this.isr, vector);
    if (this.tap.observer !== null) this.observeCpu(vector, 'eoi');
    if (test(this.tmr, vector)) this.onEoi(vector);
    this.kick();
  }

  private settle(vector: number, slot: number): void {
    if (!test(this.counted, vector)) return;
    reset(this.counted, vector);
    this.tap.ledger[Count.PENDING]! -= 1;
    this.tap.ledger[slot]! += 1;
  }

  private kick(): void {
    if (this.posted || this.listener === null || !this.pending) return;
    this.posted = true;
    this.work.post(this);
  }

  private observe(vector: number, coalesced: boolean): void {
    const state = coalesced ? 'coalesced' : 'sent';
    this.tap.observer?.hop({ at: 'guest-controller', name: this.name, intid: vector, cpu: this.index, state });
  }

  private observeCpu(vector: number, action: 'acknowledge' | 'eoi'): void {
    this.tap.observer?.hop({ at: 'guest-cpu', intid: vector, cpu: this.index, action });
  }
}
