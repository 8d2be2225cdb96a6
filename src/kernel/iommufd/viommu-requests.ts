/** VIOMMU_ALLOC, VDEVICE_ALLOC, VEVENTQ_ALLOC, HW_QUEUE_ALLOC (iommufd/viommu.c, eventq.c). */
import { hex } from '../../ports/address.ts';
import {
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  type iommu_hw_queue_alloc,
  type iommu_vdevice_alloc,
  type iommu_veventq_alloc,
  type iommu_viommu_alloc,
} from '../../uapi/iommufd.ts';
import { ArmSmmuV3Driver } from '../iommu/arm-smmu-v3/driver.ts';
import { ArmVsmmu } from './arm-vsmmu.ts';
import { IommufdDevice } from './device.ts';
import type { Request } from './dispatch.ts';
import { HwQueue, lockQueue } from './hw-queue.ts';
import { HwptPaging } from './hwpt.ts';
import { iommuOf } from './iommu-ops.ts';
import { lowestFd } from './lowest-fd.ts';
import { spanOf } from './span.ts';
import { UserData } from './user-data.ts';
import { Vdevice } from './vdevice.ts';
import { VeventFile, VeventQueue } from './veventq.ts';
import { Viommu } from './viommu.ts';

/** VEVENTQ_MAX. */
const MAX_DEPTH = 2 ** 19;

export function viommuAlloc(ucmd: Request<typeof iommu_viommu_alloc>): number {
  const { cmd, ctx, process, refusals } = ucmd;
  if (cmd.flags !== 0 || cmd.type === 0) return noSuchType(ucmd);
  const device = ctx.objects.get(cmd.dev_id, IommufdDevice, 'dev_id');
  if (typeof device === 'number') return device;
  const unknown = checkType(device, cmd.type);
  if (unknown < 0) return unknown;
  const parent = ctx.objects.get(cmd.hwpt_id, HwptPaging, 'hwpt_id');
  if (typeof parent === 'number') return parent;
  if (!parent.nestParent) {
    return refusals.refuse('EINVAL', `HWPT ${parent.id} was not made with NEST_PARENT`, 'hwpt_id');
  }
  const where = { process, refusals, type: cmd.type, address: cmd.data_uptr };
  const viommu = initViommu(device, parent, cmd.data_len === 0 ? null : new UserData(where, cmd.data_len));
  if (typeof viommu === 'number') return viommu;
  return finish(ucmd, viommu, ucmd.respond({ out_viommu_id: viommu.id }));
}

/** The drivers' get_viommu_size: 0 or -EOPNOTSUPP. */
function checkType({ ctx, igroup, dev }: IommufdDevice, type: number): number {
  const { refusals } = ctx.context;
  const { driver, ops } = igroup.group;
  const known =
    ops?.hasViommu(dev, type) ?? (driver instanceof ArmSmmuV3Driver && type === IOMMU_VIOMMU_TYPE_ARM_SMMUV3);
  if (!known)
    return refusals.refuse('EOPNOTSUPP', `the IOMMU of ${dev.name} has no vIOMMU of type ${hex(type)}`, 'type');
  if (!(driver instanceof ArmSmmuV3Driver)) return 0;
  const { stage1, stage2, s2fwb } = driver.probe;
  if (stage1 && stage2 && (s2fwb || driver.canwbs)) return 0;
  const why = `the SMMU of ${dev.name} needs both stages, and S2FWB or the firmware's CANWBS, for a vIOMMU`;
  return refusals.refuse('EOPNOTSUPP', why, 'type');
}

/** The drivers' viommu_init. */
function initViommu({ ctx, igroup, dev }: IommufdDevice, parent: HwptPaging, data: UserData | null): Viommu | number {
  const { driver, ops } = igroup.group;
  if (ops !== undefined) return ops.initViommu(ctx, parent, data);
  if (driver instanceof ArmSmmuV3Driver && igroup.group.canShare(parent.domain))
    return new ArmVsmmu(ctx, driver, parent);
  const why = `HWPT ${parent.id} belongs to another SMMU than ${dev.name}`;
  return ctx.context.refusals.refuse('EINVAL', why, 'hwpt_id');
}

export function vdeviceAlloc(ucmd: Request<typeof iommu_vdevice_alloc>): number {
  const { cmd, ctx, refusals } = ucmd;
  const viommu = ctx.objects.get(cmd.viommu_id, Viommu, 'viommu_id');
  if (typeof viommu === 'number') return viommu;
  const device = ctx.objects.get(cmd.dev_id, IommufdDevice, 'dev_id');
  if (typeof device === 'number') return device;
  if (iommuOf(device.igroup.group) !== viommu.iommu) {
    return refusals.refuse('EINVAL', `${device.dev.name} is behind another IOMMU than vIOMMU ${viommu.id}`, 'dev_id');
  }
  if (device.vdevice !== null) {
    const why = `${device.dev.name} is vDEVICE ${device.vdevice.id} already, of vIOMMU ${device.vdevice.viommu.id}`;
    return refusals.refuse('EEXIST', why, 'dev_id', 'destroy that one first: a device has one name at a time');
  }
  if (viommu.vdevices.has(cmd.virt_id)) {
    const why = `virt_id ${hex(cmd.virt_id)} is another device's`;
    return refusals.refuse('EEXIST', why, 'virt_id', `one that vIOMMU ${viommu.id} has not given yet passes`);
  }
  const refused = viommu.acceptDevice(device);
  if (refused < 0) return refused;
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
  if (!viommu.hasHwQueue(cmd.type)) {
    const why = `vIOMMU ${viommu.id} has no queues of type ${hex(cmd.type)} in hardware`;
    return refusals.refuse('EOPNOTSUPP', why, 'type');
  }
  const { nesting_parent_iova: base, length } = cmd;
  const found = lockQueue(viommu.parent.ioas.iopt, base, length);
  if (typeof found === 'number') return found;
  const queue = new HwQueue(viommu, cmd.type, base, length, found.locked);
  const error = viommu.startHwQueue(queue, cmd.index, found.pa);
  return finish(ucmd, queue, error < 0 ? error : ucmd.respond({ out_hw_queue_id: queue.id }));
}

/** An object that was made comes to stand, or goes again. */
function finish(
  { ctx }: { readonly ctx: Request<typeof iommu_viommu_alloc>['ctx'] },
  object: Viommu | Vdevice | VeventQueue | HwQueue,
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
