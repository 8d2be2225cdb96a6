/** How a stream id finds its entry: linear and two-level tables (IHI 0070 3.3.1, 5.1). */
import { getNumber, layout } from '../bits.ts';

/** A first-level stream table descriptor. */
export const L1STD = layout({ Span: [0, 4, 0], L2Ptr: [0, 51, 6] });

/** STRTAB_BASE_CFG.FMT. */
export const StreamTableFormat = { LINEAR: 0, TWO_LEVEL: 1 } as const;

/** Entries behind a first-level descriptor: 2^(Span - 1), or 0 when it is invalid. Spans above 11 are reserved. */
export function l1Entries(words: readonly bigint[]): number {
  const span = getNumber(words, L1STD.Span);
  return span === 0 || span > 11 ? 0 : 2 ** (span - 1);
}
