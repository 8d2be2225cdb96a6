/** The IOVAs that user space may map: what is inside every domain's aperture and in no reserved region (type1's iova_list). */

/** `end` is inclusive. */
export interface IovaRange {
  readonly start: number;
  readonly end: number;
}

export class IovaList {
  readonly ranges: readonly IovaRange[];

  constructor(ranges: readonly IovaRange[] = []) {
    this.ranges = ranges;
  }

  /** vfio_iommu_iova_dma_valid: does one range hold all of [start, end]? An empty list allows everything (only emulated groups). */
  allows(start: number, end: number): boolean {
    return this.ranges.length === 0 || this.ranges.some((range) => start >= range.start && end <= range.end);
  }

  /** vfio_iommu_aper_resize: what lies in [start, end] too. An empty list becomes that range. */
  within(start: number, end: number): IovaList {
    if (this.ranges.length === 0) return new IovaList([{ start, end }]);
    const cut = this.ranges.map((range) => ({ start: Math.max(range.start, start), end: Math.min(range.end, end) }));
    return new IovaList(cut.filter((range) => range.start <= range.end));
  }

  /** vfio_iommu_resv_exclude: what lies outside of [start, end]. */
  without(start: number, end: number): IovaList {
    return new IovaList(
      this.ranges.flatMap((range) => {
        if (end < range.start || start > range.end) return [range];
        return [
          { start: range.start, end: start - 1 },
          { start: end + 1, end: range.end },
        ].filter((part) => part.start <= part.end);
      }),
    );
  }

  get empty(): boolean {
    return this.ranges.length === 0;
  }
}
