/** VFIO_IOMMU_UNMAP_DMA: vfio_iommu_type1_unmap_dma and vfio_dma_do_unmap, check for check. */
import { ADDRESS_LIMIT, fromU64, hex } from '../../ports/address.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { copyFromUser, copyToUser } from '../user-copy.ts';
import type { VfioDma } from './dma-list.ts';
import type { VfioIommuType1 } from './type1.ts';
import { checkBitmap, trackingIsOff, type UserBitmap, writeDirty, wrongPage } from './type1-dirty.ts';

const U64_MAX = 0xffff_ffff_ffff_ffffn;
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
  const dirty = (unmap.flags & GET_DIRTY) !== 0 ? readBitmap(iommu, process, argument, unmap) : null;
  if (typeof dirty === 'number') return dirty;
  const error = checkRange(iommu, unmap, dirty);
  if (error < 0) return error;
  const done = (unmap.flags & VADDR) !== 0 ? invalidate(iommu, unmap) : removeMappings(iommu, process, unmap, dirty);
  if (done < 0) return done;
  layout.patch(bytes, { size: BigInt(done) });
  if (copyToUser(process, argument, bytes)) return 0;
  return refusals.refuse('EFAULT', 'the argument is not writable', 'argument');
}

/** GET_DIRTY_BITMAP: the vfio_bitmap behind the struct, or -errno. */
function readBitmap(
  iommu: VfioIommuType1,
  process: Process,
  argument: bigint,
  unmap: UnmapRequest & { readonly argsz: number },
): UserBitmap | number {
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
  const error = checkBitmap(iommu, bitmap, unmap.size, 'data');
  return error < 0 ? error : bitmap;
}

function checkRange(iommu: VfioIommuType1, unmap: UnmapRequest, bitmap: UserBitmap | null): number {
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
  if (bitmap !== null) {
    if (!iommu.dirtyTracking) return trackingIsOff(iommu);
    if (bitmap.pgsize !== page) return refusals.refuse('EINVAL', wrongPage(bitmap, page), 'data.pgsize');
  }
  return iommu.v2 && (flags & ALL) === 0 ? checkBisection(iommu, unmap) : 0;
}

/** v2 never splits a mapping: both ends of the range have to meet the edges of what is mapped there. */
function checkBisection(iommu: VfioIommuType1, unmap: UnmapRequest): number {
  const bisected = iommu.bisected(fromU64(unmap.iova), fromU64(unmap.iova + unmap.size));
  return bisected === null ? 0 : iommu.context.refusals.refuse('EINVAL', `the range ${bisected.why}`, bisected.field);
}

/** The mappings that the range reaches. v1 takes those that start in it, whole, and none when it starts inside of one. */
function reached(iommu: VfioIommuType1, unmap: UnmapRequest): VfioDma[] {
  if ((unmap.flags & ALL) !== 0) return iommu.dmas.all();
  const iova = fromU64(unmap.iova);
  if (iova === null) return [];
  const found = iommu.dmas.within(iova, fromU64(unmap.iova + unmap.size) ?? ADDRESS_LIMIT);
  return !iommu.v2 && found.length > 0 && found[0].iova < iova ? [] : found;
}

/** With a bitmap, each mapping's pages are reported before it goes; a fault leaves the rest mapped. */
function removeMappings(
  iommu: VfioIommuType1,
  process: Process,
  unmap: UnmapRequest,
  bitmap: UserBitmap | null,
): number {
  let bytes = 0;
  for (const dma of reached(iommu, unmap)) {
    const error = bitmap === null ? 0 : writeDirty(iommu, process, bitmap, dma, Number(unmap.iova));
    if (error < 0) return error;
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
