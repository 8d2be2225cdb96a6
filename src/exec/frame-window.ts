/**
 * Physical addresses for the pinned pages of foreign programs: one range of the machine's physical memory, in which each pin gets frames
 * for as long as it lasts, and a device's access finds the pages behind them.
 */
import { FrameAllocator } from '../machine/frames.ts';
import type { MemoryBacking, PhysicalMemory } from '../ports/memory.ts';

/** Far above the RAM of any preset, and within the 44 bits that the smallest IOMMU here can put out. */
const BASE = 2 ** 42;
const SIZE = 2 ** 40;
const HUGE = 2 ** 21;
const PAGE = 4096;

/** Bytes behind a range of frames. Offsets are relative to its start. */
export interface PageSource extends MemoryBacking {
  /** Which object the first byte is of, and where in it: the same for all pins of one page. */
  readonly identity: { readonly object: string; readonly at: number };
  /** [start, end), relative to the first byte, is about to go where it is: what it holds is kept here from now on. */
  keep?(start: number, end: number): void;
  release(): void;
}

export interface Frames {
  readonly pa: number;
  readonly length: number;
  readonly source: PageSource;
}

export class FrameWindow implements MemoryBacking {
  private readonly allocator = new FrameAllocator();
  /** Sorted by address. */
  private readonly list: Frames[] = [];

  /** @throws RangeError when the machine has memory there. */
  constructor(memory: PhysicalMemory) {
    this.allocator.add(BASE, SIZE);
    memory.addBacking(BASE, SIZE, this);
  }

  /** Bytes that are pinned. */
  get pinned(): number {
    return this.allocator.allocated;
  }

  /** Frames for `length` bytes, a multiple of 4096; null when the window is full. */
  add(length: number, source: PageSource): Frames | null {
    const pa = this.allocator.take(length, length >= HUGE ? HUGE : PAGE);
    if (pa === null) return null;
    const frames = { pa, length, source };
    this.list.splice(this.firstEndingAfter(pa), 0, frames);
    return frames;
  }

  remove(frames: Frames): void {
    const index = this.firstEndingAfter(frames.pa);
    if (this.list[index] !== frames) return;
    this.list.splice(index, 1);
    this.allocator.give(frames.pa, frames.length);
    frames.source.release();
  }

  /** A file, by the name of its object, is about to lose the pages that lie wholly in [from, from + length). */
  aboutToLose(object: string, from: number, length: number): void {
    for (const { source, length: bytes } of this.list) {
      const { identity } = source;
      if (identity.object !== object) continue;
      const start = Math.max(0, Math.ceil(from / PAGE) * PAGE - identity.at);
      const end = Math.min(bytes, Math.floor((from + length) / PAGE) * PAGE - identity.at);
      if (start < end) source.keep?.(start, end);
    }
  }

  /** What a physical address is a byte of, or null: nothing is pinned there. */
  identity(pa: number): { readonly object: string; readonly at: number } | null {
    const frames = this.list[this.firstEndingAfter(pa)];
    if (frames === undefined || frames.pa > pa) return null;
    const { object, at } = frames.source.identity;
    return { object, at: at + (pa - frames.pa) };
  }

  /** Everything that is pinned, by object. */
  pins(): readonly { readonly object: string; readonly at: number; readonly length: number }[] {
    return this.list.map(({ source, length }) => ({ ...source.identity, length }));
  }

  read(offset: number, into: Uint8Array): boolean {
    return this.each(offset, into.length, (source, at, from, length) =>
      source.read(at, into.subarray(from, from + length)),
    );
  }

  write(offset: number, bytes: Uint8Array): boolean {
    return this.each(offset, bytes.length, (source, at, from, length) =>
      source.write(at, bytes.subarray(from, from + length)),
    );
  }

  private each(
    offset: number,
    length: number,
    piece: (source: PageSource, at: number, from: number, length: number) => boolean,
  ): boolean {
    let done = 0;
    while (done < length) {
      const pa = BASE + offset + done;
      const frames = this.list[this.firstEndingAfter(pa)];
      if (frames === undefined || frames.pa > pa) return false;
      const part = Math.min(length - done, frames.pa + frames.length - pa);
      if (!piece(frames.source, pa - frames.pa, done, part)) return false;
      done += part;
    }
    return true;
  }

  private firstEndingAfter(pa: number): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const frames = this.list[middle]!;
      if (frames.pa + frames.length <= pa) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
