/** The context descriptor: 64 bytes that describe a stage 1 (IHI 0070 5.4). */
import { layout } from '../bits.ts';

export const CD_WORDS = 8;
export const CD_SIZE = 64;

/** Fields of the eight 64-bit words, by the architecture's names. */
export const CD = layout({
  T0SZ: [0, 5, 0],
  TG0: [0, 7, 6],
  IR0: [0, 9, 8],
  OR0: [0, 11, 10],
  SH0: [0, 13, 12],
  EPD0: [0, 14, 14],
  ENDI: [0, 15, 15],
  T1SZ: [0, 21, 16],
  TG1: [0, 23, 22],
  IR1: [0, 25, 24],
  OR1: [0, 27, 26],
  SH1: [0, 29, 28],
  EPD1: [0, 30, 30],
  V: [0, 31, 31],
  IPS: [0, 34, 32],
  AFFD: [0, 35, 35],
  WXN: [0, 36, 36],
  UWXN: [0, 37, 37],
  TBI0: [0, 38, 38],
  TBI1: [0, 39, 39],
  PAN: [0, 40, 40],
  AA64: [0, 41, 41],
  HD: [0, 42, 42],
  HA: [0, 43, 43],
  S: [0, 44, 44],
  R: [0, 45, 45],
  A: [0, 46, 46],
  ASET: [0, 47, 47],
  ASID: [0, 63, 48],
  NSCFG0: [1, 0, 0],
  HAD0: [1, 1, 1],
  TTB0: [1, 51, 4],
  NSCFG1: [2, 0, 0],
  HAD1: [2, 1, 1],
  TTB1: [2, 51, 4],
  MAIR: [3, 63, 0],
  AMAIR: [4, 63, 0],
});
export type CdField = keyof typeof CD;

/** A first-level context descriptor of a two-level table: a 4 KiB or 64 KiB table of CDs. */
export const L1CD = layout({ V: [0, 0, 0], L2Ptr: [0, 51, 12] });

/** CDs of one second-level table, by STE.S1Fmt: 4 KiB holds 64, 64 KiB holds 1,024. */
export const l2CdBits = (s1fmt: number): number => (s1fmt === 1 ? 6 : 10);

/** CD.TG0 and STE.S2TG by granule in bytes. */
export const TG0: Readonly<Record<number, number>> = { 4096: 0, 65536: 1, 16384: 2 };
/** log2 of the granule by TG0 or S2TG; 0 is reserved. */
export const granuleShiftOfTg0 = (tg: number): number => [12, 16, 14, 0][tg];
/** log2 of the granule by TG1 (which has other numbers); 0 is reserved. */
export const granuleShiftOfTg1 = (tg: number): number => [0, 14, 12, 16][tg];

/** Memory attributes that Linux puts into MAIR: normal non-cacheable, write-back, device-nGnRE, outer cacheable. */
export const MAIR_LINUX = 0xf404ff44n;
