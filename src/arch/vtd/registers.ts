/** Registers of a VT-d unit (VT-d 11.4): byte offsets and fields. Interrupt remapping's own are in arch/x86. */
import { layout } from '../bits.ts';

export const VtdReg = {
  VER: 0x0,
  /** 64-bit. */
  CAP: 0x8,
  /** 64-bit. */
  ECAP: 0x10,
  GCMD: 0x18,
  GSTS: 0x1c,
  /** 64-bit. */
  RTADDR: 0x20,
  /** 64-bit. */
  CCMD: 0x28,
  FSTS: 0x34,
  FECTL: 0x38,
  FEDATA: 0x3c,
  FEADDR: 0x40,
  FEUADDR: 0x44,
  /** 64-bit. */
  IQH: 0x80,
  /** 64-bit. */
  IQT: 0x88,
  /** 64-bit. */
  IQA: 0x90,
  ICS: 0x9c,
  /** 64-bit. */
  IRTA: 0xb8,
  /** ECAP.IRO of these units. 64-bit. */
  IVA: 0xf0,
  /** 64-bit. */
  IOTLB: 0xf8,
  /** CAP.FRO of these units: one fault recording register of 128 bits. */
  FRCD: 0x220,
} as const;

/** Bytes of the register frame. */
export const VTD_FRAME = 0x1000;

export const CAP = layout({
  ND: [0, 2, 0],
  AFL: [0, 3, 3],
  RWBF: [0, 4, 4],
  PLMR: [0, 5, 5],
  PHMR: [0, 6, 6],
  CM: [0, 7, 7],
  SAGAW: [0, 12, 8],
  MGAW: [0, 21, 16],
  ZLR: [0, 22, 22],
  FRO: [0, 33, 24],
  SLLPS: [0, 37, 34],
  PSI: [0, 39, 39],
  NFR: [0, 47, 40],
  MAMV: [0, 53, 48],
  DWD: [0, 54, 54],
  DRD: [0, 55, 55],
});

export const ECAP = layout({
  C: [0, 0, 0],
  QI: [0, 1, 1],
  DT: [0, 2, 2],
  IR: [0, 3, 3],
  EIM: [0, 4, 4],
  PT: [0, 6, 6],
  SC: [0, 7, 7],
  IRO: [0, 17, 8],
  MHMV: [0, 23, 20],
});

/** Bits of GCMD and GSTS. TE, QIE and RTP (set root table pointer) here; IRE, SIRTP and CFI belong to arch/x86. */
export const Gcmd = { TE: 1 << 31, SRTP: 1 << 30, SFL: 1 << 29, WBF: 1 << 27, QIE: 1 << 26 } as const;

export const Fsts = { PFO: 1 << 0, PPF: 1 << 1, IQE: 1 << 4 } as const;
export const FECTL_IM = 1 << 31;

export const CCMD = layout({
  DID: [0, 15, 0],
  SID: [0, 31, 16],
  FM: [0, 33, 32],
  CAIG: [0, 60, 59],
  CIRG: [0, 62, 61],
  ICC: [0, 63, 63],
});
export const IVA = layout({ AM: [0, 5, 0], IH: [0, 6, 6], ADDR: [0, 63, 12] });
export const IOTLB = layout({
  DID: [0, 47, 32],
  DW: [0, 48, 48],
  DR: [0, 49, 49],
  IAIG: [0, 58, 57],
  IIRG: [0, 61, 60],
  IVT: [0, 63, 63],
});

/** Granularities of CIRG, IIRG and of the queue's descriptors. */
export const Granularity = { GLOBAL: 1, DOMAIN: 2, DEVICE: 3, PAGE: 3 } as const;
