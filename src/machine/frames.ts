/** Which frames of RAM are handed out: the allocator behind {@link RamMemory}. */

const FRAME = 4096;
const SEGMENT = 64 * 1024 * 1024;
const FRAMES = SEGMENT / FRAME;

interface Extent {
  base: number;
  size: number;
}

/**
 * Hands out 4 KiB frames of RAM, lowest first. Freed blocks are kept by length, so that page tables come and go in
 * constant time; when nothing fits, all free blocks are merged and searched again.
 */
export class FrameAllocator {
  /** Free space that was never handed out or was merged again, sorted by base. */
  private extents: Extent[] = [];
  /** Freed blocks by length. */
  private readonly returned = new Map<number, number[]>();
  private readonly returnedFrames: number[] = [];
  /** One byte per frame, 1 = handed out; one array per 64 MiB, made when needed. */
  private readonly used: (Uint8Array | null)[] = [];
  allocated = 0;

  add(base: number, size: number): void {
    this.extents.push({ base, size });
    this.extents.sort((a, b) => a.base - b.base);
  }

  /** Base of the block, or null. `length` and `alignment` are multiples of 4096; alignment is a power of two. */
  take(length: number, alignment: number): number | null {
    const base =
      this.takeReturned(length, alignment) ?? this.carve(length, alignment) ?? this.takeMerged(length, alignment);
    if (base === null) return null;
    this.mark(base, length, 1);
    this.allocated += length;
    return base;
  }

  /** @throws RangeError when any frame of the block is not handed out: the caller lost count of its memory. */
  give(base: number, length: number): void {
    this.mark(base, length, 0);
    this.allocated -= length;
    if (length === FRAME) {
      this.returnedFrames.push(base);
      return;
    }
    const list = this.returned.get(length);
    if (list === undefined) this.returned.set(length, [base]);
    else list.push(base);
  }

  private takeReturned(length: number, alignment: number): number | null {
    const list = length === FRAME ? this.returnedFrames : this.returned.get(length);
    if (list === undefined || list.length === 0) return null;
    if (length === FRAME && alignment === FRAME) return list.pop()!;
    if (list[list.length - 1] % alignment !== 0) return null;
    return list.pop()!;
  }

  private carve(length: number, alignment: number): number | null {
    for (let i = 0; i < this.extents.length; i++) {
      const extent = this.extents[i];
      const base = Math.ceil(extent.base / alignment) * alignment;
      const left = extent.base + extent.size - base - length;
      if (left < 0) continue;
      if (base > extent.base) this.keepGap(base - extent.base, extent.base);
      if (left === 0) this.extents.splice(i, 1);
      else {
        extent.base = base + length;
        extent.size = left;
      }
      return base;
    }
    return null;
  }

  /** Keeps the gap that alignment left. */
  private keepGap(length: number, base: number): void {
    const list = length === FRAME ? this.returnedFrames : this.returned.get(length);
    if (list === undefined) this.returned.set(length, [base]);
    else list.push(base);
  }

  private takeMerged(length: number, alignment: number): number | null {
    const all = this.extents;
    for (const base of this.returnedFrames) all.push({ base, size: FRAME });
    for (const [size, list] of this.returned) for (const base of list) all.push({ base, size });
    this.returnedFrames.length = 0;
    this.returned.clear();
    all.sort((a, b) => a.base - b.base);
    const merged: Extent[] = [];
    for (const extent of all) {
      const last = merged[merged.length - 1];
      if (last !== undefined && last.base + last.size === extent.base) last.size += extent.size;
      else merged.push(extent);
    }
    this.extents = merged;
    return this.carve(length, alignment);
  }

  private mark(base: number, length: number, value: 0 | 1): void {
    for (let at = base; at < base + length; at += FRAME) {
      const used = this.usedOf((at / SEGMENT) | 0);
      const frame = ((at | 0) >>> 12) & (FRAMES - 1);
      if (used[frame] === value) {
        throw new RangeError(`frame 0x${at.toString(16)} is ${value ? 'already' : 'not'} allocated`);
      }
      used[frame] = value;
    }
  }

  private usedOf(segment: number): Uint8Array {
    while (this.used.length <= segment) this.used.push(null);
    const used = this.used[segment] ?? new Uint8Array(FRAMES);
    this.used[segment] = used;
    return used;
  }
}
