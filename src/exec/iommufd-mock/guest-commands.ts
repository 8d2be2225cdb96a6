/** What the tests do behind a guest's back: look at what its page tables and devices remember, and make devices fault. */
import { HwptNested, IommufdDevice, reportDeviceFault } from '../../kernel/iommufd/index.ts';
import { IOMMU_PGFAULT_FLAGS_LAST_PAGE, IOMMU_PGFAULT_FLAGS_PASID_VALID } from '../../uapi/iommufd.ts';
import type { Command } from './command.ts';
import { mockOf } from './mock-device.ts';
import { MockNested } from './mock-nested.ts';
import { iommu_viommu_event_selftest, VEVENTQ_TYPE } from './structs.ts';

const U32 = 0xffff_ffffn;

/** MD_CHECK_IOTLB: id@16, iotlb@20. */
export function checkIotlb(cmd: Command): number {
  const hwpt = cmd.file.ctx.objects.get(cmd.id, HwptNested, 'id');
  if (typeof hwpt === 'number') return hwpt;
  if (!(hwpt.domain instanceof MockNested)) return cmd.refuse('EINVAL', `HWPT ${cmd.id} is no mock's`, 'id');
  const found = hwpt.domain.iotlb[cmd.u32(16)];
  if (found === cmd.u32(20)) return 0;
  return cmd.refuse('EINVAL', `entry ${cmd.u32(16)} of the IOTLB is ${found}, not ${cmd.u32(20)}`, 'iotlb');
}

/** DEV_CHECK_CACHE: id@16, cache@20. */
export function checkCache(cmd: Command): number {
  const device = cmd.file.ctx.objects.get(cmd.id, IommufdDevice, 'id');
  if (typeof device === 'number') return device;
  const found = mockOf(device)?.cache[cmd.u32(16)];
  if (found === cmd.u32(20)) return 0;
  return cmd.refuse('EINVAL', `entry ${cmd.u32(16)} of the cache is ${found}, not ${cmd.u32(20)}`, 'cache');
}

/** TRIGGER_IOPF: dev_id@16, pasid@20, grpid@24, perm@28, addr@32. What becomes of the request is not this one's answer. */
export function triggerIopf(cmd: Command): number {
  const device = cmd.file.ctx.objects.get(cmd.u32(16), IommufdDevice, 'dev_id');
  if (typeof device === 'number') return device;
  if (mockOf(device) === null) return cmd.refuse('EINVAL', `${device.dev.name} is no mock`, 'dev_id');
  const pasid = cmd.u32(20);
  const flags = IOMMU_PGFAULT_FLAGS_LAST_PAGE | (pasid === 0 ? 0 : IOMMU_PGFAULT_FLAGS_PASID_VALID);
  reportDeviceFault(device, { flags, pasid, grpid: cmd.u32(24), perm: cmd.u32(28), addr: cmd.u64(32) });
  return 0;
}

/** TRIGGER_VEVENT: dev_id@16. */
export function triggerVevent(cmd: Command): number {
  const device = cmd.file.ctx.objects.get(cmd.u32(16), IommufdDevice, 'dev_id');
  if (typeof device === 'number') return device;
  const guest = mockOf(device)?.guest ?? null;
  if (guest === null || guest.virtualId === 0n) {
    return cmd.refuse('ENOENT', `${device.dev.name} translates through no vIOMMU's stage 1`, 'dev_id');
  }
  const event = iommu_viommu_event_selftest.bytes({ virt_id: Number(guest.virtualId & U32) });
  if (guest.viommu.reportEvent(VEVENTQ_TYPE, event)) return 0;
  return cmd.refuse('EOPNOTSUPP', `vIOMMU ${guest.viommu.id} has no queue for events of the mock`, 'dev_id');
}
