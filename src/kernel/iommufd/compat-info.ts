/** VFIO_IOMMU_GET_INFO of an IOAS (iommufd/vfio_compat.c): what fits is written, even when not all does. */
import * as uapi from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { copyToUser } from '../user-copy.ts';
import type { Ioas } from './ioas.ts';
import { higher, U64_MAX } from './span.ts';

const layout = uapi.vfio_iommu_type1_info;
const iovaCap = uapi.vfio_iommu_type1_info_cap_iova_range;
const availCap = uapi.vfio_iommu_type1_info_dma_avail;
/** iommufd counts no mappings; what VFIO gives as a u16 is as large as can be. */
const UNLIMITED = 0xffff_ffff;

/** `argsz` is what the user has room for. False is EFAULT. */
export function compatGetInfo(
  ioas: Ioas,
  pageSize: number,
  process: Process,
  argument: bigint,
  argsz: number,
): boolean {
  const ranges = ioas.iopt.usable();
  const iovaAt = layout.size + aligned(availCap.size);
  const total = iovaAt + iovaCap.size + ranges.length * uapi.vfio_iova_range.size;
  const writes: [number, Uint8Array][] = [];
  if (argsz >= layout.size + availCap.size) {
    const header = { id: uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1, next: argsz >= iovaAt ? iovaAt : 0 };
    writes.push([layout.size, availCap.bytes({ header, avail: UNLIMITED })]);
  }
  for (const [i, { start, last }] of ranges.entries()) {
    const at = iovaAt + iovaCap.size + i * uapi.vfio_iova_range.size;
    if (argsz >= at + uapi.vfio_iova_range.size) writes.push([at, uapi.vfio_iova_range.bytes({ start, end: last })]);
  }
  if (argsz >= total) {
    const header = { id: uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1, next: 0 };
    writes.push([iovaAt, iovaCap.bytes({ header, nr_iovas: ranges.length })]);
  }
  const info = layout.bytes({
    argsz: total,
    flags: uapi.VFIO_IOMMU_INFO_PGSIZES | uapi.VFIO_IOMMU_INFO_CAPS,
    iova_pgsizes: pageSizes(ioas, BigInt(pageSize)),
    cap_offset: argsz >= total ? layout.size : 0,
  });
  writes.push([0, info.subarray(0, Math.min(argsz, layout.size))]);
  return writes.every(([at, bytes]) => copyToUser(process, argument, bytes, at));
}

/** Each capability begins at a multiple of 8. */
const aligned = (size: number): number => Math.ceil(size / 8) * 8;

/** iommufd_get_pagesizes: what is smaller than a page is folded into it. */
function pageSizes(ioas: Ioas, page: bigint): bigint {
  let bitmap = U64_MAX;
  for (const domain of ioas.domains) bitmap &= domain.pageSizes.reduce((bits, size) => bits | BigInt(size), 0n);
  if (bitmap % page !== 0n) bitmap = (bitmap & ~(page - 1n)) | page;
  return higher(bitmap, ioas.iopt.alignment);
}
