/** What devices wrote, from the IOMMU's own tables: IOMMU_HWPT_GET_DIRTY_BITMAP, told as ranges. */
import { hex, type Iova, iova as toIova } from '../ports/address.ts';
import * as uapi from '../uapi/iommufd.ts';
import { refuseArgument, whole, wholeIova } from './argument.ts';
import { userMemory } from './dma-memory.ts';
import type { Hwpt } from './hwpt.ts';

/** Bytes that were written, or lie in the same page or block as some that were. */
export interface DirtyRange {
  readonly iova: Iova;
  readonly length: number;
}

export interface ReadDirtyOptions {
  /**
   * Where to look, whole mappings: a range that begins inside of a block is answered as if the block began there, and one with a hole ends at the hole
   * (io-pgtable-arm.c, io_pagetable.c). Left out: everything that the IOAS object has mapped.
   */
  readonly range?: { readonly iova: number | bigint; readonly length: number };
  /** What one bit stands for, a power of two that the range is a multiple of; left out: the smallest page. */
  readonly pageSize?: number;
  /** Leave dirty what is told (NO_CLEAR). */
  readonly keep?: boolean;
}

/** Bits of the bitmap that is asked for at a time. */
const WINDOW = 2 ** 24;
/** The largest block of Linux's tables with addresses of 48 bits: no window begins inside of one. */
const LARGEST_BLOCK = 2 ** 30;
const REQUEST = 'IOMMU_HWPT_GET_DIRTY_BITMAP';

/** Lowest first; what touches is one range. @throws VfioError */
export function readDirtyPages(hwpt: Hwpt, { range, pageSize, keep = false }: ReadDirtyOptions): DirtyRange[] {
  const { ioas } = hwpt;
  const page = whole(pageSize ?? ioas.pageSizes()[0]!, REQUEST, 'page_size');
  if (page === 0) refuseArgument(REQUEST, 'page_size', 'a power of two', page);
  const wanted = range === undefined ? mapped(hwpt) : [withinAperture(hwpt, range)];
  const longest = Math.min(WINDOW, Math.max(1, ...wanted.map(({ length }) => Math.ceil(length / page))));
  const memory = userMemory(ioas.kernel, Math.ceil(longest / 8 / ioas.kernel.pageSize) * ioas.kernel.pageSize);
  const found: { iova: number; length: number }[] = [];
  try {
    for (const { start, length } of wanted) {
      for (let at: number = start; at < start + length; ) {
        const end = windowEnd(at, start + length, page);
        memory.bytes.fill(0);
        getBitmap(hwpt, { iova: at, length: end - at, page_size: page, data: memory.address }, keep);
        collect(memory.bytes, at, Math.ceil((end - at) / page), page, found);
        at = end;
      }
    }
  } finally {
    memory.free();
  }
  return found.map(({ iova, length }) => ({ iova: toIova(iova), length }));
}

/** Behind the page table's last IOVA nothing can be dirty, and a longer range would be asked for window after window. */
function withinAperture(hwpt: Hwpt, { iova, length }: NonNullable<ReadDirtyOptions['range']>) {
  const start: number = wholeIova(iova, REQUEST);
  const bytes = whole(length, REQUEST, 'length');
  if (bytes === 0) refuseArgument(REQUEST, 'length', 'a page or more', bytes);
  const last = hwpt.ioas.ranges().at(-1)?.end ?? 0;
  const cut = start + bytes - 1 > last && start <= last && bytes % hwpt.ioas.kernel.pageSize === 0;
  return { start, length: cut ? last + 1 - start : bytes };
}

/** A block never reaches over the end of a mapping. */
function mapped(hwpt: Hwpt): { readonly start: number; readonly length: number }[] {
  return [...hwpt.ioas.mappings]
    .sort((a, b) => a.start - b.start)
    .map(({ start, end }) => ({ start, length: end - start + 1 }));
}

function windowEnd(at: number, end: number, page: number): number {
  const far = at + WINDOW * page;
  return far >= end ? end : far - (far % Math.max(LARGEST_BLOCK, page));
}

interface Wanted {
  readonly iova: number;
  readonly length: number;
  readonly page_size: number;
  readonly data: number;
}

function getBitmap(hwpt: Hwpt, wanted: Wanted, keep: boolean): void {
  const flags = keep ? uapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR : 0;
  const fields = { hwpt_id: hwpt.id, flags, ...wanted };
  const explain = (code: string) => explainDirty(code, hwpt, wanted);
  const { iommufd } = hwpt.ioas;
  iommufd.request(REQUEST, uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, uapi.iommu_hwpt_get_dirty_bitmap, fields, explain);
}

/** What an errno of the two requests means, for a kernel that does not say. */
export function explainDirty(code: string, hwpt: Hwpt, wanted?: Wanted) {
  if (code === 'EOPNOTSUPP') {
    const why = `${hwpt.label} was not made to track dirty pages`;
    return { why, field: 'hwpt_id', hint: 'Hwpt.create(device, ioas, { dirtyTracking: true })' };
  }
  if (code !== 'EINVAL' || wanted === undefined) return null;
  const { iova, length, page_size: page } = wanted;
  const why = `${hex(iova)} + ${hex(length, 1)} is not made of the IOAS's pages, or not of pageSize ${hex(page, 1)}`;
  return { why, field: 'iova' };
}

/** Bit n is the n-th page from `iova` on. */
function collect(
  bytes: Uint8Array,
  iova: number,
  count: number,
  page: number,
  found: { iova: number; length: number }[],
): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  for (let bit = 0; bit < count; bit++) {
    if ((bit & 31) === 0 && words[bit >> 5] === 0) {
      bit |= 31;
      continue;
    }
    const byte = bytes[bit >> 3]!;
    if (byte === 0) bit |= 7;
    else if ((byte & (1 << (bit & 7))) !== 0) {
      const at = iova + bit * page;
      const last = found[found.length - 1];
      if (last !== undefined && last.iova + last.length === at) last.length += page;
      else found.push({ iova: at, length: page });
    }
  }
}
