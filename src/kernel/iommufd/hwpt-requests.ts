/** HWPT_ALLOC and what is asked of a page table: dirty tracking, invalidation (iommufd/hw_pagetable.c). */
import { hex } from '../../ports/address.ts';
import type { ErrnoName } from '../../uapi/errno.ts';
import {
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  type iommu_hwpt_alloc,
  type iommu_hwpt_get_dirty_bitmap,
  type iommu_hwpt_invalidate,
  type iommu_hwpt_set_dirty_tracking,
} from '../../uapi/iommufd.ts';
import { ArmSmmuV3Driver } from '../iommu/arm-smmu-v3/driver.ts';
import type { RefusalLog } from '../refusal.ts';
import { IommufdDevice } from './device.ts';
import { readAndClearDirtyData, setDirtyTrackingOf } from './dirty.ts';
import type { Request } from './dispatch.ts';
import { FaultQueue } from './fault.ts';
import type { Hwpt } from './group.ts';
import { HwptPaging } from './hwpt.ts';
import { HwptNested } from './hwpt-nested.ts';
import { Ioas } from './ioas.ts';
import { iommuOf } from './iommu-ops.ts';
import { type Invalidated, UserArray, UserData } from './user-data.ts';
import { Viommu } from './viommu.ts';

/** Linux bounds the array of HWPT_INVALIDATE. */
const MAX_ENTRIES = 2 ** 19;
const NESTED_FLAGS = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;

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

/** The parent decides what is made: a paging table over an IOAS, a nested one over a nest parent or a vIOMMU. */
function allocUnder(ucmd: HwptAlloc, device: IommufdDevice): Hwpt | number {
  const { cmd, ctx, process, refusals } = ucmd;
  const parent = ctx.objects.find(cmd.pt_id);
  const where = { process, refusals, type: cmd.data_type, address: cmd.data_uptr };
  const data = cmd.data_len === 0 ? null : new UserData(where, cmd.data_len);
  if (parent instanceof Ioas) return HwptPaging.alloc(device, parent, cmd.flags, data);
  if (parent instanceof Viommu) return allocUnderViommu(ucmd, device, parent, data);
  if (parent instanceof HwptPaging) return allocNested(ucmd, device, parent, data);
  const what = parent === null ? 'no object' : `of type ${parent.type}`;
  return refusals.refuse('EINVAL', `pt_id ${cmd.pt_id} is ${what}: no parent for a page table`, 'pt_id');
}

/** iommufd_hwpt_nested_alloc: over a nest parent. The SMMU's driver nests under a vIOMMU only. */
function allocNested(
  { cmd, refusals }: HwptAlloc,
  { dev, igroup }: IommufdDevice,
  parent: HwptPaging,
  data: UserData | null,
): HwptNested | number {
  const { driver, ops } = igroup.group;
  if (data === null || (cmd.flags & ~NESTED_FLAGS) !== 0) return noNestedFlags(refusals, cmd.flags);
  if (driver instanceof ArmSmmuV3Driver || (ops !== undefined && ops.allocNested === undefined)) {
    return refusals.refuse('EOPNOTSUPP', `the IOMMU of ${dev.name} nests under a vIOMMU only`, 'pt_id');
  }
  if (ops?.allocNested === undefined || parent.autoDomain || !parent.nestParent) {
    return refusals.refuse('EINVAL', `HWPT ${parent.id} was not made with NEST_PARENT`, 'pt_id');
  }
  if (!igroup.group.canShare(parent.domain)) {
    return refusals.refuse('EINVAL', `HWPT ${parent.id} belongs to another IOMMU than ${dev.name}`, 'pt_id');
  }
  const table = ops.allocNested(dev, parent.domain, cmd.flags & ~IOMMU_HWPT_FAULT_ID_VALID, data);
  return typeof table === 'number' ? table : new HwptNested(parent, null, table, isPasidCompat(cmd.flags));
}

/** iommufd_viommu_alloc_hwpt_nested. */
function allocUnderViommu(
  { cmd, refusals }: HwptAlloc,
  { dev, igroup }: IommufdDevice,
  viommu: Viommu,
  data: UserData | null,
): HwptNested | number {
  if (iommuOf(igroup.group) !== viommu.iommu) {
    return refusals.refuse('EINVAL', `${dev.name} is behind another IOMMU than vIOMMU ${viommu.id}`, 'dev_id');
  }
  if (data === null || (cmd.flags & ~NESTED_FLAGS) !== 0) return noNestedFlags(refusals, cmd.flags);
  const table = viommu.allocNested(cmd.flags & ~IOMMU_HWPT_FAULT_ID_VALID, data);
  return typeof table === 'number' ? table : new HwptNested(viommu.parent, viommu, table, isPasidCompat(cmd.flags));
}

const isPasidCompat = (flags: number): boolean => (flags & IOMMU_HWPT_ALLOC_PASID) !== 0;

function noNestedFlags(refusals: RefusalLog, flags: number): number {
  const why = `a nested page table takes data, and FAULT_ID_VALID and PASID for flags; flags are ${hex(flags)}`;
  return refusals.refuse('EOPNOTSUPP', why, 'flags');
}

function useFaultQueue({ cmd, ctx }: HwptAlloc, hwpt: Hwpt): number {
  const fault = ctx.objects.get(cmd.fault_id, FaultQueue, 'fault_id');
  if (typeof fault === 'number') return fault;
  fault.users += 1;
  hwpt.fault = fault;
  return 0;
}

export function setDirtyTracking(ucmd: Request<typeof iommu_hwpt_set_dirty_tracking>): number {
  const { cmd, ctx, refusals } = ucmd;
  if ((cmd.flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0) {
    return refusals.refuse('EOPNOTSUPP', `flags ${hex(cmd.flags)} has unknown bits`, 'flags');
  }
  const hwpt = ctx.objects.get(cmd.hwpt_id, HwptPaging, 'hwpt_id');
  if (typeof hwpt === 'number') return hwpt;
  const enable = (cmd.flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0;
  return setDirtyTrackingOf(ctx.context, hwpt.ioas.iopt, hwpt.domain, enable);
}

export function getDirtyBitmap(ucmd: Request<typeof iommu_hwpt_get_dirty_bitmap>): number {
  const { cmd, ctx, refusals } = ucmd;
  if ((cmd.flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0 || cmd.__reserved !== 0) {
    return refusals.refuse('EOPNOTSUPP', `flags ${hex(cmd.flags)} or __reserved has unknown bits`, 'flags');
  }
  const hwpt = ctx.objects.get(cmd.hwpt_id, HwptPaging, 'hwpt_id');
  if (typeof hwpt === 'number') return hwpt;
  const range = { iova: cmd.iova, length: cmd.length, pageSize: cmd.page_size, data: cmd.data };
  const noClear = (cmd.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0;
  return readAndClearDirtyData(ctx.context, ucmd.process, hwpt.ioas.iopt, hwpt.domain, range, noClear);
}

/** entry_num is written back also on an error: how many entries were done. */
export function hwptInvalidate(ucmd: Invalidate): number {
  const { done, error } = invalidate(ucmd);
  const written = ucmd.respond({ entry_num: done });
  return written < 0 ? written : error;
}

type Invalidate = Request<typeof iommu_hwpt_invalidate>;

function invalidate(ucmd: Invalidate): Invalidated {
  const { cmd, ctx, refusals } = ucmd;
  const refuse = (code: ErrnoName, why: string, field: string) => ({
    done: 0,
    error: refusals.refuse(code, why, field),
  });
  if (cmd.__reserved !== 0) return refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  const some = cmd.entry_num !== 0;
  if (some && (cmd.data_uptr === 0n || cmd.entry_len === 0)) {
    return refuse('EINVAL', `${cmd.entry_num} entries without data_uptr or entry_len`, 'entry_len');
  }
  if (some && (cmd.entry_len > ctx.context.pageSize || cmd.entry_num > MAX_ENTRIES)) {
    return refuse('EINVAL', `${cmd.entry_num} entries of ${cmd.entry_len} bytes are too many or too long`, 'entry_num');
  }
  const object = ctx.objects.find(cmd.hwpt_id);
  if (object === null) return refuse('ENOENT', `hwpt_id ${cmd.hwpt_id} is no object`, 'hwpt_id');
  const where = { process: ucmd.process, refusals, type: cmd.data_type, address: cmd.data_uptr };
  const array = new UserArray(where, cmd.entry_len, cmd.entry_num);
  if (object instanceof Viommu) return object.invalidate(array);
  if (object instanceof HwptNested) {
    const answer = object.domain.invalidate?.(array);
    return (
      answer ?? refuse('EOPNOTSUPP', 'a nested page table of the SMMU is invalidated through its vIOMMU', 'hwpt_id')
    );
  }
  const why = `object ${cmd.hwpt_id} is of type ${object.type}: the kernel itself invalidates for it`;
  return refuse('EINVAL', why, 'hwpt_id');
}
