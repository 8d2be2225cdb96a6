/** Virtual IOMMUs, their devices and queues (iommufd/viommu.c, eventq.c): the checks of the request stand; the objects are not built. */
import { hex } from '../../ports/address.ts';
import {
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  type iommu_hw_queue_alloc,
  type iommu_vdevice_alloc,
  type iommu_veventq_alloc,
  type iommu_viommu_alloc,
} from '../../uapi/iommufd.ts';
import { ArmSmmuV3Driver } from '../iommu/arm-smmu-v3/driver.ts';
import type { RefusalLog } from '../refusal.ts';
import { IommufdDevice } from './device.ts';
import type { Request } from './dispatch.ts';
import { HwptPaging } from './hwpt.ts';
import { spanOf } from './span.ts';

/** VEVENTQ_MAX. */
const MAX_DEPTH = 2 ** 19;

const noViommu = (refusals: RefusalLog, id: number): number =>
  refusals.refuse('ENOENT', `viommu_id ${id} is no vIOMMU`, 'viommu_id');

export function viommuAlloc({ cmd, ctx, refusals }: Request<typeof iommu_viommu_alloc>): number {
  if (cmd.flags !== 0 || cmd.type === 0) {
    return refusals.refuse(
      'EOPNOTSUPP',
      `flags ${hex(cmd.flags)}, type ${cmd.type}: 0 and a type are asked for`,
      'type',
    );
  }
  const device = ctx.objects.get(cmd.dev_id, IommufdDevice, 'dev_id');
  if (typeof device === 'number') return device;
  const { driver } = device.igroup.group;
  if (!(driver instanceof ArmSmmuV3Driver) || cmd.type !== IOMMU_VIOMMU_TYPE_ARM_SMMUV3) {
    return refusals.refuse('EOPNOTSUPP', `the IOMMU of ${device.dev.name} has no vIOMMU of type ${cmd.type}`, 'type');
  }
  const { stage1, stage2, s2fwb } = driver.probe;
  if (!stage1 || !stage2 || !(s2fwb || driver.canwbs)) {
    const why = `the SMMU of ${device.dev.name} needs both stages, and S2FWB or the firmware's CANWBS, for a vIOMMU`;
    return refusals.refuse('EOPNOTSUPP', why, 'type');
  }
  const parent = ctx.objects.get(cmd.hwpt_id, HwptPaging, 'hwpt_id');
  if (typeof parent === 'number') return parent;
  if (!parent.nestParent) {
    return refusals.refuse('EINVAL', `HWPT ${parent.id} was not made with NEST_PARENT`, 'hwpt_id');
  }
  return refusals.refuse('EOPNOTSUPP', 'virtual IOMMUs exist in Linux 7.2 but are not built in this kernel', 'type');
}

export const vdeviceAlloc = ({ cmd, refusals }: Request<typeof iommu_vdevice_alloc>): number =>
  noViommu(refusals, cmd.viommu_id);

export function veventqAlloc({ cmd, refusals }: Request<typeof iommu_veventq_alloc>): number {
  if (cmd.flags !== 0 || cmd.__reserved !== 0 || cmd.type === 0) {
    return refusals.refuse(
      'EOPNOTSUPP',
      `flags ${hex(cmd.flags)}, type ${cmd.type}: 0 and a type are asked for`,
      'type',
    );
  }
  if (cmd.veventq_depth === 0 || cmd.veventq_depth > MAX_DEPTH) {
    return refusals.refuse('EINVAL', `veventq_depth ${cmd.veventq_depth} is not in 1 to ${MAX_DEPTH}`, 'veventq_depth');
  }
  return noViommu(refusals, cmd.viommu_id);
}

export function hwQueueAlloc({ cmd, refusals }: Request<typeof iommu_hw_queue_alloc>): number {
  if (cmd.flags !== 0 || cmd.type === 0) {
    return refusals.refuse(
      'EOPNOTSUPP',
      `flags ${hex(cmd.flags)}, type ${cmd.type}: 0 and a type are asked for`,
      'type',
    );
  }
  if (cmd.length === 0n) return refusals.refuse('EINVAL', 'length is 0', 'length');
  if (spanOf(cmd.nesting_parent_iova, cmd.length) === null) {
    return refusals.refuse('EOVERFLOW', `${hex(cmd.nesting_parent_iova)} + ${hex(cmd.length)} wraps`, 'length');
  }
  return noViommu(refusals, cmd.viommu_id);
}
