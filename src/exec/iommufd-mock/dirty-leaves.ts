/** What was written of a mock's page table: the entries of AMD's format with pages of 2 KiB (generic_pt/fmt/amdv1.h, iommu_pt.h). */
import type { DirtyOps } from '../../ports/iommu.ts';

const ENTRY = 2048;
/** Entries of a table. */
const ENTRIES = 512;

/** A mapping as it was made. */
export interface Chunk {
  readonly iova: number;
  readonly pa: number;
  readonly size: number;
}

/** Bytes of IOVA that the entries of a leaf map each, and all of them together. */
interface Leaf {
  readonly start: number;
  readonly size: number;
  readonly entry: number;
}

export class DirtyLeaves implements DirtyOps {
  /** SET_DIRTY_TRACKING with ENABLE came last. */
  tracking = false;
  /** By the IOVA of the leaf. */
  private readonly dirty = new Set<number>();
  private readonly find: (iova: number) => Chunk | null;
  private readonly isSize: (bytes: number) => boolean;

  /**
   * @param find the mapping that an IOVA is in
   * @param isSize is the power of two the size of a leaf?
   */
  constructor(find: (iova: number) => Chunk | null, isSize: (bytes: number) => boolean) {
    this.find = find;
    this.isSize = isSize;
  }

  setDirtyTracking(enable: boolean): number {
    this.tracking = enable;
    return 0;
  }

  /** set_dirty: as a device's write would leave the leaf; nothing where nothing is mapped. */
  set(iova: number): void {
    const leaf = this.leafAt(iova);
    if (leaf !== null) this.dirty.add(leaf.start);
  }

  /** Before [iova, iova + size) is unmapped. */
  forget(iova: number, size: number): void {
    if (this.dirty.size === 0) return;
    for (const start of this.dirty) {
      const leaf = this.leafAt(start);
      if (leaf === null || (start < iova + size && iova < start + leaf.size)) this.dirty.delete(start);
    }
  }

  /** Of a leaf of several entries Linux 7.2 tells all but the last (record_dirty), unless the range ends before that. */
  readAndClearDirty(
    iova: number,
    size: number,
    noClear: boolean,
    record: (iova: number, length: number) => void,
  ): number {
    if (this.dirty.size === 0) return 0;
    const end = iova + size;
    for (let at = iova; at < end; ) {
      const leaf = this.leafAt(at);
      if (leaf !== null && this.dirty.has(leaf.start)) {
        const told = leaf.size === leaf.entry ? leaf.start + leaf.size : leaf.start + leaf.size - leaf.entry;
        const to = Math.min(told, Math.ceil(end / leaf.entry) * leaf.entry);
        if (to > at) record(at, to - at);
        if (!noClear) this.dirty.delete(leaf.start);
      }
      at = leaf === null ? at + ENTRY : leaf.start + leaf.size;
    }
    return 0;
  }

  /** The leaves of a mapping are as large as alignment and what is left of it allow. */
  private leafAt(iova: number): Leaf | null {
    const chunk = this.find(iova);
    if (chunk === null) return null;
    let start = chunk.iova;
    for (;;) {
      const left = chunk.iova + chunk.size - start;
      const pa = chunk.pa + (start - chunk.iova);
      let size = ENTRY;
      for (let next = size; next <= left && start % next === 0 && pa % next === 0; next *= 2) {
        if (this.isSize(next)) size = next;
      }
      if (iova < start + size) {
        let entry = ENTRY;
        while (entry * ENTRIES <= size) entry *= ENTRIES;
        return { start, size, entry };
      }
      start += size;
    }
  }
}
