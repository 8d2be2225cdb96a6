/** Descriptors of the invalidation queue: 16 bytes, two words (VT-d 6.5.2). */
import { layout } from '../bits.ts';

export const QI_DESCRIPTOR_SIZE = 16;

export const QiType = { CONTEXT: 1, IOTLB: 2, DEVICE_TLB: 3, INTERRUPT_ENTRY: 4, WAIT: 5 } as const;

export const QI_CONTEXT = layout({
  Type: [0, 3, 0],
  G: [0, 5, 4],
  DID: [0, 31, 16],
  SID: [0, 47, 32],
  FM: [0, 49, 48],
});
export const QI_IOTLB = layout({
  Type: [0, 3, 0],
  G: [0, 5, 4],
  DW: [0, 6, 6],
  DR: [0, 7, 7],
  DID: [0, 31, 16],
  AM: [1, 5, 0],
  IH: [1, 6, 6],
  ADDR: [1, 63, 12],
});
export const QI_WAIT = layout({
  Type: [0, 3, 0],
  IF: [0, 4, 4],
  SW: [0, 5, 5],
  FN: [0, 6, 6],
  StatusData: [0, 63, 32],
  StatusAddress: [1, 63, 2],
});

/** IQA: the queue's base in bits 63:12, its size 2^(QS + 8) descriptors. */
export const IQA = layout({ QS: [0, 2, 0], DW: [0, 11, 11], ADDR: [0, 63, 12] });
/** Head and tail are byte offsets in bits 18:4. */
export const QI_INDEX_MASK = 0x7fff0;
