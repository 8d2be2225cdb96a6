/** Commands: 16 bytes, two 64-bit words (IHI 0070 4). */
import { type Layout, layout, pack } from '../bits.ts';

export const COMMAND_SIZE = 16;

/** Opcodes, bits 7:0 of word 0. */
export const Op = {
  PREFETCH_CONFIG: 0x01,
  PREFETCH_ADDR: 0x02,
  CFGI_STE: 0x03,
  /** CFGI_ALL is the range 31. */
  CFGI_STE_RANGE: 0x04,
  CFGI_CD: 0x05,
  CFGI_CD_ALL: 0x06,
  CFGI_VMS_PIDM: 0x07,
  TLBI_NH_ALL: 0x10,
  TLBI_NH_ASID: 0x11,
  TLBI_NH_VA: 0x12,
  TLBI_NH_VAA: 0x13,
  TLBI_EL2_ALL: 0x20,
  TLBI_EL2_ASID: 0x21,
  TLBI_EL2_VA: 0x22,
  TLBI_EL2_VAA: 0x23,
  TLBI_S12_VMALL: 0x28,
  TLBI_S2_IPA: 0x2a,
  TLBI_NSNH_ALL: 0x30,
  ATC_INV: 0x40,
  PRI_RESP: 0x41,
  RESUME: 0x44,
  STALL_TERM: 0x45,
  SYNC: 0x46,
} as const;

/** `TLBI_NH_VA` for 0x12; `0xff` for what is none. */
export function opName(opcode: number): string {
  return Object.entries(Op).find(([, value]) => value === opcode)?.[0] ?? `0x${opcode.toString(16)}`;
}

/** CMD_CFGI_*: which streams or context descriptors. */
export const CFGI = layout({
  Opcode: [0, 7, 0],
  SSec: [0, 10, 10],
  SSID: [0, 31, 12],
  StreamID: [0, 63, 32],
  Leaf: [1, 0, 0],
  Range: [1, 4, 0],
});

/** CMD_TLBI_*. The address is bits 63:12 in place; with TG other than 0 it is a range of (NUM + 1) << SCALE granules. */
export const TLBI = layout({
  Opcode: [0, 7, 0],
  NUM: [0, 16, 12],
  SCALE: [0, 24, 20],
  VMID: [0, 47, 32],
  ASID: [0, 63, 48],
  Leaf: [1, 0, 0],
  TTL: [1, 9, 8],
  TG: [1, 11, 10],
  Address: [1, 63, 12],
});

export const ATC_INV = layout({
  Opcode: [0, 7, 0],
  Global: [0, 9, 9],
  SSV: [0, 11, 11],
  SSID: [0, 31, 12],
  StreamID: [0, 63, 32],
  Size: [1, 5, 0],
  Address: [1, 63, 12],
});

/** Ac retries; without Ac, Ab aborts and its absence terminates with RAZ/WI. */
export const RESUME = layout({
  Opcode: [0, 7, 0],
  Ac: [0, 12, 12],
  Ab: [0, 13, 13],
  StreamID: [0, 63, 32],
  STAG: [1, 15, 0],
});

export const SYNC = layout({
  Opcode: [0, 7, 0],
  CS: [0, 13, 12],
  MSH: [0, 23, 22],
  MSIAttr: [0, 27, 24],
  MSIData: [0, 63, 32],
  MSIAddress: [1, 51, 2],
});

/** SYNC.CS: what tells software of the completion. */
export const SyncSignal = { NONE: 0, IRQ: 1, SEV: 2 } as const;

/** TG of a range invalidation, by log2 of the granule. */
export const tlbiTg = (granuleShift: number): number => (granuleShift - 10) / 2;
/** log2 of the granule of TG 1 to 3. */
export const granuleShiftOfTlbiTg = (tg: number): number => 10 + 2 * tg;

/** A command of `from`'s layout: `command(TLBI, { Opcode: Op.TLBI_NH_ASID, ASID: 3 })`. */
export function command<Name extends string>(
  from: Layout<Name>,
  values: Partial<Readonly<Record<Name, bigint | number>>>,
): bigint[] {
  return pack(from, 2, values);
}
