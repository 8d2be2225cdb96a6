/** IOVAs as iommufd counts them: all 64 bits, ranges with an inclusive end. */
import { hex } from '../../ports/address.ts';

export const U64_MAX = 0xffff_ffff_ffff_ffffn;

export interface IovaSpan64 {
  readonly start: bigint;
  /** Inclusive. */
  readonly last: bigint;
}

export const lower = (a: bigint, b: bigint): bigint => (a < b ? a : b);
export const higher = (a: bigint, b: bigint): bigint => (a > b ? a : b);

export const overlaps = (a: IovaSpan64, b: IovaSpan64): boolean => a.start <= b.last && b.start <= a.last;

export const showSpan = ({ start, last }: IovaSpan64): string => `${hex(start)} to ${hex(last)}`;

/** The range [start, start + length), or null when it wraps. `length` is at least 1. */
export function spanOf(start: bigint, length: bigint): IovaSpan64 | null {
  const last = start + length - 1n;
  return last > U64_MAX ? null : { start, last };
}

/** What `used` leaves of `within`, lowest first. `used` is sorted by start and may overlap itself. */
export function holes(used: readonly IovaSpan64[], within: IovaSpan64): IovaSpan64[] {
  const found: IovaSpan64[] = [];
  let at = within.start;
  for (const { start, last } of used) {
    if (start > within.last) break;
    if (last < at) continue;
    if (start > at) found.push({ start: at, last: start - 1n });
    at = last + 1n;
  }
  if (at <= within.last) found.push({ start: at, last: within.last });
  return found;
}
