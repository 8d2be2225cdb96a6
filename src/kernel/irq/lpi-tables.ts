/**
 * The LPIs' tables in memory and the redistributors that use them (irq-gic-v3-its.c, its_setup_lpi_prop_table and
 * its_cpu_init_lpis). One property table for all CPUs, one pending table each.
 */
import {
  distributorHasLpis,
  distributorIdBits,
  GICD_TYPER,
  GICR_CTLR,
  GICR_CTLR_ENABLE_LPIS,
  GICR_PENDBASER,
  GICR_PROPBASER,
  GICR_STRIDE,
  GICR_TYPER,
  LPI_FIRST,
  LPI_PROP_DEFAULT_PRIO,
  LPI_PROP_ENABLED,
  LPI_PROP_GROUP1,
  pendBase,
  pendTableSize,
  propBase,
  propTableSize,
  redistributorProcessor,
} from '../../arch/gic/index.ts';
import type { KernelContext } from '../context.ts';
import { LpiRanges } from './lpi-ranges.ts';

/** ITS_MAX_LPI_NRBITS: Linux uses no more than 16 bits of LPIs whatever the hardware has, 57,344 of them. */
export const ITS_MAX_LPI_NRBITS = 16;
const ALIGNMENT = 65536;

export interface LpiTablesOptions {
  /** Host-physical base of the distributor, and of the first redistributor. */
  readonly distributor: number;
  readonly redistributors: number;
  readonly cpus: number;
  /** Most bits of an LPI's id that are used, 14 to 24; default 16 as on Linux. */
  readonly maxBits?: number;
}

export class LpiTables {
  readonly cpus: number;
  /** Bits of an interrupt id in use; 0 until `init` succeeds. */
  idBits = 0;
  ranges = new LpiRanges(LPI_FIRST, 0);
  private readonly context: KernelContext;
  private readonly options: LpiTablesOptions;
  private properties = -1;
  private readonly pending: number[] = [];
  private readonly byte = new Uint8Array(1);

  constructor(context: KernelContext, options: LpiTablesOptions) {
    this.context = context;
    this.options = options;
    this.cpus = options.cpus;
  }

  /** Makes the tables and enables LPIs at every CPU. 0, ENXIO (no LPIs), ENOMEM as -errno. */
  init(): number {
    const { bus, refusals } = this.context;
    const typer = bus.read32(this.options.distributor + GICD_TYPER);
    if (!distributorHasLpis(typer)) return refusals.refuse('ENXIO', 'the GIC has no LPIs (GICD_TYPER.LPIS is clear)');
    this.idBits = Math.min(distributorIdBits(typer), this.options.maxBits ?? ITS_MAX_LPI_NRBITS);
    const error = this.allocateTables();
    if (error < 0) return error;
    this.ranges = new LpiRanges(LPI_FIRST, 2 ** this.idBits - LPI_FIRST);
    for (let cpu = 0; cpu < this.cpus; cpu++) this.initCpu(cpu);
    return 0;
  }

  /** Redistributors off, tables back to memory. */
  release(): void {
    const { memory, bus } = this.context;
    for (let cpu = 0; cpu < this.pending.length; cpu++) bus.write32(this.redistributor(cpu) + GICR_CTLR, 0);
    for (const table of this.pending.splice(0)) memory.free(table, this.pendingBytes);
    if (this.properties >= 0) memory.free(this.properties, this.propertyBytes);
    this.properties = -1;
    this.idBits = 0;
  }

  /** lpi_write_config: the enable bit of an LPI's property byte. Counts after an INV. */
  setEnabled(lpi: number, enabled: boolean): void {
    this.byte[0] = LPI_PROP_DEFAULT_PRIO | LPI_PROP_GROUP1 | (enabled ? LPI_PROP_ENABLED : 0);
    this.context.memory.write(this.properties + lpi - LPI_FIRST, this.byte);
  }

  /** Host-physical base of a CPU's redistributor. */
  redistributor(cpu: number): number {
    return this.options.redistributors + cpu * GICR_STRIDE;
  }

  /** What MAPC and SYNC call the CPU: its redistributor's address, or its processor number << 16 (GITS_TYPER.PTA). */
  target(cpu: number, physical: boolean): number {
    const base = this.redistributor(cpu);
    return physical ? base : redistributorProcessor(this.context.bus.read32(base + GICR_TYPER)) * 65536;
  }

  private get propertyBytes(): number {
    return Math.ceil(propTableSize(this.idBits) / ALIGNMENT) * ALIGNMENT;
  }
  private get pendingBytes(): number {
    return Math.ceil(pendTableSize(this.idBits) / ALIGNMENT) * ALIGNMENT;
  }

  private allocateTables(): number {
    const { memory, refusals } = this.context;
    const properties = memory.allocate(this.propertyBytes, ALIGNMENT);
    if (properties === null) return refusals.refuse('ENOMEM', 'no memory for the property table of the LPIs');
    this.properties = properties;
    // Zero is "disabled, highest priority": what Linux fills in differs in the priority only, and is written with the first enable.
    for (let cpu = 0; cpu < this.cpus; cpu++) {
      const table = memory.allocate(this.pendingBytes, ALIGNMENT);
      if (table === null) {
        this.release();
        return refusals.refuse('ENOMEM', `no memory for the pending table of CPU ${cpu}`);
      }
      this.pending.push(table);
    }
    return 0;
  }

  private initCpu(cpu: number): void {
    const base = this.redistributor(cpu);
    this.write64(base + GICR_PROPBASER, propBase(this.properties, this.idBits));
    this.write64(base + GICR_PENDBASER, pendBase(this.pending[cpu]!, true));
    this.context.bus.write32(base + GICR_CTLR, GICR_CTLR_ENABLE_LPIS);
  }

  private write64(pa: number, value: { readonly lo: number; readonly hi: number }): void {
    this.context.bus.write32(pa, value.lo);
    this.context.bus.write32(pa + 4, value.hi);
  }
}
