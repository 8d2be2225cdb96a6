/** VFIO_IOMMU_UNMAP_DMA: vfio_iommu_type1_unmap_dma and vfio_dma_do_unmap, check for check. */
import { ADDRESS_LIMIT, fromU64, hex } from '../../ports/address.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { copyFromUser, copyToUser } from '../user-copy.ts';
import type { VfioDma } from './dma-list.ts';
import type { VfioIommuType1 } from './type1.ts';

const U64_MAX = 0xffff_ffff_ffff_ffffn;
/** DIRTY_BITMAP_SIZE_MAX, in bytes. */
const MAX_BITMAP = 2n ** 28n;
const GET_DIRTY = uapi.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
const ALL = uapi.VFIO_DMA_UNMAP_FLAG_ALL;
const VADDR = uapi.VFIO_DMA_UNMAP_FLAG_VADDR;

interface UnmapRequest {
  readonly flags: number;
  readonly iova: bigint;
  readonly size: bigint;
}

export function unmapDma(iommu: VfioIommuType1, process: Process, argument: bigint): number {
  const { refusals } = iommu.context;
  const layout = uapi.vfio_iommu_type1_dma_unmap;
  const bytes = copyFromUser(process, argument, layout.size);
  if (bytes === null)
    return refusals.refuse('EFAULT', `the ${layout.size} bytes of the argument are not readable`, 'argument');
  const unmap = layout.read(bytes);
  if (unmap.argsz < layout.size)
    return refusals.refuse('EINVAL', `argsz ${unmap.argsz} is less than ${layout.size}`, 'argsz');
  if ((unmap.flags & ~(GET_DIRTY | ALL | VADDR)) !== 0) {
    return refusals.refuse('EINVAL', `flags ${hex(unmap.flags)} has unknown bits`, 'flags');
  }
  const dirty = (unmap.flags & GET_DIRTY) !== 0 ? checkBitmap(iommu, process, argument, unmap) : 0;
  if (dirty < 0) return dirty;
  const error = checkRange(iommu, unmap);
  if (error < 0) return error;
  const done = (unmap.flags & VADDR) !== 0 ? invalidate(iommu, unmap) : removeMappings(iommu, unmap);
  if (done < 0) return done;
  layout.patch(bytes, { size: BigInt(done) });
  if (copyToUser(process, argument, bytes)) return 0;
  return refusals.refuse('EFAULT', 'the argument is not writable', 'argument');
}

/** GET_DIRTY_BITMAP: the vfio_bitmap behind the struct. */
function checkBitmap(
  iommu: VfioIommuType1,
  process: Process,
  argument: bigint,
  unmap: UnmapRequest & { readonly argsz: number },
): number {
  const { refusals } = iommu.context;
  if ((unmap.flags & (ALL | VADDR)) !== 0) {
    return refusals.refuse('EINVAL', 'GET_DIRTY_BITMAP goes with neither ALL nor VADDR', 'flags');
  }
  const { size: head } = uapi.vfio_iommu_type1_dma_unmap;
  const { size } = uapi.vfio_bitmap;
  if (unmap.argsz < head + size)
    return refusals.refuse('EINVAL', `argsz ${unmap.argsz} is less than ${head + size}`, 'argsz');
  const bytes = copyFromUser(process, argument, size, head);
  if (bytes === null) return refusals.refuse('EFAULT', 'the vfio_bitmap behind the struct is not readable', 'data');
  const bitmap = uapi.vfio_bitmap.read(bytes);
  const pages = bitmap.pgsize === 0n ? 0n : unmap.size / (bitmap.pgsize & -bitmap.pgsize);
  const needed = ((pages + 63n) / 64n) * 8n;
  if (pages === 0n || bitmap.size === 0n || bitmap.size > MAX_BITMAP || bitmap.size < needed) {
    const why = `a bitmap of ${bitmap.size} bytes for ${pages} pages of ${hex(bitmap.pgsize)}; ${needed} are needed`;
    return refusals.refuse('EINVAL', why, 'data.size');
  }
  return 0;
}

function checkRange(iommu: VfioIommuType1, unmap: UnmapRequest): number {
  const { refusals } = iommu.context;
  const page = BigInt(iommu.smallestPage);
  const { iova, size, flags } = unmap;
  if (iova % page !== 0n) {
    return refusals.refuse('EINVAL', `iova ${hex(iova)} is not a multiple of the smallest page, ${hex(page)}`, 'iova');
  }
  if ((flags & ALL) !== 0) {
    if (iova !== 0n || size !== 0n) return refusals.refuse('EINVAL', 'with ALL both iova and size are 0', 'size');
  } else {
    if (size === 0n) return refusals.refuse('EINVAL', 'size is 0', 'size');
    if (size % page !== 0n) {
      return refusals.refuse(
        'EINVAL',
        `size ${hex(size)} is not a multiple of the smallest page, ${hex(page)}`,
        'size',
      );
    }
    if (iova + size - 1n > U64_MAX)
      return refusals.refuse('EOVERFLOW', `iova ${hex(iova)} + ${hex(size)} wraps`, 'iova');
  }
  if ((flags & GET_DIRTY) !== 0) return refusals.refuse('EINVAL', 'dirty page tracking is off', 'flags');
  return iommu.v2 && (flags & ALL) === 0 ? checkBisection(iommu, unmap) : 0;
}

/** v2 never splits a mapping: both ends of the range have to meet the edges of what is mapped there. */
function checkBisection(iommu: VfioIommuType1, unmap: UnmapRequest): number {
  const { refusals } = iommu.context;
  const iova = fromU64(unmap.iova);
  const end = fromU64(unmap.iova + unmap.size);
  const first = iova === null ? null : iommu.dmas.at(iova);
  if (first !== null && first.iova !== iova) return refusals.refuse('EINVAL', bisects(first), 'iova');
  const last = end === null ? null : iommu.dmas.at(end - 1);
  if (last !== null && last.iova + last.size !== end) return refusals.refuse('EINVAL', bisects(last), 'size');
  return 0;
}

/** The mappings that the range reaches. v1 takes those that start in it, whole, and none when it starts inside of one. */
function reached(iommu: VfioIommuType1, unmap: UnmapRequest): VfioDma[] {
  if ((unmap.flags & ALL) !== 0) return iommu.dmas.all();
  const iova = fromU64(unmap.iova);
  if (iova === null) return [];
  const found = iommu.dmas.within(iova, fromU64(unmap.iova + unmap.size) ?? ADDRESS_LIMIT);
  return !iommu.v2 && found.length > 0 && found[0].iova < iova ? [] : found;
}

function removeMappings(iommu: VfioIommuType1, unmap: UnmapRequest): number {
  let bytes = 0;
  for (const dma of reached(iommu, unmap)) {
    bytes += dma.size;
    iommu.removeDma(dma);
  }
  return bytes;
}

/** VADDR: the mappings stay, their vaddr is invalid until MAP_DMA(VADDR) gives another. All or none. */
function invalidate(iommu: VfioIommuType1, unmap: UnmapRequest): number {
  const found = reached(iommu, unmap);
  const again = found.find((dma) => dma.vaddrInvalid);
  if (again !== undefined) {
    return iommu.context.refusals.refuse(
      'EINVAL',
      `the vaddr of the mapping at iova ${hex(again.iova)} is invalid already`,
      'iova',
    );
  }
  for (const dma of found) dma.vaddrInvalid = true;
  iommu.vaddrInvalidCount += found.length;
  return found.reduce((bytes, dma) => bytes + dma.size, 0);
}

const bisects = (dma: VfioDma): string =>
  `the range would split the mapping at iova ${hex(dma.iova)} + ${hex(dma.size)}`;
