/** VMSAv8-64 translation table descriptors, as the SMMU reads them (Arm ARM D8.3; io-pgtable-arm.c for what Linux writes). */
import { layout } from '../bits.ts';

/** Bits [1:0]. A block is 1 below level 3, a page is 3 at level 3, a table is 3 below level 3. */
export const DescriptorType = { INVALID: 0, BLOCK: 1, TABLE: 3, PAGE: 3 } as const;

/** Leaf of stage 1. */
export const S1_LEAF = layout({
  Type: [0, 1, 0],
  AttrIndx: [0, 4, 2],
  NS: [0, 5, 5],
  /** AP[1]: unprivileged accesses are allowed. */
  AP1: [0, 6, 6],
  /** AP[2]: read-only. */
  AP2: [0, 7, 7],
  SH: [0, 9, 8],
  AF: [0, 10, 10],
  nG: [0, 11, 11],
  Address: [0, 47, 12],
  DBM: [0, 51, 51],
  Contiguous: [0, 52, 52],
  PXN: [0, 53, 53],
  XN: [0, 54, 54],
});

/** Leaf of stage 2. */
export const S2_LEAF = layout({
  Type: [0, 1, 0],
  MemAttr: [0, 5, 2],
  HAPRead: [0, 6, 6],
  HAPWrite: [0, 7, 7],
  SH: [0, 9, 8],
  AF: [0, 10, 10],
  Address: [0, 47, 12],
  DBM: [0, 51, 51],
  Contiguous: [0, 52, 52],
  XN: [0, 54, 53],
});

/** Table descriptor; the attributes in bits 63:59 hold for everything below and exist in stage 1 only. */
export const TABLE_DESCRIPTOR = layout({
  Type: [0, 1, 0],
  Address: [0, 47, 12],
  PXNTable: [0, 59, 59],
  XNTable: [0, 60, 60],
  APTable: [0, 62, 61],
  NSTable: [0, 63, 63],
});

/** Permissions of a mapping, as io-pgtable takes them; the values are Linux's IOMMU_*. */
export interface LeafAttributes {
  readonly read: boolean;
  readonly write: boolean;
  readonly cache: boolean;
  readonly noexec: boolean;
  readonly mmio: boolean;
}

/** A 64-bit descriptor's halves. */
export interface Halves {
  readonly lo: number;
  readonly hi: number;
}

const SH_OUTER = 2 << 8;
const SH_INNER = 3 << 8;
const AF = 1 << 10;
const XN_HIGH = 3 << 21;
const DBM_HIGH = 1 << 19;

/** MAIR indices as Linux numbers them: 0 non-cacheable, 1 write-back, 2 device. */
export const AttrIndex = { NC: 0, CACHE: 1, DEVICE: 2 } as const;
/** Stage 2 MemAttr: device-nGnRE, normal non-cacheable, normal write-back. */
export const MemAttr = { DEVICE: 0x1, NC: 0x5, WB: 0xf } as const;

/**
 * Everything of a stage 1 leaf but its type and address. Stage 1 has no write-only: a mapping without READ is readable,
 * so the doorbell page that is mapped WRITE can still be read by the device. With `dirty` what can be written carries DBM, and begins as dirty.
 */
export function stage1Attributes(from: LeafAttributes, dirty = false): Halves {
  const index = from.mmio ? AttrIndex.DEVICE : from.cache ? AttrIndex.CACHE : AttrIndex.NC;
  const readOnly = !from.write && from.read ? 1 << 7 : 0;
  const lo = (1 << 11) | AF | (from.cache ? SH_INNER : SH_OUTER) | readOnly | (1 << 6) | (index << 2);
  return { lo, hi: (from.noexec ? XN_HIGH : 0) | (dirty && readOnly === 0 ? DBM_HIGH : 0) };
}

/** Everything of a stage 2 leaf but its type and address. */
export function stage2Attributes(from: LeafAttributes): Halves {
  const memory = from.mmio ? MemAttr.DEVICE : from.cache ? MemAttr.WB : MemAttr.NC;
  const hap = (from.read ? 1 << 6 : 0) | (from.write ? 1 << 7 : 0);
  return { lo: AF | (from.cache ? SH_INNER : SH_OUTER) | hap | (memory << 2), hi: from.noexec ? XN_HIGH : 0 };
}
