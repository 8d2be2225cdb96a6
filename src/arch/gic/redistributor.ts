/** GICR: one redistributor's register map, and the tables of LPIs that it points at (IHI 0069 12.11, 5.1). */

/** RD_base and SGI_base, 64 KiB each. */
export const GICR_STRIDE = 0x20000;
export const GICR_SGI_BASE = 0x10000;
export const GICR_CTLR = 0x0000;
export const GICR_IIDR = 0x0004;
export const GICR_TYPER = 0x0008;
export const GICR_WAKER = 0x0014;
export const GICR_PROPBASER = 0x0070;
export const GICR_PENDBASER = 0x0078;
export const GICR_PIDR2 = 0xffe8;

export const GICR_CTLR_ENABLE_LPIS = 1 << 0;
export const GICR_WAKER_ProcessorSleep = 1 << 1;
export const GICR_WAKER_ChildrenAsleep = 1 << 2;
/** Low half of GICR_TYPER. */
export const GICR_TYPER_PLPIS = 1 << 0;
export const GICR_TYPER_LAST = 1 << 4;
/** High half of GICR_PENDBASER: bit 62, the pending table is zero. */
export const GICR_PENDBASER_PTZ_HI = 1 << 30;

/** GICR_TYPER as halves: PLPIS 0, Last 4, Processor_Number 23:8, Affinity_Value 63:32. */
export function redistributorType(cpu: number, last: boolean): { lo: number; hi: number } {
  return { lo: GICR_TYPER_PLPIS | (last ? GICR_TYPER_LAST : 0) | ((cpu & 0xffff) << 8), hi: affinityOf(cpu) };
}
export const redistributorProcessor = (typerLo: number): number => (typerLo >>> 8) & 0xffff;

/** The affinity that the machines give CPU n: 256 of them in a cluster, Aff1.Aff0 = n. */
export const affinityOf = (cpu: number): number => ((cpu >>> 8) << 8) | (cpu & 0xff);

/** Locality-specific interrupts begin here; their number of bits is GICD_TYPER.IDbits + 1. */
export const LPI_FIRST = 8192;

/** A property byte: priority 7:2, bit 1 reserved as one, bit 0 enable. It stands at the table's base + LPI - 8192. */
export const LPI_PROP_ENABLED = 1 << 0;
export const LPI_PROP_GROUP1 = 1 << 1;
export const LPI_PROP_DEFAULT_PRIO = 0xa0;

/** GICR_PROPBASER: Physical_Address 51:12, IDbits 4:0 (less one). Attributes are left at non-cacheable. */
export function propBase(pa: number, idBits: number): { lo: number; hi: number } {
  return { lo: pa | 0 | (idBits - 1), hi: (pa / 4294967296) & 0xfffff };
}
export const propBaseAddress = (lo: number, hi: number): number => (hi & 0xfffff) * 4294967296 + ((lo & -4096) >>> 0);
export const propBaseIdBits = (lo: number): number => (lo & 0x1f) + 1;

/** GICR_PENDBASER: Physical_Address 51:16, PTZ 62. The table has a bit for every interrupt id from 0 on. */
export function pendBase(pa: number, zeroed: boolean): { lo: number; hi: number } {
  return { lo: pa | 0, hi: ((pa / 4294967296) & 0xfffff) | (zeroed ? GICR_PENDBASER_PTZ_HI : 0) };
}
export const pendBaseAddress = (lo: number, hi: number): number => (hi & 0xfffff) * 4294967296 + ((lo & -65536) >>> 0);

/** Bytes of the property table, which starts at LPI 8192. */
export const propTableSize = (idBits: number): number => 2 ** idBits - LPI_FIRST;
/** Bytes of one CPU's pending table. */
export const pendTableSize = (idBits: number): number => 2 ** idBits / 8;
