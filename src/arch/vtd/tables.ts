/** Root and context tables in legacy mode, and second-level page tables (VT-d 9.1, 9.3, 9.8). */
import { layout } from '../bits.ts';

export const ROOT_ENTRY_SIZE = 16;
export const CONTEXT_ENTRY_SIZE = 16;

/** By bus number; word 1 is reserved in legacy mode. */
export const ROOT_ENTRY = layout({ P: [0, 0, 0], CTP: [0, 63, 12] });

/** By device and function. */
export const CONTEXT_ENTRY = layout({
  P: [0, 0, 0],
  FPD: [0, 1, 1],
  TT: [0, 3, 2],
  SLPTPTR: [0, 63, 12],
  AW: [1, 2, 0],
  AVAIL: [1, 6, 3],
  DID: [1, 23, 8],
});

/** CONTEXT_ENTRY.TT. */
export const TranslationType = { SECOND_LEVEL: 0, SECOND_LEVEL_WITH_DEVICE_TLB: 1, PASS_THROUGH: 2 } as const;

/** CONTEXT_ENTRY.AW of an address width: 39 bits are three levels, 48 are four. */
export const encodeAddressWidth = (bits: number): number => (bits - 30) / 9;
/** 39 or 48; 0 for widths that these units lack. */
export const decodeAddressWidth = (aw: number): number => (aw === 1 ? 39 : aw === 2 ? 48 : 0);

/** An entry of a second-level table. In entries above the pages PS makes a leaf of 2 MiB or 1 GiB. */
export const SL_ENTRY = layout({
  R: [0, 0, 0],
  W: [0, 1, 1],
  X: [0, 2, 2],
  PS: [0, 7, 7],
  SNP: [0, 11, 11],
  ADDR: [0, 51, 12],
  TM: [0, 62, 62],
});

export const SL_READ = 1 << 0;
export const SL_WRITE = 1 << 1;
export const SL_PAGE_SIZE = 1 << 7;
export const SL_SNOOP = 1 << 11;
