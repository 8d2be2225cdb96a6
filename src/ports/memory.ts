/**
 * Physical memory: ranges, each an array or a read/write backing (a foreign process's pages).
 *
 * Table walkers are hot: `locate` finds the word once per entry, then `words[at]` and `words[at + 1]` are the entry's
 * low and high half. Everything is little-endian.
 */
import type { Hpa } from './address.ts';

export interface PhysicalMemory {
  /**
   * Finds the aligned 64-bit word at the physical address {hi, lo}. True: `words[at]` is its low half and `words[at + 1]` its
   * high half, valid until the next `locate`; a backed range is first copied into a private line of 8 bytes, so stores through
   * `words` must use `write64`. False: no memory is there (an external abort).
   */
  locate(hi: number, lo: number): boolean;
  readonly words: Int32Array;
  readonly at: number;
  /**
   * The array of the aligned 64 MiB around {hi, lo}, for a walk whose tables lie together: the word at `lo` is its (lo & 0x3ffffff) >>> 2.
   * null where no array is. Counts as a `locate`.
   */
  segment(hi: number, lo: number): Int32Array | null;

  /** Aligned store of a 64-bit word as halves. False: no memory is there. */
  write64(pa: number, lo: number, hi: number): boolean;
  read32(pa: number): number;
  write32(pa: number, value: number): boolean;
  /** Copies bytes; false when any byte of the range is not memory (nothing is copied then). */
  read(pa: number, into: Uint8Array): boolean;
  write(pa: number, from: Uint8Array): boolean;
  /** Is all of [pa, pa + length) memory? */
  covers(pa: number, length: number): boolean;
  /** The bytes themselves when [pa, pa + length) lies within one array range, else null. They stay valid. */
  view(pa: number, length: number): Uint8Array | null;

  /** `length` bytes of zeroed, `alignment`-aligned memory, or null when it is exhausted. Both in bytes, multiples of 4096. */
  allocate(length: number, alignment?: number): Hpa | null;
  free(pa: number, length: number): void;
  /** Bytes handed out by allocate and not freed. */
  readonly allocated: number;

  /** Adds a range that `backing` carries. */
  addBacking(base: number, size: number, backing: MemoryBacking): void;
  removeBacking(base: number): void;
}

/** Bytes that somebody else carries. Offsets are relative to the range's base; false is an external abort. */
export interface MemoryBacking {
  read(offset: number, into: Uint8Array): boolean;
  write(offset: number, from: Uint8Array): boolean;
}
