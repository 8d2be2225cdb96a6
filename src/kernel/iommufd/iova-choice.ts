/** Where a mapping goes when user space leaves the choice to the kernel: deterministic, and user space sees it (iopt_alloc_iova). */
import type { KernelContext } from '../context.ts';
import type { AreaTree } from './area.ts';
import { higher, type IovaSpan64, lower, showSpan, U64_MAX } from './span.ts';

export interface ChoiceInput {
  /** User address, or offset in a file: its alignment is kept, so that the IOMMU can use large pages. */
  readonly address: bigint;
  readonly length: bigint;
  /** Smallest page of all domains. */
  readonly alignment: bigint;
  /** ALLOW_IOVAS, sorted; empty: everything. */
  readonly allowed: readonly IovaSpan64[];
  /** Sorted by start; may overlap itself. */
  readonly reserved: readonly IovaSpan64[];
  readonly areas: AreaTree;
}

/**
 * The lowest fitting IOVA, or -EOVERFLOW (length), -EINVAL (the address is less aligned than the domains' page), -ENOSPC. Never 0: the first page is
 * left out, and the offset within a page is that of the address.
 */
export function chooseIova(context: KernelContext, input: ChoiceInput): bigint | number {
  const { refusals } = context;
  const { length, address } = input;
  const page = BigInt(context.pageSize);
  if (length >= U64_MAX / 2n) return refusals.refuse('EOVERFLOW', `length ${length} is half of all IOVAs`, 'length');
  const step = stepOf(context.pageSize, address, length);
  if (step < input.alignment) {
    const why = `the address is aligned to ${step} bytes, the domains' smallest page has ${input.alignment}`;
    return refusals.refuse('EINVAL', why, 'user_va');
  }
  const whole = { start: page, last: U64_MAX - page };
  const spans = input.allowed.length === 0 ? [whole] : input.allowed.map((span) => clip(span, whole));
  for (const span of spans) {
    // Linux moves the start of the span to its first candidate, and looks for holes from there: an offset in the page is met exactly where the
    // span's first page has room behind an area (the lab's answers, `choice`).
    const start = candidate(span, length, step, address % page);
    if (start === null) continue;
    const found = firstHole(input, { start, last: span.last }, (hole) => candidate(hole, length, step, address % page));
    if (found !== null) return found;
  }
  const where = spans.map(showSpan).join(', ');
  return refusals.refuse('ENOSPC', `no free ${length} bytes at a multiple of ${step} in ${where}`, 'length');
}

/** What the IOVA is a multiple of, before the offset in the page: the length's power of two, as far as the address has it too, up to a huge page. */
function stepOf(pageSize: number, address: bigint, length: bigint): bigint {
  let step = 1n;
  while (step < length) step <<= 1n;
  const natural = address === 0n ? step : lower(step, address & -address);
  return lower(natural, BigInt(pageSize) * BigInt(pageSize / 8));
}

/** The first place in the hole, or null. */
function candidate(hole: IovaSpan64, length: bigint, step: bigint, offset: bigint): bigint | null {
  if (hole.last < hole.start || hole.last - hole.start < length - 1n) return null;
  const start = (((hole.start + step - 1n) / step) * step) | offset;
  return start >= hole.last || hole.last - start < length - 1n ? null : start;
}

/** Walks what neither a reservation nor an area takes, upwards. */
function firstHole(
  { reserved, areas }: ChoiceInput,
  within: IovaSpan64,
  placeIn: (hole: IovaSpan64) => bigint | null,
): bigint | null {
  let at = within.start;
  while (at <= within.last) {
    const point = at;
    const area = areas.from(point);
    const barrier = reserved.find(({ last }) => last >= point) ?? null;
    const next = area === null || (barrier !== null && barrier.start <= area.start) ? barrier : area;
    const hole = { start: at, last: next === null ? within.last : lower(next.start - 1n, within.last) };
    const found = placeIn(hole);
    if (found !== null) return found;
    if (next === null) return null;
    at = next.last + 1n;
  }
  return null;
}

const clip = (span: IovaSpan64, whole: IovaSpan64): IovaSpan64 => ({
  start: higher(span.start, whole.start),
  last: lower(span.last, whole.last),
});
