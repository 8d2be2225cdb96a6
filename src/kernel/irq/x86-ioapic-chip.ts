/** The I/O APIC as a chip of wired interrupts (arch/x86/kernel/apic/io_apic.c), through the remapping table where there is one. */
import {
  IOAPIC_BASE,
  IOAPIC_ENTRY,
  IOAPIC_PINS,
  IOAPIC_REGSEL,
  IOAPIC_SOURCE,
  IOAPIC_WIN,
  intidCpu,
  intidVector,
  RTE_LEVEL,
  RTE_MASKED,
  rteDestination,
  rteHandleHigh,
  rteHandleLow,
} from '../../arch/x86/index.ts';
import type { KernelContext } from '../context.ts';
import type { IrqChip } from './irq-chip.ts';
import type { IrTable } from './x86-ir-table.ts';
import { refuseVectors } from './x86-parent.ts';
import type { X86Vectors } from './x86-vectors.ts';

export class IoApicChip implements IrqChip {
  readonly name: string;
  private readonly context: KernelContext;
  private readonly vectors: X86Vectors;
  private readonly table: IrTable | null;
  /** The interrupt id of a connected pin, and the pin of an id. */
  private readonly intids = new Map<number, number>();
  private readonly pins = new Map<number, number>();

  /** `table`: initialised, or null without remapping. */
  constructor(context: KernelContext, vectors: X86Vectors, table: IrTable | null) {
    this.context = context;
    this.vectors = vectors;
    this.table = table;
    this.name = table === null ? 'IO-APIC' : 'IR-IO-APIC';
  }

  /**
   * Gives a pin a vector and writes its entry, level triggered and masked. The interrupt id (hwirq) under which it arrives; the same one when the
   * pin is connected already. EINVAL: no such pin. ENOSPC: no vector, no remapping entry.
   */
  connect(pin: number): number {
    const { refusals } = this.context;
    if (!(pin >= 0 && pin < IOAPIC_PINS)) return refusals.refuse('EINVAL', `the I/O APIC has no pin ${pin}`, 'pin');
    const known = this.intids.get(pin);
    if (known !== undefined) return known;
    const handle = this.table === null ? 0 : this.table.legacy.take(0);
    if (handle < 0) return refusals.refuse('ENOSPC', 'all remapping entries of the I/O APIC are in use', 'pin');
    const intid = this.vectors.allocate();
    if (intid < 0) {
      this.table?.legacy.release(handle, 0);
      return refuseVectors(this.context, this.vectors);
    }
    this.intids.set(pin, intid);
    this.pins.set(intid, pin);
    this.program(pin, intid, handle);
    return intid;
  }

  mask(hwirq: number): void {
    this.change(hwirq, (lo) => lo | RTE_MASKED);
  }

  unmask(hwirq: number): void {
    this.change(hwirq, (lo) => lo & ~RTE_MASKED);
  }

  private program(pin: number, intid: number, handle: number): void {
    const vector = intidVector(intid);
    const apicId = intidCpu(intid);
    this.table?.write(handle, { vector, apicId, requester: IOAPIC_SOURCE, level: true });
    const remapped = this.table !== null;
    this.writeHalf(pin, 1, remapped ? rteHandleHigh(handle) : rteDestination(apicId));
    this.writeHalf(pin, 0, vector | RTE_LEVEL | RTE_MASKED | (remapped ? rteHandleLow(handle) : 0));
  }

  private change(hwirq: number, to: (lo: number) => number): void {
    const pin = this.pins.get(hwirq);
    if (pin !== undefined) this.writeHalf(pin, 0, to(this.readHalf(pin, 0)));
  }

  private readHalf(pin: number, half: 0 | 1): number {
    this.context.bus.write32(IOAPIC_BASE + IOAPIC_REGSEL, IOAPIC_ENTRY + pin * 2 + half);
    return this.context.bus.read32(IOAPIC_BASE + IOAPIC_WIN);
  }

  private writeHalf(pin: number, half: 0 | 1, value: number): void {
    this.context.bus.write32(IOAPIC_BASE + IOAPIC_REGSEL, IOAPIC_ENTRY + pin * 2 + half);
    this.context.bus.write32(IOAPIC_BASE + IOAPIC_WIN, value);
  }
}
