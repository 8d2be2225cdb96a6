/**
 * The ITS's commands (IHI 0069 5.3): 32 bytes each, here eight signed 32-bit words, low half of each 64-bit word first. An
 * encoder fills the given words and answers them; nothing allocates.
 */

export const ItsOp = {
  MOVI: 0x01,
  INT: 0x03,
  CLEAR: 0x04,
  SYNC: 0x05,
  MAPD: 0x08,
  MAPC: 0x09,
  MAPTI: 0x0a,
  MAPI: 0x0b,
  INV: 0x0c,
  INVALL: 0x0d,
  MOVALL: 0x0e,
  DISCARD: 0x0f,
} as const;
export type ItsOpCode = (typeof ItsOp)[keyof typeof ItsOp];

export const ITS_COMMAND_SIZE = 32;

/** `MAPTI`, or `command 0x25`. */
export function itsOpName(op: number): string {
  return Object.entries(ItsOp).find(([, code]) => code === op)?.[0] ?? `command 0x${op.toString(16)}`;
}

function start(into: Int32Array, op: ItsOpCode, device: number, event: number): Int32Array {
  into.fill(0);
  into[0] = op;
  into[1] = device;
  into[2] = event;
  return into;
}

/** Bits 51:16 (a target) or 51:8 (an ITT) of an address into 64-bit word `word`. */
function putAddress(into: Int32Array, word: number, address: number, mask: number): void {
  into[word * 2] |= address & mask;
  into[word * 2 + 1] |= (address / 4294967296) & 0xfffff;
}

/** `eventBits`: log2 of the ITT's entries; `itt` a multiple of 256. */
export function encodeMapd(
  into: Int32Array,
  device: number,
  eventBits: number,
  itt: number,
  valid: boolean,
): Int32Array {
  start(into, ItsOp.MAPD, device, (eventBits - 1) & 0x1f);
  putAddress(into, 2, itt, ~0xff);
  if (valid) into[5] |= 1 << 31;
  return into;
}

/** `target`: a redistributor's address, or a processor number << 16, as GITS_TYPER.PTA says. */
export function encodeMapc(into: Int32Array, collection: number, target: number, valid: boolean): Int32Array {
  start(into, ItsOp.MAPC, 0, 0);
  into[4] = collection & 0xffff;
  putAddress(into, 2, target, ~0xffff);
  if (valid) into[5] |= 1 << 31;
  return into;
}

export function encodeMapti(
  into: Int32Array,
  device: number,
  event: number,
  lpi: number,
  collection: number,
): Int32Array {
  start(into, ItsOp.MAPTI, device, event);
  into[3] = lpi;
  into[4] = collection & 0xffff;
  return into;
}

/** Without an interrupt id of its own: the event id is the LPI. */
export function encodeMapi(into: Int32Array, device: number, event: number, collection: number): Int32Array {
  start(into, ItsOp.MAPI, device, event);
  into[4] = collection & 0xffff;
  return into;
}

export function encodeMovi(into: Int32Array, device: number, event: number, collection: number): Int32Array {
  start(into, ItsOp.MOVI, device, event);
  into[4] = collection & 0xffff;
  return into;
}

export const encodeDiscard = (into: Int32Array, device: number, event: number): Int32Array =>
  start(into, ItsOp.DISCARD, device, event);
export const encodeInv = (into: Int32Array, device: number, event: number): Int32Array =>
  start(into, ItsOp.INV, device, event);
export const encodeInt = (into: Int32Array, device: number, event: number): Int32Array =>
  start(into, ItsOp.INT, device, event);
export const encodeClear = (into: Int32Array, device: number, event: number): Int32Array =>
  start(into, ItsOp.CLEAR, device, event);

export function encodeInvall(into: Int32Array, collection: number): Int32Array {
  start(into, ItsOp.INVALL, 0, 0);
  into[4] = collection & 0xffff;
  return into;
}

export function encodeSync(into: Int32Array, target: number): Int32Array {
  start(into, ItsOp.SYNC, 0, 0);
  putAddress(into, 2, target, ~0xffff);
  return into;
}

export function encodeMovall(into: Int32Array, from: number, to: number): Int32Array {
  start(into, ItsOp.MOVALL, 0, 0);
  putAddress(into, 2, from, ~0xffff);
  putAddress(into, 3, to, ~0xffff);
  return into;
}

export const commandOp = (words: Int32Array): number => words[0] & 0xff;
export const commandDevice = (words: Int32Array): number => words[1] >>> 0;
export const commandEvent = (words: Int32Array): number => words[2] >>> 0;
export const commandEventBits = (words: Int32Array): number => (words[2] & 0x1f) + 1;
export const commandLpi = (words: Int32Array): number => words[3] >>> 0;
export const commandCollection = (words: Int32Array): number => words[4] & 0xffff;
export const commandValid = (words: Int32Array): boolean => words[5] < 0;
/** Byte address, a multiple of 256. */
export const commandItt = (words: Int32Array): number => (words[5] & 0xfffff) * 4294967296 + ((words[4] & ~0xff) >>> 0);
/** Target field of 64-bit word 2 or 3, in units of 64 KiB: the processor number where PTA is 0. */
export const commandTarget = (words: Int32Array, word: 2 | 3): number =>
  (words[word * 2 + 1] & 0xfffff) * 65536 + (words[word * 2] >>> 16);

/** Why a command was wrong: the last byte of the architecture's error code (IHI 0069 table 5-2: 0x01, command, reason). */
export const ItsError = {
  DEVICE_OOR: 0x01,
  ITTSIZE_OOR: 0x02,
  PROCNUM_OOR: 0x02,
  COLLECTION_OOR: 0x03,
  UNMAPPED_DEVICE: 0x04,
  ID_OOR: 0x05,
  PHYSICALID_OOR: 0x06,
  UNMAPPED_INTERRUPT: 0x07,
  UNMAPPED_COLLECTION: 0x09,
} as const;
export const itsErrorCode = (op: number, error: number): number => (1 << 16) | (op << 8) | error;
