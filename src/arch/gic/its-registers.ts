/** GITS: the registers of an Interrupt Translation Service (IHI 0069 12.19). A 64-bit register is two halves, low first. */

export const GITS_SIZE = 0x20000;
export const GITS_CTLR = 0x0000;
export const GITS_IIDR = 0x0004;
export const GITS_TYPER = 0x0008;
export const GITS_CBASER = 0x0080;
export const GITS_CWRITER = 0x0088;
export const GITS_CREADR = 0x0090;
/** Eight registers of 8 bytes. */
export const GITS_BASER = 0x0100;
export const GITS_BASER_NR_REGS = 8;
export const GITS_PIDR2 = 0xffe8;
/** The second 64 KiB frame holds the doorbell and nothing else. */
export const GITS_TRANSLATION_FRAME = 0x10000;
export const GITS_TRANSLATER = 0x10040;

export const GITS_CTLR_ENABLE = 1 << 0;
export const GITS_CTLR_QUIESCENT = 1 << 31;
export const GITS_CWRITER_RETRY = 1 << 0;
export const GITS_CREADR_STALLED = 1 << 0;
/** Bits 19:5 of CWRITER and CREADR: an offset into the queue. */
export const GITS_QUEUE_OFFSET = 0xfffe0;

export const GITS_BASER_TYPE_NONE = 0;
export const GITS_BASER_TYPE_DEVICE = 1;
export const GITS_BASER_TYPE_COLLECTION = 4;

/** GITS_TYPER as numbers. */
export interface ItsType {
  /** Bytes of an interrupt translation entry. */
  readonly ittEntrySize: number;
  readonly eventBits: number;
  readonly deviceBits: number;
  /** Targets are physical addresses of redistributors (true) or processor numbers (false). */
  readonly physicalTargets: boolean;
  /** Collections held in the ITS itself. */
  readonly hardwareCollections: number;
}

/** PLPIS 0, ITT_entry_size 7:4, ID_bits 12:8, Devbits 17:13, PTA 19, HCC 31:24. */
export function itsTypeLow(type: ItsType): number {
  return (
    1 |
    ((type.ittEntrySize - 1) << 4) |
    ((type.eventBits - 1) << 8) |
    ((type.deviceBits - 1) << 13) |
    (type.physicalTargets ? 1 << 19 : 0) |
    (type.hardwareCollections << 24)
  );
}

export function parseItsType(lo: number): ItsType {
  return {
    ittEntrySize: ((lo >>> 4) & 0xf) + 1,
    eventBits: ((lo >>> 8) & 0x1f) + 1,
    deviceBits: ((lo >>> 13) & 0x1f) + 1,
    physicalTargets: (lo & (1 << 19)) !== 0,
    hardwareCollections: lo >>> 24,
  };
}

/** GITS_BASERn: where one of the ITS's tables is. */
export interface ItsTableBase {
  readonly valid: boolean;
  /** Two levels: `address` holds 8-byte pointers to pages of entries. */
  readonly indirect: boolean;
  readonly type: number;
  /** Bytes of an entry. */
  readonly entrySize: number;
  readonly address: number;
  /** Bytes of a page: 4096, 16384, 65536. */
  readonly pageSize: number;
  /** Pages at `address`, 1 to 256. */
  readonly pages: number;
}

/** Valid 63, Indirect 62, Type 58:56, EntrySize 52:48, address 47:12, PageSize 9:8, Pages 7:0. Attributes stay zero. */
export function tableBase(table: ItsTableBase): { lo: number; hi: number } {
  const size = table.pageSize === 65536 ? 2 : table.pageSize === 16384 ? 1 : 0;
  return {
    lo: (table.address & ~0xfff) | (size << 8) | (table.pages - 1),
    hi:
      (table.valid ? 1 << 31 : 0) |
      (table.indirect ? 1 << 30 : 0) |
      (table.type << 24) |
      ((table.entrySize - 1) << 16) |
      ((table.address / 4294967296) & 0xffff),
  };
}

export function parseTableBase(lo: number, hi: number): ItsTableBase {
  return {
    valid: hi < 0,
    indirect: (hi & (1 << 30)) !== 0,
    type: (hi >>> 24) & 7,
    entrySize: ((hi >>> 16) & 0x1f) + 1,
    address: (hi & 0xffff) * 4294967296 + ((lo & ~0xfff) >>> 0),
    pageSize: [4096, 16384, 65536, 65536][(lo >>> 8) & 3],
    pages: (lo & 0xff) + 1,
  };
}

/** GITS_CBASER: Valid 63, Physical_Address 51:12, Size 7:0 in pages of 4 KiB, less one. */
export function queueBase(pa: number, bytes: number): { lo: number; hi: number } {
  return { lo: (pa & ~0xfff) | (bytes / 4096 - 1), hi: (1 << 31) | ((pa / 4294967296) & 0xfffff) };
}
export const queueAddress = (lo: number, hi: number): number => (hi & 0xfffff) * 4294967296 + ((lo & ~0xfff) >>> 0);
export const queueBytes = (lo: number): number => ((lo & 0xff) + 1) * 4096;
