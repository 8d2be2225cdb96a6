/**
 * Dirty page tracking of type1: VFIO_IOMMU_DIRTY_PAGES, and the bitmap that UNMAP_DMA can take along (vfio_iommu_type1.c
 * vfio_iommu_type1_dirty_pages, vfio_iova_dirty_bitmap, update_user_bitmap).
 *
 * No IOMMU tells type1 which pages a device wrote, so a group that did not promise to pin what it writes (an mdev does; a PCI
 * function does not) makes every page of every mapping dirty, at each look. That is all a PCI container ever reports.
 */
import { fromU64, hex } from '../../ports/address.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { copyFromUser, userPointer } from '../user-copy.ts';
import type { VfioDma } from './dma-list.ts';
import type { VfioIommuType1 } from './type1.ts';

/** DIRTY_BITMAP_PAGES_MAX: a mapping of more pages cannot be tracked. */
const MAX_PAGES = 2 ** 31 - 1;
/** DIRTY_BITMAP_SIZE_MAX, in bytes. */
const MAX_BITMAP = 2n ** 28n;
const U64_MAX = 0xffff_ffff_ffff_ffffn;
const { VFIO_IOMMU_DIRTY_PAGES_FLAG_START: START, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP: STOP } = uapi;
const GET_BITMAP = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;

/** struct vfio_bitmap. */
export interface UserBitmap {
  readonly pgsize: bigint;
  /** Bytes. */
  readonly size: bigint;
  readonly data: bigint;
}

export function dirtyPages(iommu: VfioIommuType1, process: Process, argument: bigint): number {
  const { refusals } = iommu.context;
  const layout = uapi.vfio_iommu_type1_dirty_bitmap;
  if (!iommu.v2)
    return refusals.refuse('EACCES', 'only VFIO_TYPE1v2_IOMMU tracks dirty pages, and this container is v1', 'fd');
  const bytes = copyFromUser(process, argument, layout.size);
  if (bytes === null)
    return refusals.refuse('EFAULT', `the ${layout.size} bytes of the argument are not readable`, 'argument');
  const { argsz, flags } = layout.read(bytes);
  if (argsz < layout.size) return refusals.refuse('EINVAL', `argsz ${argsz} is less than ${layout.size}`, 'argsz');
  if ((flags & ~(START | STOP | GET_BITMAP)) !== 0)
    return refusals.refuse('EINVAL', `flags ${hex(flags)} has unknown bits`, 'flags');
  if (flags === START) return start(iommu);
  if (flags === STOP) {
    iommu.dirtyTracking = false;
    for (const dma of iommu.dmas.all()) dma.dirty = null;
    return 0;
  }
  if (flags === GET_BITMAP) return getBitmap(iommu, process, argument, argsz - layout.size);
  return refusals.refuse('EINVAL', `flags ${flags} is not exactly one of START, STOP, GET_BITMAP`, 'flags');
}

/** Starting again is no error. -EINVAL when a mapping is too large for a bitmap. */
function start(iommu: VfioIommuType1): number {
  if (iommu.dirtyTracking) return 0;
  for (const dma of iommu.dmas.all()) {
    const error = checkTrackable(iommu, dma);
    if (error < 0) return error;
  }
  iommu.dirtyTracking = true;
  return 0;
}

/** vfio_dma_bitmap_alloc. */
export function checkTrackable(iommu: VfioIommuType1, dma: VfioDma): number {
  const pages = dma.size / iommu.smallestPage;
  if (pages <= MAX_PAGES) return 0;
  const why = `the mapping at iova ${hex(dma.iova)} has ${pages} pages, and dirty tracking ends at ${MAX_PAGES}`;
  return iommu.context.refusals.refuse('EINVAL', why, 'size');
}

function getBitmap(iommu: VfioIommuType1, process: Process, argument: bigint, size: number): number {
  const { refusals } = iommu.context;
  const { size: head } = uapi.vfio_iommu_type1_dirty_bitmap;
  const layout = uapi.vfio_iommu_type1_dirty_bitmap_get;
  if (size < layout.size)
    return refusals.refuse('EINVAL', `argsz ${head + size} is less than ${head + layout.size}`, 'argsz');
  const bytes = copyFromUser(process, argument, layout.size, head);
  if (bytes === null) return refusals.refuse('EFAULT', 'the range behind the struct is not readable', 'data');
  const range = layout.read(bytes);
  if (range.size !== 0n && range.iova + range.size - 1n > U64_MAX)
    return refusals.refuse('EOVERFLOW', `iova ${hex(range.iova)} + ${hex(range.size)} wraps`, 'data.iova');
  const error = checkBitmap(iommu, range.bitmap, range.size, 'data.bitmap');
  if (error < 0) return error;
  const page = BigInt(iommu.smallestPage);
  if (range.bitmap.pgsize !== page)
    return refusals.refuse('EINVAL', wrongPage(range.bitmap, page), 'data.bitmap.pgsize');
  for (const field of ['iova', 'size'] as const) {
    if (range[field] % page === 0n) continue;
    const why = `${field} ${hex(range[field])} is not a multiple of the smallest page, ${hex(page)}`;
    return refusals.refuse('EINVAL', why, `data.${field}`);
  }
  if (!iommu.dirtyTracking) return trackingIsOff(iommu);
  return report(iommu, process, range);
}

/** vfio_iova_dirty_bitmap: whole mappings, as many as the range holds. */
function report(
  iommu: VfioIommuType1,
  process: Process,
  range: { readonly iova: bigint; readonly size: bigint; readonly bitmap: UserBitmap },
): number {
  const first = fromU64(range.iova);
  // What 2^53 does not hold lies outside of every aperture: nothing is mapped there.
  if (first === null) return 0;
  const end = fromU64(range.iova + range.size);
  const bisected = iommu.bisected(first, end);
  if (bisected !== null)
    return iommu.context.refusals.refuse('EINVAL', `the range ${bisected.why}`, `data.${bisected.field}`);
  for (const dma of iommu.dmas.within(first, end ?? Infinity)) {
    const error = writeDirty(iommu, process, range.bitmap, dma, first);
    if (error < 0) return error;
  }
  return 0;
}

/** access_ok and verify_bitmap_size for a range of `size` bytes; -EINVAL. */
export function checkBitmap(iommu: VfioIommuType1, bitmap: UserBitmap, size: bigint, field: string): number {
  const { refusals } = iommu.context;
  if (fromU64(bitmap.data + bitmap.size) === null)
    return refusals.refuse(
      'EINVAL',
      `${hex(bitmap.data)} + ${bitmap.size} is no range of user addresses`,
      `${field}.data`,
    );
  const pages = bitmap.pgsize === 0n ? 0n : size / (bitmap.pgsize & -bitmap.pgsize);
  const needed = ((pages + 63n) / 64n) * 8n;
  if (pages !== 0n && bitmap.size !== 0n && bitmap.size <= MAX_BITMAP && bitmap.size >= needed) return 0;
  const why = `a bitmap of ${bitmap.size} bytes for ${pages} pages of ${hex(bitmap.pgsize)}; ${needed} are needed`;
  return refusals.refuse('EINVAL', why, `${field}.size`);
}

export const trackingIsOff = (iommu: VfioIommuType1): number =>
  iommu.context.refusals.refuse('EINVAL', 'dirty page tracking is off', 'flags', 'VFIO_IOMMU_DIRTY_PAGES with START');

export const wrongPage = (bitmap: UserBitmap, page: bigint): string =>
  `pgsize ${hex(bitmap.pgsize)} is not the smallest page, ${hex(page)}`;

/**
 * update_user_bitmap: bit n of the bitmap is the n-th page from `base`. Whole u64 words are written: a first word that the mapping shares with
 * an earlier one keeps what user space has in it. 0 or -EFAULT.
 *
 * Linux shifts the mapping's own bitmap into place and afterwards clears only as many bits as the mapping has pages. What was shifted beyond them, and what user
 * space had in the shared word, stays there and is told again at the next look: pages behind the mapping may seem dirty (the lab's random programs).
 */
export function writeDirty(
  iommu: VfioIommuType1,
  process: Process,
  bitmap: UserBitmap,
  dma: VfioDma,
  base: number,
): number {
  const page = iommu.smallestPage;
  const pages = dma.size / page;
  const offset = (dma.iova - base) / page;
  const shift = offset % 64;
  const at = userPointer(bitmap.data) + Math.floor(offset / 64) * 8;
  dma.dirty ??= new Uint8Array((Math.ceil(pages / 64) + 1) * 8);
  const words = dma.dirty.subarray(0, Math.ceil((shift + pages) / 64) * 8);
  setBits(words, 0, pages);
  if (shift !== 0) {
    shiftLeft(words, shift);
    const shared = new Uint8Array(8);
    if (!process.memory.copyIn(at, shared)) return fault(iommu);
    for (const [i, byte] of shared.entries()) words[i]! |= byte;
  }
  if (!process.memory.copyOut(at, words)) return fault(iommu);
  clearBits(words, pages);
  return 0;
}

/** Little-endian words as bytes, towards the higher bits; what leaves the last word is lost. */
function shiftLeft(words: Uint8Array, by: number): void {
  const [bytes, bits] = [by >>> 3, by & 7];
  for (let i = words.length - 1; i >= 0; i -= 1) {
    const high = words[i - bytes] ?? 0;
    const low = words[i - bytes - 1] ?? 0;
    words[i] = ((high << bits) | (low >>> (8 - bits))) & 0xff;
  }
}

/** The first `count` bits. */
function clearBits(words: Uint8Array, count: number): void {
  words.fill(0, 0, count >>> 3);
  if ((count & 7) !== 0) words[count >>> 3]! &= ~((1 << (count & 7)) - 1);
}

function setBits(words: Uint8Array, from: number, to: number): void {
  for (let byte = Math.floor(from / 8); byte * 8 < to; byte += 1) {
    const low = Math.max(from - byte * 8, 0);
    const high = Math.min(to - byte * 8, 8);
    words[byte] |= (1 << high) - (1 << low);
  }
}

const fault = (iommu: VfioIommuType1): number =>
  iommu.context.refusals.refuse('EFAULT', 'the bitmap is not accessible', 'data.bitmap.data');
