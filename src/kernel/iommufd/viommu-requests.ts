/** VIOMMU_ALLOC, VDEVICE_ALLOC, VEVENTQ_ALLOC, HW_QUEUE_ALLOC, and invalidation for a virtual IOMMU (iommufd/viommu.c, eventq.c). */
import { hex } from '../../ports/address.ts';
import {
  iommu_viommu_arm_smmuv3_invalidate as commandLayout,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  type iommu_hw_queue_alloc,
  type iommu_hwpt_invalidate,
  type iommu_vdevice_alloc,
  type iommu_veventq_alloc,
  type iommu_viommu_alloc,
} from '../../uapi/iommufd.ts';
import { copyStructFromUser } from '../copy-struct.ts';
import { ArmSmmuV3Driver } from '../iommu/arm-smmu-v3/driver.ts';
import { dmaAliases } from '../iommu/pci-topology.ts';
import { IommufdDevice } from './device.ts';
import type { Request } from './dispatch.ts';
import { HwptPaging } from './hwpt.ts';
import { lowestFd } from './lowest-fd.ts';
import { spanOf } from './span.ts';
import { Vdevice } from './vdevice.ts';
import { VeventFile, VeventQueue } from './veventq.ts';
import { Viommu } from './viommu.ts';

/** VEVENTQ_MAX. */
const MAX_DEPTH = 2 ** 19;

export function viommuAlloc(ucmd: Request<typeof iommu_viommu_alloc>): number {
  const { cmd, ctx, refusals } = ucmd;
  if (cmd.flags !== 0 || cmd.type === 0) return noSuchType(ucmd);
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
  if (!device.igroup.group.canShare(parent.domain)) {
    return refusals.refuse('EINVAL', `HWPT ${parent.id} belongs to another SMMU than ${device.dev.name}`, 'hwpt_id');
  }
  const viommu = new Viommu(ctx, driver, parent);
  return finish(ucmd, viommu, ucmd.respond({ out_viommu_id: viommu.id }));
}

export function vdeviceAlloc(ucmd: Request<typeof iommu_vdevice_alloc>): number {
  const { cmd, ctx, refusals } = ucmd;
  const viommu = ctx.objects.get(cmd.viommu_id, Viommu, 'viommu_id');
  if (typeof viommu === 'number') return viommu;
  const device = ctx.objects.get(cmd.dev_id, IommufdDevice, 'dev_id');
  if (typeof device === 'number') return device;
  if (device.igroup.group.driver !== viommu.driver) {
    return refusals.refuse('EINVAL', `${device.dev.name} is behind another IOMMU than vIOMMU ${viommu.id}`, 'dev_id');
  }
  if (device.vdevice !== null) {
    return refusals.refuse('EEXIST', `${device.dev.name} is vDEVICE ${device.vdevice.id} already`, 'dev_id');
  }
  if (viommu.vdevices.has(cmd.virt_id)) {
    return refusals.refuse('EEXIST', `virt_id ${hex(cmd.virt_id)} is another device's`, 'virt_id');
  }
  if (dmaAliases(device.dev).length > 0) {
    return refusals.refuse('EOPNOTSUPP', `${device.dev.name} has more than one stream id`, 'dev_id');
  }
  const vdevice = new Vdevice(viommu, device, cmd.virt_id);
  return finish(ucmd, vdevice, ucmd.respond({ out_vdevice_id: vdevice.id }));
}

export function veventqAlloc(ucmd: Request<typeof iommu_veventq_alloc>): number {
  const { cmd, ctx, process, refusals } = ucmd;
  if (cmd.flags !== 0 || cmd.__reserved !== 0 || cmd.type === 0) return noSuchType(ucmd);
  if (cmd.veventq_depth === 0 || cmd.veventq_depth > MAX_DEPTH) {
    return refusals.refuse('EINVAL', `veventq_depth ${cmd.veventq_depth} is not in 1 to ${MAX_DEPTH}`, 'veventq_depth');
  }
  const viommu = ctx.objects.get(cmd.viommu_id, Viommu, 'viommu_id');
  if (typeof viommu === 'number') return viommu;
  if (viommu.queues.has(cmd.type)) {
    return refusals.refuse('EEXIST', `vIOMMU ${viommu.id} has a queue of type ${cmd.type}`, 'type');
  }
  const queue = new VeventQueue(viommu, cmd.type, cmd.veventq_depth);
  const fd = lowestFd(process);
  const fits = fd < process.limits.nofile;
  const answered = fits ? ucmd.respond({ out_veventq_id: queue.id, out_veventq_fd: fd }) : 0;
  return finish(ucmd, queue, answered < 0 ? answered : Math.min(process.install(new VeventFile(queue)), 0));
}

export function hwQueueAlloc(ucmd: Request<typeof iommu_hw_queue_alloc>): number {
  const { cmd, ctx, refusals } = ucmd;
  if (cmd.flags !== 0 || cmd.type === 0) return noSuchType(ucmd);
  if (cmd.length === 0n) return refusals.refuse('EINVAL', 'length is 0', 'length');
  if (spanOf(cmd.nesting_parent_iova, cmd.length) === null) {
    return refusals.refuse('EOVERFLOW', `${hex(cmd.nesting_parent_iova)} + ${hex(cmd.length)} wraps`, 'length');
  }
  const viommu = ctx.objects.get(cmd.viommu_id, Viommu, 'viommu_id');
  if (typeof viommu === 'number') return viommu;
  return refusals.refuse('EOPNOTSUPP', `vIOMMU ${viommu.id} has no queues in hardware`, 'type');
}

/** arm_vsmmu_cache_invalidate: how many of the entries were done, and why it ended. */
export function invalidateViommu(
  { cmd, process, refusals }: Request<typeof iommu_hwpt_invalidate>,
  viommu: Viommu,
): { readonly done: number; readonly error: number } {
  const refuse = (why: string, field: string) => ({ done: 0, error: refusals.refuse('EINVAL', why, field) });
  if (cmd.data_type !== IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3) {
    return refuse(`data_type ${cmd.data_type}: a virtual SMMU takes type 1`, 'data_type');
  }
  if (cmd.entry_num === 0) return refuse('entry_num is 0', 'entry_num');
  const converted: bigint[][] = [];
  let error = 0;
  for (let i = 0; i < cmd.entry_num && error === 0; i += 1) {
    const at = cmd.data_uptr + BigInt(i * cmd.entry_len);
    const bytes = copyStructFromUser(process, at, cmd.entry_len, commandLayout.size);
    if (typeof bytes === 'string') {
      // The whole array is read before anything is done.
      return { done: 0, error: refusals.refuse(bytes, `entry ${i} at ${hex(at)}`, 'data_uptr') };
    }
    const [first, second] = commandLayout.read(bytes).cmd;
    const words = viommu.convert([first, second]);
    if (typeof words === 'number') error = words;
    else converted.push(words);
  }
  if (converted.length > 0) viommu.issue(converted);
  return { done: converted.length, error };
}

/** An object that was made comes to stand, or goes again. */
function finish(
  { ctx }: { readonly ctx: Request<typeof iommu_viommu_alloc>['ctx'] },
  object: Viommu | Vdevice | VeventQueue,
  error: number,
): number {
  if (error === 0) {
    ctx.objects.finalize(object);
    return 0;
  }
  ctx.objects.abort(object);
  object.destroy();
  return error;
}

function noSuchType({
  cmd,
  refusals,
}: {
  readonly cmd: { readonly flags: number; readonly type: number };
  readonly refusals: Request<typeof iommu_viommu_alloc>['refusals'];
}): number {
  return refusals.refuse('EOPNOTSUPP', `flags ${hex(cmd.flags)}, type ${cmd.type}: no flags, and a type`, 'type');
}
