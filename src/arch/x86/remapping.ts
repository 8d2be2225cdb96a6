/** VT-d interrupt remapping: the table entry (IRTE), the registers, the invalidation descriptor, the faults (VT-d 5.1, 9.10, 11.4). */

export const IRTE_SIZE = 16;
/** The most that a table can hold, and what Linux allocates. */
export const IRTE_MAX = 65536;

/** Low word. */
export const IRTE_PRESENT = 1 << 0;
/** Fault processing disabled: its faults are not recorded. */
export const IRTE_FPD = 1 << 1;
export const IRTE_LOGICAL = 1 << 2;
export const IRTE_REDIRECTION_HINT = 1 << 3;
export const IRTE_LEVEL = 1 << 4;
/** IM: the posted format. */
export const IRTE_POSTED = 1 << 15;
/** Reserved bits of the low word of a remapped-format entry: 14:12, 31:24. */
export const IRTE_RESERVED = 0xff00_7000 | 0;

/** Source validation: what of the requester is compared. */
export const Svt = { NONE: 0, SID: 1, BUS: 2 } as const;

/** An entry in the remapped format. */
export interface Irte {
  readonly vector: number;
  readonly apicId: number;
  readonly requester: number;
  readonly logical?: boolean;
  /** See Delivery; default fixed. */
  readonly delivery?: number;
  readonly level?: boolean;
  /** Default: all 16 bits of the requester. */
  readonly svt?: number;
  readonly sq?: number;
  /** Default true. */
  readonly present?: boolean;
}

/** The entry as four 32-bit words, lowest first. With xAPIC ids (IRTA_REG.EIME clear) the destination is bits 47:40. */
export function encodeIrte(irte: Irte, x2apic = false): readonly [number, number, number, number] {
  return [
    (irte.present === false ? 0 : IRTE_PRESENT) |
      (irte.logical === true ? IRTE_LOGICAL : 0) |
      (irte.level === true ? IRTE_LEVEL : 0) |
      ((irte.delivery ?? 0) << 5) |
      (irte.vector << 16),
    x2apic ? irte.apicId : irte.apicId << 8,
    (irte.requester & 0xffff) | ((irte.sq ?? 0) << 16) | ((irte.svt ?? Svt.SID) << 18),
    0,
  ];
}

/**
 * Does the requester pass the entry's check? SQ: 0 all bits, 1 to 3 ignore the highest, the two highest, all three function bits.
 * SVT 3 is reserved; the caller has refused it.
 */
export function sourceAllowed(sourceWord: number, requester: number): boolean {
  const sid = sourceWord & 0xffff;
  const svt = (sourceWord >>> 18) & 3;
  if (svt === Svt.NONE) return true;
  if (svt === Svt.BUS) {
    const bus = (requester >>> 8) & 0xff;
    return bus >= sid >>> 8 && bus <= (sid & 0xff);
  }
  const ignored = [0, 4, 6, 7][(sourceWord >>> 16) & 3];
  return ((sid ^ requester) & 0xffff & ~ignored) === 0;
}

/** Registers of the VT-d unit that interrupt remapping uses. */
export const DMAR_GCMD_REG = 0x18;
export const DMAR_GSTS_REG = 0x1c;
export const DMAR_IRTA_REG = 0xb8;
/** Bits of GCMD, and of GSTS when done. */
export const DMA_GCMD_CFI = 1 << 23;
export const DMA_GCMD_SIRTP = 1 << 24;
export const DMA_GCMD_IRE = 1 << 25;
/** The bits of GSTS that software writes back in GCMD with one changed (VT-d 11.4.4.1: one-shot bits excluded). */
export const GSTS_PERSISTENT = 0x96ff_ffff | 0;
/** Low half of IRTA_REG: address 31:12, EIME 11, S 3:0 (entries = 2^(S + 1)). */
export const IRTA_EIME = 1 << 11;
export const irtaLow = (pa: number, entries: number): number => (pa & ~0xfff) | (Math.log2(entries) - 1);
export const irtaEntries = (lo: number): number => 2 ** ((lo & 0xf) + 1);

/** Interrupt entry cache invalidation: type 4, G bit 4 (index-selective), IM 31:27, IIDX 47:32. As two halves of the first word. */
export const IEC_TYPE = 4;
export const IEC_SELECTIVE = 1 << 4;
export function iecDescriptor(index: number, maskLog2: number): { lo: number; hi: number } {
  return index < 0 ? { lo: IEC_TYPE, hi: 0 } : { lo: IEC_TYPE | IEC_SELECTIVE | (maskLog2 << 27), hi: index & 0xffff };
}

/** Fault reasons (VT-d table 24). */
export const RemapFault = {
  RESERVED_REQUEST: 0x20,
  INDEX_BEYOND_TABLE: 0x21,
  NOT_PRESENT: 0x22,
  TABLE_UNREADABLE: 0x23,
  RESERVED_ENTRY: 0x24,
  COMPATIBILITY_BLOCKED: 0x25,
  SOURCE_MISMATCH: 0x26,
} as const;
export type RemapFaultCode = (typeof RemapFault)[keyof typeof RemapFault];
