/**
 * The I/O APIC: 24 wires, each with an entry that says which message it becomes. A level is signalled when its line rises and whenever it is
 * unmasked while the line is high; a handler that leaves both as they are is not called again, where real hardware would storm.
 */
import {
  compatibilityAddress,
  IOAPIC_BASE,
  IOAPIC_ENTRY,
  IOAPIC_PINS,
  IOAPIC_REGSEL,
  IOAPIC_SIZE,
  IOAPIC_SOURCE,
  IOAPIC_VERSION,
  IOAPIC_WIN,
  MSI_ADDR_DEST_MODE_LOGICAL,
  RTE_LEVEL,
  RTE_LOGICAL,
  RTE_MASKED,
  RTE_REMAPPABLE,
  remappableAddress,
  rteHandle,
} from '../../arch/x86/index.ts';
import type { Bus, MmioTarget } from '../../ports/bus.ts';
import { Transaction } from '../../ports/transaction.ts';
import type { LocalApics } from './apic.ts';

export class IoApic implements MmioTarget {
  readonly name = 'I/O APIC';
  private readonly apics: LocalApics;
  private readonly tx = new Transaction();
  private index = 0;
  private lines = 0;
  /** Halves of the entries, low first. */
  private readonly entries = new Int32Array(IOAPIC_PINS * 2);

  constructor(apics: LocalApics) {
    this.apics = apics;
    this.tx.requester = IOAPIC_SOURCE;
    for (let pin = 0; pin < IOAPIC_PINS; pin++) this.entries[pin * 2] = RTE_MASKED;
  }

  attach(bus: Bus): void {
    bus.map(IOAPIC_BASE, IOAPIC_SIZE, this);
  }

  /** Drives a wire, 0 to 23; others do not exist. */
  setLine(pin: number, level: boolean): void {
    if (!(pin >= 0 && pin < IOAPIC_PINS)) return;
    const bit = 1 << pin;
    const rises = level && (this.lines & bit) === 0;
    this.lines = level ? this.lines | bit : this.lines & ~bit;
    if (rises && (this.entries[pin * 2] & RTE_MASKED) === 0) this.send(pin);
  }

  line(pin: number): boolean {
    return (this.lines & (1 << pin)) !== 0;
  }

  read(offset: number, _size: number): number {
    if (offset === IOAPIC_REGSEL) return this.index;
    if (offset !== IOAPIC_WIN) return 0;
    // Version 0x20, and the last entry.
    if (this.index === IOAPIC_VERSION) return ((IOAPIC_PINS - 1) << 16) | 0x20;
    return this.entries[this.index - IOAPIC_ENTRY] ?? 0;
  }

  write(offset: number, _size: number, value: number): void {
    if (offset === IOAPIC_REGSEL) this.index = value & 0xff;
    else if (offset === IOAPIC_WIN && this.index >= IOAPIC_ENTRY && this.index < IOAPIC_ENTRY + IOAPIC_PINS * 2) {
      this.writeEntry(this.index - IOAPIC_ENTRY, value | 0);
    }
  }

  private writeEntry(half: number, value: number): void {
    const before = this.entries[half];
    this.entries[half] = value;
    const unmasked = (half & 1) === 0 && (before & RTE_MASKED) !== 0 && (value & RTE_MASKED) === 0;
    // An edge that came while masked is gone.
    if (unmasked && (value & RTE_LEVEL) !== 0 && this.line(half >>> 1)) this.send(half >>> 1);
  }

  private send(pin: number): void {
    const lo = this.entries[pin * 2];
    const hi = this.entries[pin * 2 + 1];
    const address =
      (hi & RTE_REMAPPABLE) !== 0
        ? remappableAddress(rteHandle(lo, hi), false)
        : compatibilityAddress(hi >>> 24) | ((lo & RTE_LOGICAL) !== 0 ? MSI_ADDR_DEST_MODE_LOGICAL : 0);
    this.tx.paLo = address | 0;
    this.tx.data = lo & 0x7ff;
    this.apics.accept(this.tx);
  }
}
