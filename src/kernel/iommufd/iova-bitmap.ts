/** The bitmap of user space that dirty IOVAs are told in: struct iova_bitmap (iommufd/iova_bitmap.c). */
import type { PinnedPages } from '../../ports/process.ts';
import type { KernelContext } from '../context.ts';
import type { Process } from '../process.ts';
import { userPointer } from '../user-copy.ts';
import { lower } from './span.ts';

const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/** A pinned page of the bitmap; what is set in `bytes` goes to its frame when it is let go. */
interface Page {
  readonly pinned: PinnedPages;
  readonly pa: number;
  readonly bytes: Uint8Array;
}

export interface BitmapRange {
  readonly iova: bigint;
  /** Bytes of IOVA; 0 is all 2^64 of them. */
  readonly length: bigint;
  /** What one bit is: the lowest bit set counts. */
  readonly pageSize: bigint;
  /** User address, any alignment. */
  readonly data: bigint;
}

/**
 * Bit n of the bitmap is the n-th page from `iova` on. A window of its pages is pinned at a time. As in Linux a page that cannot be pinned is no error: what
 * would be told there is lost. And what is recorded beyond the bitmap's end is set too, as far as pages are pinned.
 */
export class IovaBitmap {
  private readonly context: KernelContext;
  private readonly process: Process;
  private readonly range: BitmapRange;
  private readonly shift: bigint;
  /** Bytes of IOVA that a bit is. */
  private readonly unit: number;
  /** Bytes of the bitmap in all (mapped_total_index). */
  private readonly total: bigint;
  private pages: Page[] = [];
  /** The IOVA of the window's first bit, the last one that the window is said to reach, and the first bit in the first page. */
  private first = 0;
  private last = 0;
  private firstBit = 0;

  constructor(context: KernelContext, process: Process, range: BitmapRange) {
    this.context = context;
    this.process = process;
    this.range = range;
    this.shift = BigInt((range.pageSize & -range.pageSize).toString(2).length - 1);
    this.unit = 2 ** Number(this.shift);
    this.total = this.byteOf(u64(range.length - 1n)) + 1n;
  }

  /** iova_bitmap_set. */
  set(iova: number, length: number): void {
    const bitsOfPage = this.context.pageSize * 8;
    let at = iova;
    let left = length;
    for (;;) {
      const within = this.pages.length > 0 && at >= this.first && at + left - 1 <= this.last;
      if (!within && !this.advance(at)) return;
      const from = Math.floor((at - this.first) / this.unit) + this.firstBit;
      const to = Math.floor((at + left - 1 - this.first) / this.unit) + this.firstBit;
      const end = this.pages.length * bitsOfPage;
      this.fill(from, Math.min(to, end - 1));
      if (to < end) return;
      const rest = (to - end + 1) * this.unit;
      // A record shorter than a bit cannot go on behind the window: it would begin again where it began.
      if (rest >= left) return;
      at += left - rest;
      left = rest;
    }
  }

  /** iova_bitmap_free: the pages are let go. */
  release(): void {
    for (const { pinned, pa, bytes } of this.pages) {
      this.context.memory.write(pa, bytes);
      pinned.release();
    }
    this.pages = [];
  }

  private byteOf(offset: bigint): bigint {
    return (offset >> this.shift) / 8n;
  }

  /** iova_bitmap_advance_to: the window begins with the byte of `iova`. False: beyond the bitmap, or no page there. */
  private advance(iova: number): boolean {
    const { range, total, shift } = this;
    const base = this.byteOf(u64(BigInt(iova) - range.iova));
    if (base >= total) return false;
    this.release();
    const address = u64(range.data + base);
    const page = BigInt(this.context.pageSize);
    const offset = address % page;
    const wanted = (total - base + page - 1n) / page + (offset === 0n ? 0n : 1n);
    const most = page / 8n;
    this.pin(address - offset, Number(lower(wanted, most)));
    if (this.pages.length === 0) return false;
    const start = u64(range.iova + u64((base * 8n) << shift));
    const bytes = BigInt(this.pages.length) * page - offset;
    const bits = lower(bytes, total - base) * 8n;
    const reach = u64(start + u64(bits << shift) - 1n);
    const end = u64(range.iova + range.length - 1n);
    this.first = Number(start);
    this.last = Number(lower(reach, end));
    this.firstBit = Number(offset) * 8;
    return true;
  }

  /** Pages from `address` on, up to the first that user space cannot write. */
  private pin(address: bigint, count: number): void {
    const { memory, pageSize } = this.context;
    for (let i = 0; i < count; i++) {
      const pinned = this.process.memory.pin(userPointer(address + BigInt(i * pageSize)), pageSize, true);
      if (typeof pinned === 'number') return;
      const pa = pinned.runs[0]!.pa;
      const bytes = new Uint8Array(pageSize);
      if (pinned.deviceMemory || !memory.read(pa, bytes)) {
        pinned.release();
        return;
      }
      this.pages.push({ pinned, pa, bytes });
    }
  }

  private fill(from: number, to: number): void {
    const bitsOfPage = this.context.pageSize * 8;
    for (let bit = from; bit <= to; ) {
      const { bytes } = this.pages[Math.floor(bit / bitsOfPage)]!;
      const within = bit % bitsOfPage;
      const byte = within >>> 3;
      if ((within & 7) === 0 && to - bit >= 7) {
        const whole = Math.min((to - bit + 1) >>> 3, bytes.length - byte);
        bytes.fill(0xff, byte, byte + whole);
        bit += whole * 8;
      } else {
        bytes[byte]! |= 1 << (within & 7);
        bit += 1;
      }
    }
  }
}
