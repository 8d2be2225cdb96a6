/** Registers of the SMMU's two 64 KiB pages (IHI 0070 6.3): byte offsets, and the fields of each. */
import { layout } from '../bits.ts';

/** Offsets; 64-bit registers are marked and are accessed as two halves. */
export const Reg = {
  IDR0: 0x0,
  IDR1: 0x4,
  IDR2: 0x8,
  IDR3: 0xc,
  IDR4: 0x10,
  IDR5: 0x14,
  IIDR: 0x18,
  AIDR: 0x1c,
  CR0: 0x20,
  CR0ACK: 0x24,
  CR1: 0x28,
  CR2: 0x2c,
  STATUSR: 0x40,
  GBPA: 0x44,
  AGBPA: 0x48,
  IRQ_CTRL: 0x50,
  IRQ_CTRLACK: 0x54,
  GERROR: 0x60,
  GERRORN: 0x64,
  /** 64-bit. */
  GERROR_IRQ_CFG0: 0x68,
  GERROR_IRQ_CFG1: 0x70,
  GERROR_IRQ_CFG2: 0x74,
  /** 64-bit. */
  STRTAB_BASE: 0x80,
  STRTAB_BASE_CFG: 0x88,
  /** 64-bit. */
  CMDQ_BASE: 0x90,
  CMDQ_PROD: 0x98,
  CMDQ_CONS: 0x9c,
  /** 64-bit. */
  EVTQ_BASE: 0xa0,
  /** 64-bit. */
  EVTQ_IRQ_CFG0: 0xb0,
  EVTQ_IRQ_CFG1: 0xb8,
  EVTQ_IRQ_CFG2: 0xbc,
  /** In page 1. */
  EVTQ_PROD: 0x100a8,
  /** In page 1. */
  EVTQ_CONS: 0x100ac,
} as const;

/** Bytes of the register frame. */
export const SMMU_FRAME = 0x20000;

export const IDR0 = layout({
  S2P: [0, 0, 0],
  S1P: [0, 1, 1],
  TTF: [0, 3, 2],
  COHACC: [0, 4, 4],
  BTM: [0, 5, 5],
  HTTU: [0, 7, 6],
  HYP: [0, 9, 9],
  ATS: [0, 10, 10],
  ASID16: [0, 12, 12],
  MSI: [0, 13, 13],
  SEV: [0, 14, 14],
  PRI: [0, 16, 16],
  VMID16: [0, 18, 18],
  CD2L: [0, 19, 19],
  TTENDIAN: [0, 22, 21],
  STALL_MODEL: [0, 25, 24],
  TERM_MODEL: [0, 26, 26],
  ST_LEVEL: [0, 28, 27],
});

export const IDR1 = layout({
  SIDSIZE: [0, 5, 0],
  SSIDSIZE: [0, 10, 6],
  PRIQS: [0, 15, 11],
  EVTQS: [0, 20, 16],
  CMDQS: [0, 25, 21],
  ATTR_PERMS_OVR: [0, 26, 26],
  ATTR_TYPES_OVR: [0, 27, 27],
  REL: [0, 28, 28],
  QUEUES_PRESET: [0, 29, 29],
  TABLES_PRESET: [0, 30, 30],
});

export const IDR3 = layout({
  HAD: [0, 2, 2],
  PBHA: [0, 3, 3],
  XNX: [0, 4, 4],
  PPS: [0, 5, 5],
  MPAM: [0, 7, 7],
  FWB: [0, 8, 8],
  STT: [0, 9, 9],
  RIL: [0, 10, 10],
  BBML: [0, 12, 11],
});

export const IDR5 = layout({
  OAS: [0, 2, 0],
  GRAN4K: [0, 4, 4],
  GRAN16K: [0, 5, 5],
  GRAN64K: [0, 6, 6],
  VAX: [0, 11, 10],
  STALL_MAX: [0, 31, 16],
});

export const CR0 = { SMMUEN: 1 << 0, PRIQEN: 1 << 1, EVENTQEN: 1 << 2, CMDQEN: 1 << 3, ATSCHK: 1 << 4 } as const;
export const CR2 = { E2H: 1 << 0, RECINVSID: 1 << 1, PTM: 1 << 2 } as const;
export const IRQ_CTRL = { GERROR: 1 << 0, PRIQ: 1 << 1, EVENTQ: 1 << 2 } as const;
export const GERROR = { CMDQ_ERR: 1 << 0, EVENTQ_ABT_ERR: 1 << 2, SFM_ERR: 1 << 8 } as const;
export const GBPA_ABORT = 1 << 20;
export const GBPA_UPDATE = 1 << 31;

export const STRTAB_BASE_CFG = layout({ LOG2SIZE: [0, 5, 0], SPLIT: [0, 10, 6], FMT: [0, 17, 16] });
/** STRTAB_BASE; the address is bits 51:6 in place. */
export const STRTAB_BASE = layout({ ADDR: [0, 51, 6], RA: [0, 62, 62] });
/** CMDQ_BASE and EVENTQ_BASE. */
export const QUEUE_BASE = layout({ LOG2SIZE: [0, 4, 0], ADDR: [0, 51, 5], HINT: [0, 62, 62] });

/** CMDQ_CONS.ERR, bits 30:24. */
export const CommandError = { NONE: 0, ILL: 1, ABT: 2, ATC_INV_SYNC: 3 } as const;
export const CMDQ_CONS_ERR_SHIFT = 24;
/** EVENTQ_PROD.OVFLG and EVENTQ_CONS.OVACKFLG. */
export const QUEUE_OVERFLOW = 1 << 31;

/** Output address sizes in bits by the OAS, IPS and S2PS encoding. */
export const ADDRESS_SIZES: readonly number[] = [32, 36, 40, 42, 44, 48, 52];

/** The encoding of an output address size. @throws RangeError when the architecture has no such size. */
export function encodeAddressSize(bits: number): number {
  const code = ADDRESS_SIZES.indexOf(bits);
  if (code < 0) throw new RangeError(`no output address size of ${bits} bits; known are ${ADDRESS_SIZES.join(', ')}`);
  return code;
}
