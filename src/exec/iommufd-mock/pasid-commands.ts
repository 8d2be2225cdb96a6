/** What the tests do with the PASIDs of a mock device: attach, replace, detach, and look at what stands behind one. */
import { attachDevice, detachDevice, HwptNested, HwptPaging, replaceDevice } from '../../kernel/iommufd/index.ts';
import type { Command } from './command.ts';
import { mockOf, SelftestDevice } from './mock-device.ts';

/** PASID_ATTACH and PASID_REPLACE: pasid@16, pt_id@20. */
export function attachPasid(cmd: Command, replace: boolean): number {
  const idev = bound(cmd);
  if (typeof idev === 'number') return idev;
  const [pasid, ptId] = [cmd.u32(16), cmd.u32(20)];
  const hwpt = replace ? replaceDevice(idev, ptId, pasid) : attachDevice(idev, ptId, pasid);
  if (hwpt < 0) return hwpt;
  const error = cmd.respond({ 20: hwpt });
  if (error < 0 && !replace) detachDevice(idev, pasid);
  return error;
}

/** PASID_DETACH: pasid@16. Of what is not attached it does nothing. */
export function detachPasid(cmd: Command): number {
  const idev = bound(cmd);
  if (typeof idev === 'number') return idev;
  detachDevice(idev, cmd.u32(16));
  return 0;
}

/** PASID_CHECK_HWPT: pasid@16, hwpt_id@20; 0: it must be attached to nothing. */
export function checkPasid(cmd: Command): number {
  const idev = bound(cmd);
  if (typeof idev === 'number') return idev;
  const [pasid, id] = [cmd.u32(16), cmd.u32(20)];
  const found = mockOf(idev)?.pasids.domainOf(pasid) ?? null;
  if (id === 0) return found === null ? 0 : cmd.refuse('EINVAL', `PASID ${pasid} is attached`, 'hwpt_id');
  const hwpt = cmd.file.ctx.objects.find(id);
  if (!(hwpt instanceof HwptPaging || hwpt instanceof HwptNested)) {
    return cmd.refuse(hwpt === null ? 'ENOENT' : 'EINVAL', `object ${id} is no page table`, 'hwpt_id');
  }
  if (found === hwpt.domain) return 0;
  return cmd.refuse('EINVAL', `PASID ${pasid} does not go through HWPT ${id}`, 'hwpt_id');
}

function bound(cmd: Command) {
  const owner = cmd.file.ctx.objects.get(cmd.id, SelftestDevice, 'id');
  if (typeof owner === 'number') return owner;
  return owner.idev ?? cmd.refuse('EINVAL', 'the device is not bound', 'id');
}
