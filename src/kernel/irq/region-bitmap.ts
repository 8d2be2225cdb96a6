/** bitmap_find_free_region and bitmap_release_region (lib/bitmap.c): aligned power-of-two regions, lowest first. */
export class RegionBitmap {
  readonly size: number;
  /** Bits that are set. */
  used = 0;
  private readonly bits: Uint8Array;
  /** Every bit below this one is set. */
  private lowest = 0;

  constructor(size: number) {
    this.size = size;
    this.bits = new Uint8Array(size);
  }

  get isEmpty(): boolean {
    return this.used === 0;
  }

  has(bit: number): boolean {
    return this.bits[bit] === 1;
  }

  /** Takes 2^order bits that start at a multiple of 2^order. The first of them, or -1. */
  take(order: number): number {
    const span = 2 ** order;
    for (let at = Math.floor(this.lowest / span) * span; at + span <= this.size; at += span) {
      if (!this.isFree(at, span)) continue;
      this.bits.fill(1, at, at + span);
      this.used += span;
      if (at <= this.lowest) this.lowest = at + span;
      return at;
    }
    return -1;
  }

  /** Gives back 2^order bits from `at` on; those that are free already stay free. */
  release(at: number, order: number): void {
    const end = Math.min(at + 2 ** order, this.size);
    for (let bit = at; bit < end; bit++) {
      if (this.bits[bit] === 0) continue;
      this.bits[bit] = 0;
      this.used--;
    }
    this.lowest = Math.min(this.lowest, at);
  }

  private isFree(at: number, span: number): boolean {
    for (let bit = at; bit < at + span; bit++) if (this.bits[bit] !== 0) return false;
    return true;
  }
}

/** get_count_order: the smallest order whose region holds `count`. */
export const countOrder = (count: number): number => (count <= 1 ? 0 : 32 - Math.clz32(count - 1));
