/** One mapping of an IOAS (struct iopt_area), and all of them in the order of their IOVAs. */
import { RangeSet } from '../range-set.ts';
import type { IoptPages } from './pages.ts';
import { type IovaSpan64, overlaps } from './span.ts';

/** What the range set holds exactly. No page table reaches this far; an IOAS without a domain may. */
const LOW_END = 2n ** 53n;

export class Area implements IovaSpan64 {
  readonly start: bigint;
  readonly last: bigint;
  readonly pages: IoptPages;
  /** Byte of `pages` under the first IOVA. */
  readonly startByte: bigint;
  /** Prot bits. */
  readonly prot: number;
  /** Its pages are pinned, and every domain of the IOAS has them (area->storage_domain). */
  filled = false;
  /** Objects that forbid that it is unmapped (area->num_locks). */
  locks = 0;

  constructor(span: IovaSpan64, pages: IoptPages, startByte: bigint, prot: number) {
    this.start = span.start;
    this.last = span.last;
    this.pages = pages;
    this.startByte = startByte;
    this.prot = prot;
  }

  get length(): bigint {
    return this.last - this.start + 1n;
  }

  /** Byte of `pages` under an IOVA of the area. */
  byteAt(iova: bigint): bigint {
    return this.startByte + (iova - this.start);
  }
}

/** Areas never overlap. Those that begin or end beyond 2^53 are few, and behind all others. */
export class AreaTree {
  private readonly low = new RangeSet();
  private readonly slots: (Area | null)[] = [];
  private readonly free: number[] = [];
  private high: Area[] = [];

  get size(): number {
    return this.low.size + this.high.length;
  }

  insert(area: Area): void {
    if (area.last >= LOW_END) {
      this.high = [...this.high, area].sort((a, b) => (a.start < b.start ? -1 : 1));
      return;
    }
    const slot = this.free.pop() ?? this.slots.push(null) - 1;
    this.slots[slot] = area;
    this.low.insert(Number(area.start), Number(area.last) + 1, slot);
  }

  remove(area: Area): void {
    if (area.last >= LOW_END) {
      this.high = this.high.filter((other) => other !== area);
      return;
    }
    const slot = this.low.remove(Number(area.start));
    this.slots[slot] = null;
    this.free.push(slot);
  }

  /** The lowest area that ends at or after `point`, or null. */
  from(point: bigint): Area | null {
    if (point < LOW_END && this.low.seek(Number(point))) return this.slots[this.low.value];
    return this.high.find((area) => area.last >= point) ?? null;
  }

  /** The lowest area that touches [start, last], or null. */
  first(start: bigint, last: bigint): Area | null {
    const area = this.from(start);
    return area !== null && overlaps(area, { start, last }) ? area : null;
  }

  /** Lowest first. */
  all(): Area[] {
    const found: Area[] = [];
    for (let more = this.low.seek(0); more; more = this.low.next()) found.push(this.slots[this.low.value]!);
    return [...found, ...this.high];
  }
}
