/** The interrupt remapping table of a VT-d unit, as drivers/iommu/intel/irq_remapping.c holds it: struct ir_table. */
import {
  DMA_GCMD_CFI,
  DMA_GCMD_IRE,
  DMA_GCMD_SIRTP,
  DMAR_GCMD_REG,
  DMAR_GSTS_REG,
  DMAR_IRTA_REG,
  encodeIrte,
  GSTS_PERSISTENT,
  IRTE_MAX,
  IRTE_SIZE,
  type Irte,
  irtaLow,
} from '../../arch/x86/index.ts';
import { hex, highHalf } from '../../ports/address.ts';
import type { KernelContext } from '../context.ts';
import { RegionBitmap } from './region-bitmap.ts';

/** What the unit's driver does for remapping: its invalidation queue is one for all. */
export interface RemappingUnit {
  /** Host-physical base of the unit's registers. */
  readonly base: number;
  /** qi_flush_iec: submits an interrupt entry cache invalidation and waits for it. `index` -1: all entries; else 2^maskLog2 entries. */
  flushInterruptEntries(index: number, maskLog2: number): void;
}

const TABLE_BYTES = IRTE_MAX * IRTE_SIZE;
/** The I/O APIC's legacy interrupts come first on every PC, so that a device's first handle is 16, as real hosts show. */
const LEGACY_HANDLES_ORDER = 4;

export class IrTable {
  readonly handles = new RegionBitmap(IRTE_MAX);
  /** The first entries, which are the I/O APIC's. */
  readonly legacy = new RegionBitmap(2 ** LEGACY_HANDLES_ORDER);
  private readonly context: KernelContext;
  private readonly unit: RemappingUnit;
  private table = -1;

  constructor(context: KernelContext, unit: RemappingUnit) {
    this.context = context;
    this.unit = unit;
    this.handles.take(LEGACY_HANDLES_ORDER);
  }

  /** intel_setup_irq_remapping and iommu_enable_irq_remapping. 0, ENOMEM, ENODEV (the unit does not remap) as -errno. */
  init(): number {
    const { bus, memory, refusals } = this.context;
    const table = memory.allocate(TABLE_BYTES, 4096);
    if (table === null) return refusals.refuse('ENOMEM', 'no memory for the interrupt remapping table');
    this.table = table;
    bus.write32(this.unit.base + DMAR_IRTA_REG, irtaLow(table, IRTE_MAX));
    bus.write32(this.unit.base + DMAR_IRTA_REG + 4, highHalf(table));
    this.command(DMA_GCMD_SIRTP, true);
    this.unit.flushInterruptEntries(-1, 0);
    this.command(DMA_GCMD_CFI, false);
    this.command(DMA_GCMD_IRE, true);
    if ((this.status() & DMA_GCMD_IRE) !== 0) return 0;
    this.release();
    return refusals.refuse('ENODEV', `the VT-d unit at ${hex(this.unit.base)} does not remap interrupts`);
  }

  /** Remapping off, the table back to memory. */
  release(): void {
    if (this.table < 0) return;
    this.command(DMA_GCMD_IRE, false);
    this.context.memory.free(this.table, TABLE_BYTES);
    this.table = -1;
  }

  /** modify_irte: the entry, its present half last; then the caches. */
  write(handle: number, irte: Irte): void {
    const words = encodeIrte(irte);
    const at = this.addressOf(handle);
    this.context.memory.write64(at + 8, words[2], words[3]);
    this.context.memory.write64(at, words[0], words[1]);
    this.unit.flushInterruptEntries(handle, 0);
  }

  clear(handle: number): void {
    const at = this.addressOf(handle);
    this.context.memory.write64(at, 0, 0);
    this.context.memory.write64(at + 8, 0, 0);
    this.unit.flushInterruptEntries(handle, 0);
  }

  /** Host-physical address of an entry. */
  addressOf(handle: number): number {
    return this.table + handle * IRTE_SIZE;
  }

  private status(): number {
    return this.context.bus.read32(this.unit.base + DMAR_GSTS_REG);
  }

  /** One bit of GCMD; the others stay as GSTS shows them. */
  private command(bit: number, on: boolean): void {
    const kept = this.status() & GSTS_PERSISTENT;
    this.context.bus.write32(this.unit.base + DMAR_GCMD_REG, on ? kept | bit : kept & ~bit);
  }
}
