/** The mappings of a type1 container: struct vfio_dma, and where they lie. */
import type { PinnedPages } from '../../ports/process.ts';
import type { Process } from '../process.ts';
import { RangeSet } from '../range-set.ts';

/** One MAP_DMA of user space. */
export interface VfioDma {
  readonly iova: number;
  readonly size: number;
  /** Prot bits without CACHE. */
  readonly prot: number;
  /** Where the process has it now; VADDR changes it. */
  vaddr: number;
  vaddrInvalid: boolean;
  /** Who is charged for the pages, and whether RLIMIT_MEMLOCK does not bind it (CAP_IPC_LOCK). */
  process: Process;
  lockCap: boolean;
  pinned: PinnedPages | null;
  /** The bitmap of dirty tracking, little-endian words; null before somebody looked. */
  dirty: Uint8Array | null;
}

export class DmaList {
  private readonly ranges = new RangeSet();
  private readonly slots: (VfioDma | null)[] = [];
  private readonly free: number[] = [];

  get size(): number {
    return this.ranges.size;
  }

  add(dma: VfioDma): void {
    const slot = this.free.pop() ?? this.slots.push(null) - 1;
    this.slots[slot] = dma;
    this.ranges.insert(dma.iova, dma.iova + dma.size, slot);
  }

  remove(dma: VfioDma): void {
    const slot = this.ranges.remove(dma.iova);
    this.slots[slot] = null;
    this.free.push(slot);
  }

  /** The mapping that holds `iova`, or null. */
  at(iova: number): VfioDma | null {
    const slot = this.ranges.find(iova);
    return slot < 0 ? null : this.slots[slot];
  }

  /** vfio_find_dma: the lowest mapping that touches [start, end), or null. */
  overlapping(start: number, end: number): VfioDma | null {
    return this.ranges.overlaps(start, end) ? this.slots[this.ranges.value] : null;
  }

  /** All mappings that touch [start, end), lowest first. */
  within(start: number, end: number): VfioDma[] {
    const found: VfioDma[] = [];
    for (let more = this.ranges.seek(start); more && this.ranges.start < end; more = this.ranges.next()) {
      found.push(this.slots[this.ranges.value]!);
    }
    return found;
  }

  all(): VfioDma[] {
    return this.within(0, Infinity);
  }
}
