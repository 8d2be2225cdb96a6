/** alloc_lpi_range and free_lpi_range (irq-gic-v3-its.c): LPIs as ranges that devices take chunks of, lowest first. */

interface Range {
  base: number;
  span: number;
}

export class LpiRanges {
  private readonly ranges: Range[];
  /** LPIs that nobody has. */
  free: number;

  constructor(base: number, count: number) {
    this.ranges = [{ base, span: count }];
    this.free = count;
  }

  /** `count` LPIs in a row: the first of them, or -1. */
  allocate(count: number): number {
    const index = this.ranges.findIndex((range) => range.span >= count);
    const range = this.ranges[index];
    if (range === undefined) return -1;
    const { base } = range;
    range.base += count;
    range.span -= count;
    if (range.span === 0) this.ranges.splice(index, 1);
    this.free -= count;
    return base;
  }

  release(base: number, count: number): void {
    const next = this.ranges.findIndex((range) => range.base > base);
    const at = next < 0 ? this.ranges.length : next;
    this.ranges.splice(at, 0, { base, span: count });
    this.free += count;
    this.merge(at);
    this.merge(at - 1);
  }

  /** Joins a range and the one behind it when nothing lies between them. */
  private merge(index: number): void {
    const here = this.ranges[index];
    const behind = this.ranges[index + 1];
    if (here === undefined || behind === undefined || here.base + here.span !== behind.base) return;
    here.span += behind.span;
    this.ranges.splice(index + 1, 1);
  }
}
