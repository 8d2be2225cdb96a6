/** /dev/iommu: each open file is a context of its own (iommufd/main.c). */
import * as uapi from '../../uapi/iommufd.ts';
import type { KernelContext } from '../context.ts';
import type { File, FileMapping, MapRequest } from '../files.ts';
import type { Process } from '../process.ts';
import { IommufdContext } from './context.ts';
import { dispatch, type Op, op, type Request } from './dispatch.ts';
import { faultQueueAlloc } from './fault.ts';
import { getHwInfo } from './hw-info.ts';
import { getDirtyBitmap, hwptAlloc, hwptInvalidate, setDirtyTracking } from './hwpt-requests.ts';
import { ioasAlloc, ioasAllowIovas, ioasChangeProcess, ioasIovaRanges, vfioIoas } from './ioas-requests.ts';
import { ioasCopy, ioasMap, ioasMapFile, ioasUnmap } from './map-requests.ts';
import { option } from './option.ts';
import { vfioCompat } from './vfio-compat.ts';
import { hwQueueAlloc, vdeviceAlloc, veventqAlloc, viommuAlloc } from './viommu-requests.ts';

const destroy = ({ cmd, ctx }: Request<typeof uapi.iommu_destroy>): number => ctx.objects.remove(cmd.id);

const OPS: readonly Op[] = [
  op(uapi.IOMMU_DESTROY, uapi.iommu_destroy, 'id', destroy),
  op(uapi.IOMMU_IOAS_ALLOC, uapi.iommu_ioas_alloc, 'out_ioas_id', ioasAlloc),
  op(uapi.IOMMU_IOAS_ALLOW_IOVAS, uapi.iommu_ioas_allow_iovas, 'allowed_iovas', ioasAllowIovas),
  op(uapi.IOMMU_IOAS_COPY, uapi.iommu_ioas_copy, 'src_iova', ioasCopy),
  op(uapi.IOMMU_IOAS_IOVA_RANGES, uapi.iommu_ioas_iova_ranges, 'out_iova_alignment', ioasIovaRanges),
  op(uapi.IOMMU_IOAS_MAP, uapi.iommu_ioas_map, 'iova', ioasMap),
  op(uapi.IOMMU_IOAS_UNMAP, uapi.iommu_ioas_unmap, 'length', ioasUnmap),
  op(uapi.IOMMU_OPTION, uapi.iommu_option, 'val64', option),
  op(uapi.IOMMU_VFIO_IOAS, uapi.iommu_vfio_ioas, '__reserved', vfioIoas),
  op(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, '__reserved', hwptAlloc),
  op(uapi.IOMMU_GET_HW_INFO, uapi.iommu_hw_info, '__reserved', getHwInfo),
  op(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, uapi.iommu_hwpt_set_dirty_tracking, '__reserved', setDirtyTracking),
  op(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, uapi.iommu_hwpt_get_dirty_bitmap, 'data', getDirtyBitmap),
  op(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommu_hwpt_invalidate, '__reserved', hwptInvalidate),
  op(uapi.IOMMU_FAULT_QUEUE_ALLOC, uapi.iommu_fault_alloc, 'out_fault_fd', faultQueueAlloc),
  op(uapi.IOMMU_IOAS_MAP_FILE, uapi.iommu_ioas_map_file, 'iova', ioasMapFile),
  op(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, 'out_viommu_id', viommuAlloc),
  op(uapi.IOMMU_VDEVICE_ALLOC, uapi.iommu_vdevice_alloc, 'virt_id', vdeviceAlloc),
  op(uapi.IOMMU_IOAS_CHANGE_PROCESS, uapi.iommu_ioas_change_process, '__reserved', ioasChangeProcess),
  op(uapi.IOMMU_VEVENTQ_ALLOC, uapi.iommu_veventq_alloc, 'out_veventq_fd', veventqAlloc),
  op(uapi.IOMMU_HW_QUEUE_ALLOC, uapi.iommu_hw_queue_alloc, 'length', hwQueueAlloc),
];

const NUMBER_MASK = 0xff;
const BY_NUMBER = new Map(OPS.map((entry) => [entry.request & NUMBER_MASK, entry]));
const LAST = Math.max(...BY_NUMBER.keys());

export class IommufdFile implements File {
  readonly name = '/dev/iommu';
  readonly kind = 'iommufd';
  readonly ctx: IommufdContext;

  constructor(context: KernelContext) {
    this.ctx = new IommufdContext(context, this);
  }

  /** Below and above iommufd's own numbers are VFIO's of a container. */
  ioctl(process: Process, request: number, argument: bigint): number {
    const number = request & NUMBER_MASK;
    if (number < uapi.IOMMUFD_CMD_BASE || number > LAST) return vfioCompat(this.ctx, process, request, argument);
    return dispatch(this.ctx, BY_NUMBER.get(number), process, request, argument);
  }

  mmap(_process: Process, offset: number, length: number, write: boolean, how?: MapRequest): FileMapping | number {
    return this.ctx.mmaps.map(offset, length, how ?? { shared: true, prot: write ? 3 : 1 });
  }

  release(): void {
    this.ctx.objects.destroyAll();
  }
}
