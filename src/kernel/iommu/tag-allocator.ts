/** ASIDs, VMIDs and domain ids: the lowest free number from 1 on (0 belongs to the driver). */
export class TagAllocator {
  private readonly used = new Set<number>();
  private readonly limit: number;
  private lowest = 1;

  /** Tags are 1 to 2^bits - 1. */
  constructor(bits: number) {
    this.limit = 2 ** bits;
  }

  /** -1 when none is left. */
  take(): number {
    let tag = this.lowest;
    while (this.used.has(tag)) tag++;
    if (tag >= this.limit) return -1;
    this.used.add(tag);
    this.lowest = tag + 1;
    return tag;
  }

  give(tag: number): void {
    if (this.used.delete(tag)) this.lowest = Math.min(this.lowest, tag);
  }
}
