/** Registers, opcodes and status codes of NVM Express 1.4; section numbers are those of its base specification. */

/** 3.1: offsets in BAR 0. */
export const NvmeRegister = {
  CAP: 0x00,
  VS: 0x08,
  INTMS: 0x0c,
  INTMC: 0x10,
  CC: 0x14,
  CSTS: 0x1c,
  AQA: 0x24,
  ASQ: 0x28,
  ACQ: 0x30,
  /** Queue y: the submission tail at 2y, the completion head at 2y + 1, times four bytes. */
  DOORBELLS: 0x1000,
} as const;

export const NVME_VERSION = 0x0001_0400;

/** 3.1.5. Each field's place and width. */
export const Cc = {
  enabled: (cc: number): boolean => (cc & 1) !== 0,
  commandSet: (cc: number): number => (cc >>> 4) & 7,
  pageBytes: (cc: number): number => 4096 << ((cc >>> 7) & 15),
  arbitration: (cc: number): number => (cc >>> 11) & 7,
  shutdown: (cc: number): number => (cc >>> 14) & 3,
  sqEntryLog2: (cc: number): number => (cc >>> 16) & 15,
  cqEntryLog2: (cc: number): number => (cc >>> 20) & 15,
  /** Reserved bits read zero. */
  WRITABLE: 0x00ff_fff1,
} as const;

/** 3.1.6 */
export const Csts = { RDY: 1, CFS: 2, SHST_MASK: 0xc, SHST_COMPLETE: 0x8 } as const;

/** Section 5: admin commands. */
export const AdminOpcode = {
  DELETE_IO_SQ: 0x00,
  CREATE_IO_SQ: 0x01,
  GET_LOG_PAGE: 0x02,
  DELETE_IO_CQ: 0x04,
  CREATE_IO_CQ: 0x05,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT_REQUEST: 0x0c,
} as const;

/** Section 6: commands of the NVM command set. */
export const IoOpcode = {
  FLUSH: 0x00,
  WRITE: 0x01,
  READ: 0x02,
  COMPARE: 0x05,
  WRITE_ZEROES: 0x08,
  DATASET_MANAGEMENT: 0x09,
} as const;

const DNR = 0x4000;
/** 4.6.1: status code, its type in bits 10:8, do not retry in bit 14. */
export const NvmeStatus = {
  SUCCESS: 0,
  INVALID_OPCODE: 0x01 | DNR,
  INVALID_FIELD: 0x02 | DNR,
  COMMAND_ID_CONFLICT: 0x03 | DNR,
  DATA_TRANSFER_ERROR: 0x04,
  ABORT_REQUESTED: 0x07,
  ABORTED_SQ_DELETION: 0x08,
  INVALID_NAMESPACE: 0x0b | DNR,
  COMMAND_SEQUENCE_ERROR: 0x0c | DNR,
  INVALID_PRP_OFFSET: 0x13 | DNR,
  WRITE_PROTECTED: 0x20 | DNR,
  LBA_OUT_OF_RANGE: 0x80 | DNR,
  COMPLETION_QUEUE_INVALID: 0x100 | DNR,
  INVALID_QUEUE_ID: 0x101 | DNR,
  INVALID_QUEUE_SIZE: 0x102 | DNR,
  ASYNC_LIMIT_EXCEEDED: 0x105 | DNR,
  INVALID_VECTOR: 0x108 | DNR,
  INVALID_LOG_PAGE: 0x109 | DNR,
  INVALID_QUEUE_DELETION: 0x10c | DNR,
  NOT_SAVEABLE: 0x10d | DNR,
  WRITE_FAULT: 0x280,
  UNRECOVERED_READ: 0x281,
  COMPARE_FAILURE: 0x285 | DNR,
} as const;

export const SQ_ENTRY = 64;
export const CQ_ENTRY = 16;
