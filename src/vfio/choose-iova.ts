/** Where a mapping may go when its owner does not care. */
import { type Iova, iova } from '../ports/address.ts';
import type { IovaRange } from './iommu-info.ts';

/** Addresses below are left alone, so that a null pointer of a driver hits nothing. */
const LOWEST = 0x1_0000;

/**
 * The lowest free IOVA for `length` bytes, a multiple of `alignment`, inside one of `allowed` and outside of `taken`; null when
 * there is none. All in bytes.
 */
export function chooseIova(
  length: number,
  alignment: number,
  allowed: readonly IovaRange[],
  taken: readonly IovaRange[],
): Iova | null {
  const occupied = [...taken].sort((a, b) => a.start - b.start);
  for (const range of allowed) {
    let at = roundUp(Math.max(range.start, LOWEST), alignment);
    for (const { start, end } of occupied) {
      if (end < at) continue;
      if (at + length <= start) break;
      at = roundUp(end + 1, alignment);
    }
    if (at + length - 1 <= range.end) return iova(at);
  }
  return null;
}

export const roundUp = (value: number, alignment: number): number => Math.ceil(value / alignment) * alignment;
export const roundDown = (value: number, alignment: number): number => Math.floor(value / alignment) * alignment;
