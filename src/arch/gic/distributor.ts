/** GICD: the distributor's register map (IHI 0069 12.9; IHI 0048 4.3 for GICv2). All offsets in bytes. */

export const GICD_SIZE = 0x10000;
export const GICD_CTLR = 0x0000;
export const GICD_TYPER = 0x0004;
export const GICD_IIDR = 0x0008;
export const GICD_TYPER2 = 0x000c;
/** Bit n of word n/32 stands for interrupt n. */
export const GICD_IGROUPR = 0x0080;
export const GICD_ISENABLER = 0x0100;
export const GICD_ICENABLER = 0x0180;
export const GICD_ISPENDR = 0x0200;
export const GICD_ICPENDR = 0x0280;
export const GICD_ISACTIVER = 0x0300;
export const GICD_ICACTIVER = 0x0380;
/** One byte for each interrupt. */
export const GICD_IPRIORITYR = 0x0400;
/** GICv2: one byte for each interrupt, a bit for each CPU interface. */
export const GICD_ITARGETSR = 0x0800;
/** Two bits for each interrupt; the upper one says edge. */
export const GICD_ICFGR = 0x0c00;
export const GICD_IGRPMODR = 0x0d00;
/** GICv3: 8 bytes for each interrupt from 32 on. */
export const GICD_IROUTER = 0x6000;
export const GICD_PIDR2 = 0xffe8;
/** GICv2's identification register sits at the end of its 4 KiB page. */
export const GICD_V2_PIDR2 = 0x0fe8;

export const GICD_CTLR_ENABLE_GRP0 = 1 << 0;
export const GICD_CTLR_ENABLE_GRP1 = 1 << 1;
/** Affinity routing; always on in a GICv3 without a legacy mode. */
export const GICD_CTLR_ARE = 1 << 4;
/** One security state. */
export const GICD_CTLR_DS = 1 << 6;

/** Any participating CPU may take it. */
export const GICD_IROUTER_SPI_MODE_ANY = 1 << 31;

/** PIDR2.ArchRev in bits 7:4. */
export const GIC_PIDR2_ARCH_GICv2 = 0x20;
export const GIC_PIDR2_ARCH_GICv3 = 0x30;

/** The first shared peripheral interrupt, and the first id that is special and no interrupt. */
export const SPI_FIRST = 32;
export const SPI_END = 1020;
/** 1020 - 32. */
export const SPI_MAX = 988;

/** GICD_TYPER: ITLinesNumber 4:0, CPUNumber 7:5, LPIS 17, IDbits 23:19. `idBits` is a count of bits; 0 without LPIs (GICv2). */
export function distributorType(spis: number, cpus: number, idBits: number): number {
  const lines = Math.ceil((SPI_FIRST + spis) / 32) - 1;
  const base = lines | (Math.min(cpus - 1, 7) << 5);
  return idBits === 0 ? base : base | (1 << 17) | ((idBits - 1) << 19);
}

/** Interrupt ids below this are implemented, at most 1020. */
export const distributorLines = (typer: number): number => Math.min(((typer & 0x1f) + 1) * 32, SPI_END);
export const distributorIdBits = (typer: number): number => ((typer >>> 19) & 0x1f) + 1;
export const distributorHasLpis = (typer: number): boolean => (typer & (1 << 17)) !== 0;
