/** The I/O APIC (82093AA): 24 lines, each with a redirection entry that says which CPU and vector. */

import { Count, Loss } from '../../../ports/ledger.ts';
import type { IoDevice } from '../io-bus.ts';
import type { InjectTarget } from '../irqchip.ts';
import type { ApicChip, ApicTarget } from './apic-chip.ts';

export const IOAPIC_PINS = 24;
const IOREGSEL = 0x00;
const IOWIN = 0x10;
/** Low half of a redirection entry. */
const VECTOR = 0xff;
const LOGICAL = 1 << 11;
const REMOTE_IRR = 1 << 14;
const LEVEL = 1 << 15;
const MASKED = 1 << 16;
const READ_ONLY = REMOTE_IRR | (1 << 12);

export class IoApic implements IoDevice {
  readonly name = 'IOAPIC';
  readonly chip: ApicChip;
  private readonly pins: IoApicPin[];
  private selected = 0;

  constructor(chip: ApicChip) {
    this.chip = chip;
    this.pins = Array.from({ length: IOAPIC_PINS }, () => new IoApicPin(this));
  }

  pin(index: number): IoApicPin {
    return this.pins[index];
  }

  setLine(index: number, level: boolean): number {
    if (level) this.pins[index]?.raise();
    else this.pins[index]?.lower();
    return 0;
  }

  destroy(): void {
    for (const pin of this.pins) pin.lower();
  }

  /** A local APIC ended a level triggered vector: the pins that sent it may send again. */
  endOfInterrupt(vector: number, acked: (pin: number) => void): void {
    for (const [index, pin] of this.pins.entries()) if (pin.ends(vector)) pin.end(() => acked(index));
  }

  read(offset: number): number {
    if (offset === IOREGSEL) return this.selected;
    if (offset !== IOWIN) return 0;
    if (this.selected === 1) return 0x11 | ((IOAPIC_PINS - 1) << 16);
    const pin = this.pins[(this.selected - 0x10) >> 1];
    if (this.selected < 0x10 || pin === undefined) return 0;
    return (this.selected & 1) === 0 ? pin.low >>> 0 : pin.high >>> 0;
  }

  write(offset: number, _size: number, value: number): void {
    if (offset === IOREGSEL) this.selected = value & 0xff;
    const pin = this.pins[(this.selected - 0x10) >> 1];
    if (offset !== IOWIN || this.selected < 0x10 || pin === undefined) return;
    pin.configure((this.selected & 1) === 0, value);
  }
}

/** A line with its redirection entry. Edge: a rising line is one interrupt; level: until it falls, again after each end. */
export class IoApicPin implements InjectTarget {
  low = MASKED;
  high = 0;
  private line = false;
  /** The ledger holds an interrupt as pending on the line: a level that the entry does not let through yet. */
  private held = false;
  private readonly ioapic: IoApic;

  constructor(ioapic: IoApic) {
    this.ioapic = ioapic;
  }

  /** An irqfd's interrupt. A level waits on the line while the entry is masked or in service; a masked edge is lost (kvm ioapic_service). */
  inject(): void {
    const { ledger } = this.ioapic.chip.tap;
    const target = this.ready() ? this.target() : null;
    const high = this.line;
    this.line = this.level || target === null;
    if (target !== null) {
      this.sent();
      target.inject();
    } else if (!this.level) ledger[Count.LOST + Loss.GUEST_CONTROLLER_OFF]! += 1;
    else if (this.held || high) ledger[Count.COALESCED]! += 1;
    else {
      this.held = true;
      ledger[Count.PENDING]! += 1;
    }
  }

  raise(): void {
    const rising = !this.line;
    this.line = true;
    if (this.level || rising) this.deliver();
  }

  lower(): void {
    this.line = false;
    if (!this.held) return;
    this.release();
    this.ioapic.chip.tap.ledger[Count.LOST + Loss.TORN_DOWN]! += 1;
  }

  ends(vector: number): boolean {
    return this.level && (this.low & REMOTE_IRR) !== 0 && (this.low & VECTOR) === vector;
  }

  /** kvm_ioapic_update_eoi: the notifiers run first (a resampling irqfd lowers the line), then a line still high sends again. */
  end(notify: () => void): void {
    this.low &= ~REMOTE_IRR;
    notify();
    if (this.line) this.deliver();
  }

  configure(lowHalf: boolean, value: number): void {
    if (!lowHalf) this.high = value | 0;
    else {
      this.low = (value & ~READ_ONLY) | (this.low & READ_ONLY);
      if (!this.level) this.low &= ~REMOTE_IRR;
    }
    if (this.line && this.level) this.deliver();
  }

  private get level(): boolean {
    return (this.low & LEVEL) !== 0;
  }

  private ready(): boolean {
    return (this.low & MASKED) === 0 && !(this.level && (this.low & REMOTE_IRR) !== 0);
  }

  private deliver(): void {
    const target = this.ready() ? this.target() : null;
    if (target === null) return;
    this.sent();
    if (this.held) {
      this.release();
      target.inject();
    } else target.raise();
  }

  private release(): void {
    this.held = false;
    this.ioapic.chip.tap.ledger[Count.PENDING]! -= 1;
  }

  private sent(): void {
    if (this.level) this.low |= REMOTE_IRR;
    else this.line = false;
  }

  private target(): ApicTarget | null {
    const target = this.ioapic.chip.target({
      destination: this.high >>> 24,
      logical: (this.low & LOGICAL) !== 0,
      lowest: ((this.low >>> 8) & 7) === 1,
      vector: this.low & VECTOR,
      level: this.level,
    });
    return typeof target === 'number' ? null : target;
  }
}
