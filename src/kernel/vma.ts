/** One mapping of a process's address space: Linux's vm_area_struct, over one contiguous range of physical addresses. */
import type { FrameBlock } from './frame-block.ts';
import type { SharedMapping } from './shared-mapping.ts';

export interface Vma {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
  /** Physical address under `start`. */
  readonly pa: number;
  readonly write: boolean;
  /** Anonymous memory, or null for a file's mapping. */
  readonly block: FrameBlock | null;
  readonly mapping: SharedMapping | null;
}

/** The mappings of a process, sorted by address. */
export class VmaList {
  private readonly list: Vma[] = [];

  get size(): number {
    return this.list.length;
  }

  [Symbol.iterator](): Iterator<Vma> {
    return this.list[Symbol.iterator]();
  }

  insert(vma: Vma): void {
    this.list.splice(this.firstEndingAfter(vma.start), 0, vma);
  }

  /** Removes the mapping that starts at `start`; null when none does. */
  remove(start: number): Vma | null {
    const index = this.firstEndingAfter(start);
    if (this.list[index]?.start !== start) return null;
    return this.list.splice(index, 1)[0];
  }

  find(address: number): Vma | null {
    const vma = this.list[this.firstEndingAfter(address)];
    return vma !== undefined && vma.start <= address ? vma : null;
  }

  /** Is any of [start, end) mapped? */
  overlaps(start: number, end: number): boolean {
    const vma = this.list[this.firstEndingAfter(start)];
    return vma !== undefined && vma.start < end;
  }

  private firstEndingAfter(address: number): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.list[middle].end <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
