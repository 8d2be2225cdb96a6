/** The pages of a memfd: blocks of frames by their offset, made when they are first used. */
import type { PhysicalMemory } from '../ports/memory.ts';
import type { Located } from './files.ts';
import { FrameBlock } from './frame-block.ts';

/** Offsets [start, end) of the file lie in `block` from its start on. Cut short, `end` moves; forgotten, it is `start`. */
interface Extent {
  readonly start: number;
  end: number;
  readonly block: FrameBlock;
}

interface Hold {
  readonly extent: Extent;
  readonly start: number;
}

/** What is made at once, so that a file of usual size is one array. */
const CHUNK = 0x400_0000;

export class MemfdPages {
  private readonly memory: PhysicalMemory;
  private readonly pageSize: number;
  /** Sorted, without overlap. */
  private extents: Extent[] = [];
  private readonly holds = new Set<Hold>();

  constructor(memory: PhysicalMemory, pageSize: number) {
    this.memory = memory;
    this.pageSize = pageSize;
  }

  get resident(): number {
    return this.extents.reduce((sum, { start, end }) => sum + (end - start), 0);
  }

  /** Is a page of the file pinned? One that the file has forgotten is none. */
  get held(): boolean {
    return [...this.holds].some(({ extent, start }) => start < extent.end);
  }

  /** The page under `offset`, which lies below `end`, made when it is not there; null without memory for it. */
  locate(offset: number, end: number): Located | null {
    const extent = this.find(offset) ?? this.make(offset, end);
    if (extent === null) return null;
    const hold = (length: number): (() => void) => this.hold(extent, offset, length);
    return { pa: extent.block.pa + (offset - extent.start), length: extent.end - offset, hold };
  }

  /** At most `length` bytes from `offset` on; zeros where no page is. */
  read(offset: number, length: number): Uint8Array {
    const extent = this.find(offset);
    const next = extent?.end ?? this.extents.find(({ start }) => start > offset)?.start ?? Number.POSITIVE_INFINITY;
    const bytes = new Uint8Array(Math.min(length, next - offset, CHUNK));
    if (extent !== null) this.memory.read(extent.block.pa + (offset - extent.start), bytes);
    return bytes;
  }

  /** False without memory for all of it. */
  write(offset: number, bytes: Uint8Array, size: number): boolean {
    const end = Math.ceil(size / this.pageSize) * this.pageSize;
    for (let done = 0; done < bytes.length; ) {
      const found = this.locate(offset + done, end);
      if (found === null) return false;
      const part = bytes.subarray(done, done + found.length);
      this.memory.write(found.pa, part);
      done += part.length;
    }
    return true;
  }

  /** Forgets the pages beyond `length`; the rest of the last one becomes zero. */
  truncate(length: number): void {
    const end = Math.ceil(length / this.pageSize) * this.pageSize;
    const kept: Extent[] = [];
    for (const extent of this.extents) {
      if (extent.start < end) {
        extent.end = Math.min(extent.end, end);
        kept.push(extent);
        continue;
      }
      extent.end = extent.start;
      extent.block.put();
    }
    this.extents = kept;
    const last = length < end ? this.find(length) : null;
    if (last !== null) this.memory.write(last.block.pa + (length - last.start), new Uint8Array(end - length));
  }

  private hold(extent: Extent, start: number, _length: number): () => void {
    const hold = { extent, start };
    this.holds.add(hold);
    extent.block.get();
    return () => {
      if (this.holds.delete(hold)) extent.block.put();
    };
  }

  private find(offset: number): Extent | null {
    return this.extents.find(({ start, end }) => start <= offset && offset < end) ?? null;
  }

  /** Makes the chunk around `offset` as far as no page is there, or less of it when memory is short. */
  private make(offset: number, end: number): Extent | null {
    const chunk = Math.floor(offset / CHUNK) * CHUNK;
    const below = this.extents.findLast((extent) => extent.end <= offset)?.end ?? 0;
    const above = this.extents.find((extent) => extent.start > offset)?.start ?? end;
    let start = Math.max(chunk, below);
    let stop = Math.min(chunk + CHUNK, above, end);
    for (;;) {
      const length = stop - start;
      const natural = Math.max(this.pageSize, 2 ** Math.ceil(Math.log2(length)));
      const block =
        FrameBlock.allocate(this.memory, length, natural) ?? FrameBlock.allocate(this.memory, length, this.pageSize);
      if (block !== null) {
        const extent = { start, end: stop, block };
        this.extents = [...this.extents, extent].sort((a, b) => a.start - b.start);
        return extent;
      }
      if (length <= this.pageSize) return null;
      const half = start + Math.ceil(length / 2 / this.pageSize) * this.pageSize;
      if (offset < half) stop = half;
      else start = half;
    }
  }
}
