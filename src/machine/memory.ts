/** The machine's RAM, and ranges that somebody else carries. */
import { type Hpa, hex, highHalf } from '../ports/address.ts';
import type { MemoryBacking, PhysicalMemory } from '../ports/memory.ts';
import { FrameAllocator } from './frames.ts';

/** Arrays of 64 MiB: small enough to be made only when touched, and a segment's index is one shift of each half. */
const SEGMENT = 64 * 1024 * 1024;
const WORDS = SEGMENT / 4;
const PAGE = 4096;
/** What every supported engine can hold in one ArrayBuffer. */
const LONGEST_ARRAY = 2 ** 31;
const NOTHING = new Int32Array(0);
/** No address has this in its bits 31:26. */
const NO_PART = -1;

interface Backed {
  readonly base: number;
  readonly size: number;
  readonly backing: MemoryBacking;
}

/** `memory` as MachineSpec gives it: base and size multiples of 64 MiB below 2^44. */
export class RamMemory implements PhysicalMemory {
  words: Int32Array = NOTHING;
  at = 0;
  /** By address >> 26: the segment, `NOTHING` where RAM is that nobody touched, null where none is. */
  private readonly segments: (Int32Array | null)[] = [];
  /**
   * The segment that `words` is, as the halves of its addresses; NO_PART when it is none. Walks stay in one segment mostly: compared
   * first, the segment is no load that the next table's address waits for.
   */
  private lastHi = 0;
  private lastPart = NO_PART;
  private readonly backed: Backed[] = [];
  private readonly line = new Int32Array(2);
  private readonly lineBytes = new Uint8Array(this.line.buffer);
  private readonly frames = new FrameAllocator();

  constructor(ranges: readonly { readonly base: number; readonly size: number }[]) {
    for (const { base, size } of ranges) this.addRam(base, size);
  }

  get allocated(): number {
    return this.frames.allocated;
  }

  locate(hi: number, lo: number): boolean {
    if (lo >>> 26 !== this.lastPart || hi !== this.lastHi) return this.find(hi, lo);
    this.at = (lo & 0x3fffff8) >>> 2;
    return true;
  }

  segment(hi: number, lo: number): Int32Array | null {
    if (lo >>> 26 === this.lastPart && hi === this.lastHi) return this.words;
    return this.find(hi, lo) && this.lastPart !== NO_PART ? this.words : null;
  }

  private find(hi: number, lo: number): boolean {
    const index = (hi << 6) | (lo >>> 26);
    // Beyond 2^44 the index would wrap; RAM ends there.
    if (hi >>> 12 === 0 && index < this.segments.length) {
      const segment = this.segments[index];
      if (segment !== null) {
        this.words = segment === NOTHING ? this.touch(index) : segment;
        this.lastHi = hi;
        this.lastPart = lo >>> 26;
        this.at = (lo & 0x3fffff8) >>> 2;
        return true;
      }
    }
    return this.backed.length !== 0 && this.locateBacked(hi, lo);
  }

  write64(pa: number, lo: number, hi: number): boolean {
    if (!this.locate(highHalf(pa), pa | 0)) return false;
    this.words[this.at] = lo;
    this.words[this.at + 1] = hi;
    return this.words !== this.line || this.flushLine(pa - (pa % 8));
  }

  read32(pa: number): number {
    if (!this.locate(highHalf(pa), pa | 0)) return -1;
    return this.words[this.at + ((pa >>> 2) & 1)];
  }

  write32(pa: number, value: number): boolean {
    if (!this.locate(highHalf(pa), pa | 0)) return false;
    this.words[this.at + ((pa >>> 2) & 1)] = value;
    return this.words !== this.line || this.flushLine(pa - (pa % 8));
  }

  read(pa: number, into: Uint8Array): boolean {
    return (
      this.covers(pa, into.length) &&
      this.each(pa, into.length, (bytes, from, backing, offset) => {
        const part = into.subarray(from, from + bytes.length);
        if (backing !== null) return backing.read(offset, part);
        part.set(bytes);
        return true;
      })
    );
  }

  write(pa: number, from: Uint8Array): boolean {
    return (
      this.covers(pa, from.length) &&
      this.each(pa, from.length, (bytes, at, backing, offset) => {
        const part = from.subarray(at, at + bytes.length);
        if (backing !== null) return backing.write(offset, part);
        bytes.set(part);
        return true;
      })
    );
  }

  covers(pa: number, length: number): boolean {
    let at = pa;
    while (at < pa + length) {
      const end = this.rangeEnd(at);
      if (end === 0) return false;
      at = end;
    }
    return true;
  }

  view(pa: number, length: number): Uint8Array | null {
    const index = Math.floor(pa / SEGMENT);
    const last = Math.floor((pa + length - 1) / SEGMENT);
    if (last > index && !this.isJoined(index, last)) return null;
    const segment = this.segments[index] ?? null;
    if (segment === null) return null;
    const { buffer, byteOffset } = segment.length === 0 ? this.touch(index) : segment;
    return new Uint8Array(buffer, byteOffset + (pa - index * SEGMENT), length);
  }

  allocate(length: number, alignment = PAGE): Hpa | null {
    if (!(length > 0) || length % PAGE !== 0)
      throw new RangeError(`allocate: ${length} bytes is not a multiple of 4096`);
    if (alignment !== PAGE && !(alignment >= PAGE && Number.isInteger(Math.log2(alignment)))) {
      throw new RangeError(`allocate: alignment ${alignment} is not a power of two of at least 4096`);
    }
    const base = this.frames.take(length, alignment);
    if (base === null) return null;
    this.zero(base, length);
    return base as Hpa;
  }

  free(pa: number, length: number): void {
    if (!(length > 0) || length % PAGE !== 0 || pa % PAGE !== 0) {
      throw new RangeError(`free: ${hex(pa)} + ${length} is not made of frames of 4096`);
    }
    this.frames.give(pa, length);
  }

  /** @throws RangeError when the range overlaps RAM or another backing, or is not made of 8-byte words. */
  addBacking(base: number, size: number, backing: MemoryBacking): void {
    if (base % 8 !== 0 || size % 8 !== 0 || !(size > 0)) throw new RangeError(`backing ${hex(base)}: not 8-byte words`);
    for (let at = base; at < base + size; at += SEGMENT - (at % SEGMENT)) {
      if ((this.segments[Math.floor(at / SEGMENT)] ?? null) !== null)
        throw new RangeError(`backing ${hex(base)} overlaps RAM`);
    }
    for (const other of this.backed) {
      if (base < other.base + other.size && other.base < base + size) {
        throw new RangeError(`backing ${hex(base)} overlaps the one at ${hex(other.base)}`);
      }
    }
    this.backed.push({ base, size, backing });
  }

  removeBacking(base: number): void {
    const index = this.backed.findIndex((range) => range.base === base);
    if (index >= 0) this.backed.splice(index, 1);
  }

  private addRam(base: number, size: number): void {
    if (base % SEGMENT !== 0 || size % SEGMENT !== 0 || !(size > 0) || base + size > 2 ** 44) {
      throw new RangeError(`RAM ${hex(base)} + ${hex(size)}: multiples of 64 MiB below 2^44 expected`);
    }
    const first = base / SEGMENT;
    const end = (base + size) / SEGMENT;
    while (this.segments.length < end) this.segments.push(null);
    for (let i = first; i < end; i++) {
      if (this.segments[i] !== null) throw new RangeError(`RAM ${hex(base)} overlaps another range`);
      this.segments[i] = NOTHING;
    }
    // Address 0 is no allocation's answer, and a PC's first MiB belongs to the firmware.
    const reserved = base === 0 ? 0x10_0000 : 0;
    this.frames.add(base + reserved, size - reserved);
  }

  /** Are these segments parts of one array? They become it when nobody has touched any of them. */
  private isJoined(first: number, last: number): boolean {
    const parts = this.segments.slice(first, last + 1);
    if (parts.length !== last - first + 1) return false;
    if (parts.every((part) => part !== null && part.length === 0)) return this.join(first, parts.length);
    return parts.every(
      (part, i) => part?.buffer === parts[0]?.buffer && part?.byteOffset === (parts[0]?.byteOffset ?? 0) + i * SEGMENT,
    );
  }

  private join(first: number, count: number): boolean {
    if (count * SEGMENT > LONGEST_ARRAY) return false;
    const buffer = new ArrayBuffer(count * SEGMENT);
    for (let i = 0; i < count; i++) this.segments[first + i] = new Int32Array(buffer, i * SEGMENT, WORDS);
    return true;
  }

  private touch(index: number): Int32Array {
    const segment = new Int32Array(WORDS);
    this.segments[index] = segment;
    return segment;
  }

  private zero(base: number, length: number): void {
    let at = base;
    while (at < base + length) {
      const index = Math.floor(at / SEGMENT);
      const end = Math.min(base + length, (index + 1) * SEGMENT);
      const segment = this.segments[index];
      if (segment !== null && segment.length !== 0)
        segment.fill(0, (at - index * SEGMENT) / 4, (end - index * SEGMENT) / 4);
      at = end;
    }
  }

  private locateBacked(hi: number, lo: number): boolean {
    const pa = (hi >>> 0) * 4294967296 + ((lo & ~7) >>> 0);
    const range = this.backingOf(pa);
    if (range === null || !range.backing.read(pa - range.base, this.lineBytes)) return false;
    this.words = this.line;
    this.lastPart = NO_PART;
    this.at = 0;
    return true;
  }

  private flushLine(pa: number): boolean {
    const range = this.backingOf(pa);
    return range === null ? false : range.backing.write(pa - range.base, this.lineBytes);
  }

  private backingOf(pa: number): Backed | null {
    for (const range of this.backed) if (pa >= range.base && pa < range.base + range.size) return range;
    return null;
  }

  /** End of the array or backing that holds `pa`; 0 when no memory is there. */
  private rangeEnd(pa: number): number {
    const index = Math.floor(pa / SEGMENT);
    if ((this.segments[index] ?? null) !== null) return (index + 1) * SEGMENT;
    const range = this.backingOf(pa);
    return range === null ? 0 : range.base + range.size;
  }

  /** Visits a covered range piece by piece: the bytes of an array, or a placeholder of the right length with its backing. */
  private each(
    pa: number,
    length: number,
    piece: (bytes: Uint8Array, at: number, backing: MemoryBacking | null, offset: number) => boolean,
  ): boolean {
    let at = pa;
    while (at < pa + length) {
      const end = Math.min(pa + length, this.rangeEnd(at));
      const array = this.view(at, end - at);
      const range = array === null ? this.backingOf(at) : null;
      const bytes = array ?? new Uint8Array(end - at);
      if (!piece(bytes, at - pa, range?.backing ?? null, range === null ? 0 : at - range.base)) return false;
      at = end;
    }
    return true;
  }
}
