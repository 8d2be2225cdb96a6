/** Page tables of single PASIDs of a device (iommufd/device.c): they follow no reserved regions and hold no doorbells, for MSIs have no PASID. */
import type { IommufdDevice } from './device.ts';
import type { Hwpt, IommufdGroup } from './group.ts';

/** iommufd_hwpt_pasid_compat of a table for requests without a PASID: 0, or -EINVAL beside PASIDs. */
export function besidePasids(igroup: IommufdGroup, hwpt: Hwpt): number {
  if (hwpt.pasidCompat || igroup.pasids.size === 0) return 0;
  const why = `HWPT ${hwpt.id} was not made for PASIDs, and group ${igroup.group.id} uses ${igroup.pasids.size}`;
  return igroup.ctx.context.refusals.refuse('EINVAL', why, 'pt_id');
}

/** The same of a table for a PASID. */
function checkCompat({ igroup, ctx, dev }: IommufdDevice, hwpt: Hwpt): number {
  const { refusals } = ctx.context;
  const hint = 'allocate it with IOMMU_HWPT_ALLOC_PASID';
  if (!hwpt.pasidCompat) {
    return refusals.refuse('EINVAL', `HWPT ${hwpt.id} was not made for PASIDs`, 'pt_id', hint);
  }
  if (igroup.hwpt === null || igroup.hwpt.pasidCompat) return 0;
  const why = `${dev.name} goes through HWPT ${igroup.hwpt.id} without a PASID, which was not made for PASIDs`;
  return refusals.refuse('EINVAL', why, 'pt_id', hint);
}

/** What a PASID of the device goes through, or null. */
export function hwptOfPasid(device: IommufdDevice, pasid: number): Hwpt | null {
  const known = device.igroup.pasids.get(pasid);
  return known?.devices.has(device) ? known.hwpt : null;
}

/** iommufd_hw_pagetable_attach: null, or -EBUSY (the device has it already), -EINVAL (another device of the group goes elsewhere), or the core's. */
export function attachPasid(device: IommufdDevice, hwpt: Hwpt, pasid: number): null | number {
  const { igroup, ctx } = device;
  const { refusals } = ctx.context;
  const known = igroup.pasids.get(pasid);
  if (known?.devices.has(device)) {
    const why = `PASID ${pasid} of ${device.dev.name} is attached to HWPT ${known.hwpt.id} already`;
    return refusals.refuse('EBUSY', why, 'pasid');
  }
  if (known !== undefined && known.hwpt !== hwpt) {
    const why = `PASID ${pasid} of group ${igroup.group.id} goes through HWPT ${known.hwpt.id}, and all its devices must`;
    return refusals.refuse('EINVAL', why, 'pt_id');
  }
  if (known === undefined) {
    const error = checkCompat(device, hwpt) || first(device, hwpt, pasid);
    if (error < 0) return error;
    igroup.pasids.set(pasid, { hwpt, devices: new Set([device]) });
  } else known.devices.add(device);
  hwpt.users += 1;
  return null;
}

/** The group's first device with this PASID takes all of them along. */
function first({ igroup, ctx }: IommufdDevice, hwpt: Hwpt, pasid: number): number {
  const { group } = igroup;
  const { refusals } = ctx.context;
  if (group.pasids === undefined) {
    return refusals.refuse('EOPNOTSUPP', `the IOMMU of group ${group.id} has no PASIDs`, 'pasid');
  }
  const error = group.pasids.attach(hwpt.domain, pasid);
  return error < 0 ? refusals.passOn(error, `PASID ${pasid} cannot be attached to HWPT ${hwpt.id}`) : 0;
}

/** iommufd_device_do_replace: the table that is left, null for the same one, or -EINVAL (not attached, or not the right kind), or the core's. */
export function replacePasid(device: IommufdDevice, hwpt: Hwpt, pasid: number): Hwpt | null | number {
  const { igroup, ctx } = device;
  const { refusals } = ctx.context;
  const known = igroup.pasids.get(pasid);
  if (!known?.devices.has(device)) {
    return refusals.refuse('EINVAL', `PASID ${pasid} of ${device.dev.name} is not attached`, 'pasid');
  }
  const old = known.hwpt;
  if (hwpt === old) return null;
  const mixed = checkCompat(device, hwpt);
  if (mixed < 0) return mixed;
  const error = igroup.group.pasids?.replace(hwpt.domain, pasid) ?? 0;
  if (error < 0) return refusals.passOn(error, `PASID ${pasid} cannot be moved to HWPT ${hwpt.id}`);
  known.hwpt = hwpt;
  old.fault?.drop(device, old);
  hwpt.users += known.devices.size;
  // The caller puts the last one.
  old.users -= known.devices.size - 1;
  return old;
}

/** The device gives the PASID up; with the last one its requests are refused. */
export function leavePasid(device: IommufdDevice, hwpt: Hwpt, pasid: number): void {
  const { igroup } = device;
  const known = igroup.pasids.get(pasid);
  if (known === undefined) return;
  known.devices.delete(device);
  if (known.devices.size > 0) return;
  igroup.group.pasids?.detach(pasid);
  igroup.pasids.delete(pasid);
  hwpt.fault?.drop(device, hwpt);
}
