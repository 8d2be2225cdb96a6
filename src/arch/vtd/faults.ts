/** The fault recording register and the reasons (VT-d 7, 11.4.7). */
import { getField, getInPlace, getNumber, layout, pack } from '../bits.ts';

export const FRCD = layout({
  FI: [0, 63, 12],
  SID: [1, 15, 0],
  T2: [1, 28, 28],
  PRIV: [1, 29, 29],
  EXE: [1, 30, 30],
  PP: [1, 31, 31],
  FR: [1, 39, 32],
  PV: [1, 59, 40],
  AT: [1, 61, 60],
  /** 1 for a read. */
  T1: [1, 62, 62],
  F: [1, 63, 63],
});

/** Reasons of DMA remapping; those of interrupt remapping begin at 0x20. */
export const DmaFault = {
  ROOT_NOT_PRESENT: 0x1,
  CONTEXT_NOT_PRESENT: 0x2,
  CONTEXT_INVALID: 0x3,
  BEYOND_ADDRESS_WIDTH: 0x4,
  NO_WRITE: 0x5,
  NO_READ: 0x6,
  TABLE_UNREADABLE: 0x7,
  ROOT_UNREADABLE: 0x8,
  CONTEXT_UNREADABLE: 0x9,
  RESERVED_CONTEXT: 0xb,
  RESERVED_ENTRY: 0xc,
} as const;

/** As Linux words them (intel/dmar.c dma_remap_fault_reasons, irq_remap_fault_reasons). */
const REASONS: Readonly<Record<number, string>> = {
  1: 'Present bit in root entry is clear',
  2: 'Present bit in context entry is clear',
  3: 'Invalid context entry',
  4: 'Access beyond MGAW',
  5: 'PTE Write access is not set',
  6: 'PTE Read access is not set',
  7: 'Next page table ptr is invalid',
  8: 'Root table address invalid',
  9: 'Context table ptr is invalid',
  11: 'non-zero reserved fields in CTP',
  12: 'non-zero reserved fields in PTE',
  32: 'Detected reserved fields in the decoded interrupt-remapped request',
  33: 'Interrupt index exceeded the interrupt-remapping table size',
  34: 'Present field in the IRTE entry is clear',
  35: 'Error accessing interrupt-remapping table pointed by IRTA_REG',
  36: 'Detected reserved fields in the IRTE entry',
  37: 'Blocked a compatibility format interrupt request',
  38: 'Blocked an interrupt request due to source-id verification failure',
};

export const faultReasonText = (reason: number): string => REASONS[reason] ?? 'Unknown';

export interface FaultEntry {
  readonly reason: number;
  readonly sourceId: number;
  /** Page of the address, or the index of an interrupt in bits 63:48. */
  readonly information: bigint;
  readonly read: boolean;
}

/** The two words, with F set. */
export function encodeFault(fault: FaultEntry): bigint[] {
  return pack(FRCD, 2, {
    FI: fault.information >> 12n,
    SID: fault.sourceId,
    FR: fault.reason,
    T1: fault.read ? 1 : 0,
    F: 1,
  });
}

export function decodeFault(words: readonly bigint[]): FaultEntry {
  return {
    reason: getNumber(words, FRCD.FR),
    sourceId: getNumber(words, FRCD.SID),
    information: getInPlace(words, FRCD.FI),
    read: getField(words, FRCD.T1) === 1n,
  };
}
