/** HWPT_ALLOC and what is asked of a page table: dirty tracking, invalidation (iommufd/hw_pagetable.c). */
import { hex } from '../../ports/address.ts';
import type { ErrnoName } from '../../uapi/errno.ts';
import {
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  type iommu_hwpt_alloc,
  iommu_hwpt_arm_smmuv3,
  type iommu_hwpt_get_dirty_bitmap,
  type iommu_hwpt_invalidate,
  type iommu_hwpt_set_dirty_tracking,
} from '../../uapi/iommufd.ts';
import { copyStructFromUser } from '../copy-struct.ts';
import { ArmSmmuV3Driver } from '../iommu/arm-smmu-v3/driver.ts';
import type { RefusalLog } from '../refusal.ts';
import { IommufdDevice } from './device.ts';
import type { Request } from './dispatch.ts';
import { FaultQueue } from './fault.ts';
import type { Hwpt } from './group.ts';
import { HwptPaging } from './hwpt.ts';
import { HwptNested } from './hwpt-nested.ts';
import { Ioas } from './ioas.ts';
import { Viommu } from './viommu.ts';
import { invalidateViommu } from './viommu-requests.ts';

/** Linux bounds the array of HWPT_INVALIDATE. */
const MAX_ENTRIES = 2 ** 19;

type HwptAlloc = Request<typeof iommu_hwpt_alloc>;

export function hwptAlloc(ucmd: HwptAlloc): number {
  const { cmd, ctx, refusals } = ucmd;
  if (cmd.__reserved !== 0) return refusals.refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  if ((cmd.data_type === IOMMU_HWPT_DATA_NONE) !== (cmd.data_len === 0)) {
    const why = `data_type ${cmd.data_type} with data_len ${cmd.data_len}: data and type go together`;
    return refusals.refuse('EINVAL', why, 'data_len');
  }
  const device = ctx.objects.get(cmd.dev_id, IommufdDevice, 'dev_id');
  if (typeof device === 'number') return device;
  const hwpt = allocUnder(ucmd, device);
  if (typeof hwpt === 'number') return hwpt;
  const fault = (cmd.flags & IOMMU_HWPT_FAULT_ID_VALID) === 0 ? 0 : useFaultQueue(ucmd, hwpt);
  const error = fault < 0 ? fault : ucmd.respond({ out_hwpt_id: hwpt.id });
  if (error < 0) {
    ctx.objects.abort(hwpt);
    hwpt.destroy();
    return error;
  }
  ctx.objects.finalize(hwpt);
  return 0;
}

/** The parent decides what is made: a paging table over an IOAS; over a nest parent or a vIOMMU it would be a nested one. */
function allocUnder(ucmd: HwptAlloc, device: IommufdDevice): Hwpt | number {
  const { cmd, ctx, refusals } = ucmd;
  const parent = ctx.objects.find(cmd.pt_id);
  if (parent instanceof Ioas) {
    const known = cmd.data_len === 0;
    if (known) return HwptPaging.alloc(device, parent, cmd.flags);
    const why = `data_type ${cmd.data_type}: a page table over an IOAS takes no data of the driver's`;
    return refusals.refuse('EOPNOTSUPP', why, 'data_type');
  }
  if (parent instanceof Viommu) return allocNested(ucmd, device, parent);
  if (!(parent instanceof HwptPaging)) {
    const what = parent === null ? 'no object' : `of type ${parent.type}`;
    return refusals.refuse('EINVAL', `pt_id ${cmd.pt_id} is ${what}: no parent for a page table`, 'pt_id');
  }
  return refuseNested(ucmd, device, parent);
}

/** iommufd_hwpt_nested_alloc over a page table: the SMMU's driver nests under a vIOMMU only, and no other IOMMU here nests. */
function refuseNested({ cmd, refusals }: HwptAlloc, device: IommufdDevice, parent: HwptPaging): number {
  const known = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;
  if (cmd.data_len === 0 || (cmd.flags & ~known) !== 0) {
    const why = `a nested page table takes data, and FAULT_ID_VALID and PASID for flags; flags are ${hex(cmd.flags)}`;
    return refusals.refuse('EOPNOTSUPP', why, 'flags');
  }
  if (device.igroup.group.driver instanceof ArmSmmuV3Driver) {
    return refusals.refuse('EOPNOTSUPP', `the IOMMU of ${device.dev.name} nests under a vIOMMU only`, 'pt_id');
  }
  return refusals.refuse('EINVAL', `HWPT ${parent.id} was not made with NEST_PARENT`, 'pt_id');
}

/** iommufd_viommu_alloc_hwpt_nested, arm_vsmmu_alloc_domain_nested. */
function allocNested(
  { cmd, process, refusals }: HwptAlloc,
  device: IommufdDevice,
  viommu: Viommu,
): HwptNested | number {
  if (device.igroup.group.driver !== viommu.driver) {
    return refusals.refuse('EINVAL', `${device.dev.name} is behind another IOMMU than vIOMMU ${viommu.id}`, 'dev_id');
  }
  if ((cmd.flags & ~IOMMU_HWPT_FAULT_ID_VALID) !== 0 || cmd.data_len === 0) {
    const why = `a nested page table takes data, and FAULT_ID_VALID for a flag; flags are ${hex(cmd.flags)}`;
    return refusals.refuse('EOPNOTSUPP', why, 'flags');
  }
  if (cmd.data_type !== IOMMU_HWPT_DATA_ARM_SMMUV3) {
    return refusals.refuse('EINVAL', `data_type ${cmd.data_type} is not ARM_SMMUV3, 2`, 'data_type');
  }
  // Unlike a request's own struct, a driver's data may not be longer than what the driver knows, whatever stands behind.
  if (cmd.data_len !== iommu_hwpt_arm_smmuv3.size) {
    const why = `data_len ${cmd.data_len} is not the ${iommu_hwpt_arm_smmuv3.size} bytes of an entry`;
    return refusals.refuse('EINVAL', why, 'data_len');
  }
  const bytes = copyStructFromUser(process, cmd.data_uptr, cmd.data_len, iommu_hwpt_arm_smmuv3.size);
  if (typeof bytes === 'string') return refusals.refuse(bytes, `the entry at ${hex(cmd.data_uptr)}`, 'data_uptr');
  const [first, second] = iommu_hwpt_arm_smmuv3.read(bytes).ste;
  const domain = viommu.nestedDomain([first, second]);
  return typeof domain === 'number' ? domain : new HwptNested(viommu, domain);
}

function useFaultQueue({ cmd, ctx }: HwptAlloc, hwpt: Hwpt): number {
  const fault = ctx.objects.get(cmd.fault_id, FaultQueue, 'fault_id');
  if (typeof fault === 'number') return fault;
  fault.users += 1;
  hwpt.onDestroy = () => {
    fault.users -= 1;
  };
  return 0;
}

export function setDirtyTracking(ucmd: Request<typeof iommu_hwpt_set_dirty_tracking>): number {
  const { cmd, ctx, refusals } = ucmd;
  if ((cmd.flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0) {
    return refusals.refuse('EOPNOTSUPP', `flags ${hex(cmd.flags)} has unknown bits`, 'flags');
  }
  return noDirtyTracking(ucmd, ctx.objects.get(cmd.hwpt_id, HwptPaging, 'hwpt_id'));
}

export function getDirtyBitmap(ucmd: Request<typeof iommu_hwpt_get_dirty_bitmap>): number {
  const { cmd, ctx, refusals } = ucmd;
  if ((cmd.flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0 || cmd.__reserved !== 0) {
    return refusals.refuse('EOPNOTSUPP', `flags ${hex(cmd.flags)} or __reserved has unknown bits`, 'flags');
  }
  return noDirtyTracking(ucmd, ctx.objects.get(cmd.hwpt_id, HwptPaging, 'hwpt_id'));
}

/** No IOMMU here has HTTU or SSADS, so that a table that tracks could not be made. */
function noDirtyTracking({ refusals }: { readonly refusals: RefusalLog }, hwpt: HwptPaging | number): number {
  if (typeof hwpt === 'number') return hwpt;
  return refusals.refuse('EOPNOTSUPP', `the page table of HWPT ${hwpt.id} does not track dirty pages`, 'hwpt_id');
}

/** entry_num is written back also on an error: how many entries were done. */
export function hwptInvalidate(ucmd: Invalidate): number {
  const { done, error } = invalidate(ucmd);
  const written = ucmd.respond({ entry_num: done });
  return written < 0 ? written : error;
}

type Invalidate = Request<typeof iommu_hwpt_invalidate>;

function invalidate(ucmd: Invalidate): { readonly done: number; readonly error: number } {
  const { cmd, ctx, refusals } = ucmd;
  const refuse = (code: ErrnoName, why: string, field: string) => ({
    done: 0,
    error: refusals.refuse(code, why, field),
  });
  if (cmd.__reserved !== 0) return refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  if (cmd.entry_num !== 0 && (cmd.data_uptr === 0n || cmd.entry_len === 0)) {
    return refuse('EINVAL', `${cmd.entry_num} entries without data_uptr or entry_len`, 'entry_len');
  }
  if (cmd.entry_len > ctx.context.pageSize || cmd.entry_num > MAX_ENTRIES) {
    return refuse('EINVAL', `${cmd.entry_num} entries of ${cmd.entry_len} bytes are too many or too long`, 'entry_num');
  }
  const object = ctx.objects.find(cmd.hwpt_id);
  if (object === null) return refuse('ENOENT', `hwpt_id ${cmd.hwpt_id} is no object`, 'hwpt_id');
  if (object instanceof Viommu) return invalidateViommu(ucmd, object);
  if (object instanceof HwptNested) {
    return refuse('EOPNOTSUPP', 'a nested page table of the SMMU is invalidated through its vIOMMU', 'hwpt_id');
  }
  const why = `object ${cmd.hwpt_id} is of type ${object.type}: the kernel itself invalidates for it`;
  return refuse('EINVAL', why, 'hwpt_id');
}
