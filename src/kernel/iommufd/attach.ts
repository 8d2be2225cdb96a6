/** Devices get, change and lose their page tables (iommufd/device.c): a group moves as one, and always translates through the old or the new. */
import type { IommuDomain } from '../../ports/iommu.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { ArmSmmuV3Driver } from '../iommu/arm-smmu-v3/driver.ts';
import { type DoorbellSwitch, userDoorbell } from '../irq/user-doorbell.ts';
import { ArmVsmmu } from './arm-vsmmu.ts';
import type { IommufdDevice } from './device.ts';
import type { Hwpt, IommufdGroup } from './group.ts';
import { HwptPaging } from './hwpt.ts';
import { HwptNested } from './hwpt-nested.ts';
import { Ioas } from './ioas.ts';
import { attachPasid, besidePasids, hwptOfPasid, leavePasid, replacePasid } from './pasid.ts';
import { enforceReserved } from './reserved.ts';
import { setupMsi } from './sw-msi.ts';

/** What do_attach and do_replace answer: the table that is left (null: none), or -errno. */
type Change = (device: IommufdDevice, hwpt: Hwpt) => Hwpt | null | number;

/** A change of tables. With `leave`, which undoes it, a table that is made for it takes the device before the mappings come. */
interface Ways {
  readonly change: Change;
  readonly leave: ((device: IommufdDevice, hwpt: Hwpt) => void) | null;
}

/** Requests without a PASID. */
const NO_PASID = 0;

/**
 * iommufd_device_attach: the id of the HWPT that the device, or its requests with a PASID, now go through, or -errno. `ptId` is an IOAS's or an HWPT's;
 * PASID 0 stands for requests without one.
 */
export function attachDevice(device: IommufdDevice, ptId: number, pasid: number = NO_PASID): number {
  const ways = pasid === NO_PASID ? ATTACH : attachWays(pasid);
  const id = changePt(device, ptId, ways);
  if (id > 0) device.users += 1;
  return id;
}

/** iommufd_device_replace: as attach, of what is attached; on an error the old table stays. */
export function replaceDevice(device: IommufdDevice, ptId: number, pasid: number = NO_PASID): number {
  const change: Change = (each, hwpt) => (pasid === NO_PASID ? doReplace(each, hwpt) : replacePasid(each, hwpt, pasid));
  return changePt(device, ptId, { change, leave: null });
}

/** iommufd_device_detach: the last device of a group leaves it, or the PASID, blocked. */
export function detachDevice(device: IommufdDevice, pasid: number = NO_PASID): void {
  const hwpt = pasid === NO_PASID ? hwptOf(device) : hwptOfPasid(device, pasid);
  if (hwpt === null) return;
  if (pasid === NO_PASID) leave(device, hwpt);
  else leavePasid(device, hwpt, pasid);
  hwpt.put();
  device.users -= 1;
}

const hwptOf = (device: IommufdDevice): Hwpt | null =>
  device.igroup.attached.includes(device) ? device.igroup.hwpt : null;

const ATTACH: Ways = { change: doAttach, leave };

const attachWays = (pasid: number): Ways => ({
  change: (device, hwpt) => attachPasid(device, hwpt, pasid),
  leave: (device, hwpt) => leavePasid(device, hwpt, pasid),
});

function changePt(device: IommufdDevice, ptId: number, ways: Ways): number {
  const { ctx } = device;
  const { refusals } = ctx.context;
  const target = ctx.objects.find(ptId);
  if (target === null) return refusals.refuse('ENOENT', `pt_id ${ptId} is no object`, 'pt_id');
  if (target instanceof Ioas) return autoDomain(device, target, ways);
  if (!(target instanceof HwptPaging || target instanceof HwptNested)) {
    const why = `pt_id ${ptId} is of type ${target.type}, neither an IOAS nor a page table`;
    return refusals.refuse('EINVAL', why, 'pt_id');
  }
  const old = ways.change(device, target);
  if (typeof old === 'number') return old;
  old?.put();
  return target.id;
}

/** iommufd_device_auto_get_domain: the first automatic table of the IOAS that takes the device, else a new one. */
function autoDomain(device: IommufdDevice, ioas: Ioas, { change, leave: undo }: Ways): number {
  const { objects, context } = device.ctx;
  for (const hwpt of [...ioas.hwpts]) {
    if (!hwpt.autoDomain) continue;
    const before = context.refusals.last;
    const old = change(device, hwpt);
    if (old === -ERRNO.EINVAL) {
      // Not this one: a table of another IOMMU.
      context.refusals.last = before;
      continue;
    }
    if (typeof old === 'number') return old;
    old?.put();
    return hwpt.id;
  }
  const attach = (hwpt: HwptPaging): number => Math.min(toErrno(change(device, hwpt)), 0);
  const made =
    undo !== null
      ? HwptPaging.alloc(device, ioas, 0, null, attach, (hwpt) => undo(device, hwpt))
      : HwptPaging.alloc(device, ioas, 0);
  if (typeof made === 'number') return made;
  if (undo === null) {
    const old = change(device, made);
    if (typeof old === 'number') {
      objects.abort(made);
      made.destroy();
      return old;
    }
    old?.put();
  }
  made.autoDomain = true;
  objects.finalize(made);
  return made.id;
}

const toErrno = (answer: Hwpt | null | number): number => (typeof answer === 'number' ? answer : 0);

/** iommufd_hw_pagetable_attach. */
function doAttach(device: IommufdDevice, hwpt: Hwpt): null | number {
  const { igroup, ctx } = device;
  const { refusals } = ctx.context;
  if (igroup.attached.includes(device)) {
    return refusals.refuse('EBUSY', `${device.dev.name} is attached to HWPT ${igroup.hwpt?.id} already`, 'pt_id');
  }
  if (igroup.hwpt !== null && igroup.hwpt !== hwpt) {
    const why = `group ${igroup.group.id} translates through HWPT ${igroup.hwpt.id}, and all its devices must`;
    return refusals.refuse('EINVAL', why, 'pt_id');
  }
  const { ioas } = hwpt.paging;
  const reserved = enforceReserved(device, ioas);
  if (reserved < 0) return reserved;
  const doorbells = setupMsi(igroup, [device], hwpt.paging);
  const error = doorbells < 0 || igroup.attached.length > 0 ? doorbells : enter(igroup, hwpt);
  if (error < 0) {
    ioas.iopt.unreserve(device);
    device.swMsiStart = null;
    return error;
  }
  igroup.hwpt = hwpt;
  igroup.attached.push(device);
  hwpt.users += 1;
  return null;
}

/** The group's first device, whose doorbells stand already. 0, or -errno with nothing changed. */
function enter(igroup: IommufdGroup, hwpt: Hwpt): number {
  const { refusals } = igroup.ctx.context;
  const mixed = besidePasids(igroup, hwpt);
  if (mixed < 0) return mixed;
  return switchTo(igroup, hwpt, (domain) => {
    const error = igroup.group.attach(domain);
    return error < 0 ? refusals.passOn(error, `group ${igroup.group.id} cannot be attached to HWPT ${hwpt.id}`) : 0;
  });
}

/** The device leaves; with the last one the group is blocked, and nothing of it may stay mapped. */
function leave(device: IommufdDevice, hwpt: Hwpt): void {
  const { igroup } = device;
  igroup.attached.splice(igroup.attached.indexOf(device), 1);
  if (igroup.attached.length === 0) {
    igroup.group.detach();
    igroup.hwpt = null;
    for (const { dev } of igroup.bound) userDoorbell(dev)?.detach?.();
    routeEvents(igroup, null);
  }
  hwpt.fault?.drop(device, hwpt);
  hwpt.paging.ioas.iopt.unreserve(device);
  device.swMsiStart = null;
}

/** iommufd_device_do_replace. */
function doReplace(device: IommufdDevice, hwpt: Hwpt): Hwpt | null | number {
  const { igroup, ctx } = device;
  const { refusals } = ctx.context;
  const old = igroup.hwpt;
  if (old === null || !igroup.attached.includes(device)) {
    return refusals.refuse('EINVAL', `${device.dev.name} is not attached`, 'pt_id');
  }
  if (hwpt === old) return null;
  const { ioas } = hwpt.paging;
  const oldIoas = old.paging.ioas;
  const reserved = ioas === oldIoas ? 0 : reserveAll(igroup, ioas);
  const doorbells = reserved < 0 ? reserved : setupMsi(igroup, igroup.attached, hwpt.paging);
  const mixed = doorbells < 0 ? doorbells : besidePasids(igroup, hwpt);
  const error = mixed < 0 ? mixed : switchTo(igroup, hwpt, (domain) => igroup.group.replace(domain));
  // Linux gives back the new IOAS's reservations after an error even where it took none, because the old one is the same (err_unresv).
  if (error < 0 || ioas !== oldIoas)
    for (const each of igroup.attached) (error < 0 ? ioas : oldIoas).iopt.unreserve(each);
  if (error < 0) return refusals.passOn(error, `group ${igroup.group.id} cannot be moved to HWPT ${hwpt.id}`);
  igroup.hwpt = hwpt;
  old.fault?.drop(device, old);
  hwpt.users += igroup.attached.length;
  // The caller puts the last one.
  old.users -= igroup.attached.length - 1;
  return old;
}

function reserveAll(igroup: IommufdGroup, ioas: Ioas): number {
  for (const each of igroup.attached) {
    const error = enforceReserved(each, ioas);
    if (error < 0) return error;
  }
  return 0;
}

/** User-given doorbells are installed behind the new table before the switch (DESIGN 4, rules 11 and 17). 0, or -errno with the old as it was. */
function switchTo(igroup: IommufdGroup, hwpt: Hwpt, change: (domain: IommuDomain) => number): number {
  const { domain } = hwpt;
  const unknown = hwpt instanceof HwptNested ? (hwpt.viommu?.admit(igroup, hwpt.domain) ?? 0) : 0;
  if (unknown < 0) return unknown;
  const moves: DoorbellSwitch[] = [];
  let error = 0;
  for (const { dev } of igroup.bound) {
    const move = userDoorbell(dev)?.beginMove?.({ dma: hwpt.paging.ioas, domain });
    if (typeof move === 'number') error = move;
    else if (move !== undefined) moves.push(move);
    if (error < 0) break;
  }
  if (error === 0) error = change(domain);
  for (const move of moves) {
    if (error < 0) move.cancel();
    else move.commit();
  }
  if (error === 0) routeEvents(igroup, hwpt);
  return error;
}

/** Events of the devices' streams go to the guest that owns their stage 1, or to the host's log. */
function routeEvents(igroup: IommufdGroup, hwpt: Hwpt | null): void {
  const { driver } = igroup.group;
  if (!(driver instanceof ArmSmmuV3Driver)) return;
  for (const device of igroup.bound) {
    driver.setEventSink(device.dev.requester, null);
    if (hwpt instanceof HwptNested && hwpt.viommu instanceof ArmVsmmu) hwpt.viommu.watch(device);
  }
}
