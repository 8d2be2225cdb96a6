/** VFIO_IOMMU_GET_INFO of a type1 container: page sizes, and a chain that says what may be mapped. */
import * as uapi from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { copyFromUser, copyToUser } from '../user-copy.ts';
import { CapChain } from './cap-chain.ts';
import type { VfioIommuType1 } from './type1.ts';

/** DIRTY_BITMAP_SIZE_MAX: 2^31 bits. */
const MAX_DIRTY_BITMAP = 2 ** 28;

export function getInfo(iommu: VfioIommuType1, process: Process, argument: bigint): number {
  const { refusals } = iommu.context;
  const layout = uapi.vfio_iommu_type1_info;
  const minimum = layout.endOf('iova_pgsizes');
  const head = copyFromUser(process, argument, minimum);
  if (head === null)
    return refusals.refuse('EFAULT', `the first ${minimum} bytes of the argument are not readable`, 'argument');
  const { argsz } = layout.readShort(head);
  if (argsz < minimum) return refusals.refuse('EINVAL', `argsz ${argsz} is less than ${minimum}`, 'argsz');
  const chain = capabilities(iommu);
  const fits = argsz >= layout.size + chain.size;
  const info = layout.bytes({
    argsz: fits ? argsz : layout.size + chain.size,
    flags: uapi.VFIO_IOMMU_INFO_PGSIZES | uapi.VFIO_IOMMU_INFO_CAPS,
    iova_pgsizes: iommu.pageSizeBitmap,
    cap_offset: fits ? layout.size : 0,
  });
  const written =
    (!fits || copyToUser(process, argument, chain.bytes(layout.size), layout.size)) &&
    copyToUser(process, argument, info.subarray(0, Math.min(argsz, layout.size)));
  return written ? 0 : refusals.refuse('EFAULT', 'the argument is not writable', 'argument');
}

/** In the order in which Linux makes them. */
function capabilities(iommu: VfioIommuType1): CapChain {
  const chain = new CapChain();
  const migration = uapi.vfio_iommu_type1_info_cap_migration.bytes({
    pgsize_bitmap: iommu.smallestPage,
    max_dirty_bitmap_size: MAX_DIRTY_BITMAP,
  });
  chain.add(uapi.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, 1, migration);
  const available = uapi.vfio_iommu_type1_info_dma_avail.bytes({ avail: iommu.dmaAvail });
  chain.add(uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 1, available);
  if (iommu.iovas.empty) return chain;
  const ranges = iommu.iovas.ranges.map(({ start, end }) => ({ start: BigInt(start), end: BigInt(end) }));
  const iovas = uapi.vfio_iommu_type1_info_cap_iova_range.bytes({ nr_iovas: ranges.length, iova_ranges: ranges });
  chain.add(uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1, iovas);
  return chain;
}
