/**
 * VFIO_DEVICE_GET_PCI_HOT_RESET_INFO and VFIO_DEVICE_PCI_HOT_RESET (vfio_pci_core.c): the reset of a whole bus, for whoever proves that all of it
 * is theirs: by the files of every group, or by one iommufd that every device is bound to.
 */
import { ERRNO } from '../../uapi/errno.ts';
import {
  VFIO_PCI_DEVID_NOT_OWNED,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from '../../uapi/vfio.ts';
import type { PciDevice } from '../pci/pci-device.ts';
import type { Process } from '../process.ts';
import type { RefusalLog } from '../refusal.ts';
import type { VfioDevice } from '../vfio/device.ts';
import { VfioGroupFile } from '../vfio/group.ts';
import type { DeviceSet } from './device-set.ts';

/** Does the caller own the device? */
type Ownership = (device: VfioDevice) => boolean;

export class HotReset {
  private readonly dev: PciDevice;
  private readonly set: DeviceSet;
  private readonly refusals: RefusalLog;

  constructor(dev: PciDevice, set: DeviceSet, refusals: RefusalLog) {
    this.dev = dev;
    this.set = set;
    this.refusals = refusals;
  }

  /** vfio_pci_ioctl_get_pci_hot_reset_info. */
  info(process: Process, argument: number): number {
    const layout = vfio_pci_hot_reset_info;
    const head = new Uint8Array(layout.size);
    if (!process.memory.copyIn(argument, head)) return this.unreadable(layout.size);
    const { argsz } = layout.read(head);
    if (argsz < layout.size) return this.shortArgsz(argsz, layout.size);
    if (!this.dev.canResetBus) return this.noReset();
    const members = this.dev.busMembers;
    const needed = layout.size + members.length * vfio_pci_dependent_device.size;
    if (argsz < needed) {
      layout.write(head, { argsz, flags: 0, count: members.length });
      if (!process.memory.copyOut(argument, head)) return this.unwritable();
      const why = `argsz ${argsz} has no room for ${members.length} devices, which take ${needed}`;
      return this.refusals.refuse('ENOSPC', why, 'argsz');
    }
    const filled = this.describe(members);
    if (typeof filled === 'number') return filled;
    layout.write(head, { argsz, flags: filled.flags, count: members.length });
    const copied =
      process.memory.copyOut(argument + layout.size, filled.devices) && process.memory.copyOut(argument, head);
    return copied ? 0 : this.unwritable();
  }

  /** vfio_pci_ioctl_pci_hot_reset. */
  reset(process: Process, argument: number): number {
    const layout = vfio_pci_hot_reset;
    const head = new Uint8Array(layout.size);
    if (!process.memory.copyIn(argument, head)) return this.unreadable(layout.size);
    const { argsz, flags, count } = layout.read(head);
    if (argsz < layout.size) return this.shortArgsz(argsz, layout.size);
    if (flags !== 0) return this.refusals.refuse('EINVAL', `flags ${flags} is not 0`, 'flags');
    const context = this.cdevContext;
    if ((count !== 0) === (context !== null)) {
      const why =
        context === null
          ? 'count is 0, and a device that was opened through a group needs the files of the groups'
          : `count is ${count}, and a device that was opened by itself proves its ownership by its iommufd, with 0`;
      return this.refusals.refuse('EINVAL', why, 'count');
    }
    if (!this.dev.canResetBus) return this.noReset();
    if (context !== null) return this.resetSet((device) => this.set.deviceId(device, context) >= 0, 'its iommufd');
    const groups = this.groupFiles(process, argument + layout.size, count);
    if (typeof groups === 'number') return groups;
    return this.resetSet((device) => groups.some((file) => file.group === device.group), 'the groups given');
  }

  /** The iommufd of a device that is open through its character device, else null. */
  private get cdevContext(): object | null {
    const own = this.set.own;
    return own?.cdevOpened === true ? (own.iommufd?.context ?? null) : null;
  }

  /** vfio_pci_fill_devs for each function: what stands behind the header, or -errno. */
  private describe(members: readonly PciDevice[]): { flags: number; devices: Uint8Array } | number {
    const layout = vfio_pci_dependent_device;
    const context = this.cdevContext;
    const devices = new Uint8Array(members.length * layout.size);
    let flags = context === null ? 0 : VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
    for (const [i, member] of members.entries()) {
      const { segment, bus, device, function: fn } = member.address;
      const id = context === null ? member.iommuGroup?.id : this.set.deviceId(this.set.find(member), context);
      if (id === undefined) return this.refusals.refuse('EPERM', `${member.name} is in no IOMMU group`);
      if (id === VFIO_PCI_DEVID_NOT_OWNED) flags &= ~VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
      layout.patch(devices, { group_id: id >>> 0, segment, bus, devfn: (device << 3) | fn }, i * layout.size);
    }
    return { flags, devices };
  }

  private groupFiles(process: Process, address: number, count: number): VfioGroupFile[] | number {
    const most = this.dev.busMembers.length;
    if (count > most)
      return this.refusals.refuse('EINVAL', `${count} groups are more than the ${most} functions on the bus`, 'count');
    const bytes = new Uint8Array(4 * count);
    if (!process.memory.copyIn(address, bytes))
      return this.refusals.refuse('EFAULT', `the ${count} descriptors of groups are not readable`, 'group_fds');
    const files: VfioGroupFile[] = [];
    for (let i = 0; i < count; i += 1) {
      const fd = new DataView(bytes.buffer).getInt32(4 * i, true);
      const file = process.file(fd);
      if (file === null) return this.refusals.refuse('EBADF', `file descriptor ${fd} is not open`, 'group_fds');
      if (!(file instanceof VfioGroupFile))
        return this.refusals.refuse('EINVAL', `file descriptor ${fd} (${file.name}) is no VFIO group`, 'group_fds');
      files.push(file);
    }
    return files;
  }

  /** vfio_pci_dev_set_hot_reset. */
  private resetSet(owns: Ownership, proof: string): number {
    const { set, refusals } = this;
    const { outsider } = set;
    if (outsider !== null) {
      const why = `${outsider} is on the bus and has no VFIO driver, so nobody could keep it out of the way`;
      return refusals.refuse('EINVAL', why, undefined, 'bind every function of the bus to vfio-pci');
    }
    const { cores } = set;
    for (const core of cores) core.beginBusReset();
    const error = this.resetOwned(owns, proof);
    for (const core of cores) core.endBusReset();
    return error;
  }

  private resetOwned(owns: Ownership, proof: string): number {
    const { set, refusals } = this;
    const foreign = set.devices.find((device) => !owns(device));
    if (foreign !== undefined)
      return refusals.refuse('EINVAL', `${foreign.ops.name} is reset too, and ${proof} do not own it`, 'group_fds');
    for (const core of set.cores) core.quiesce();
    const error = this.dev.resetBus();
    for (const core of set.cores) core.unquiesce();
    if (error === -ERRNO.EAGAIN)
      return refusals.refuse('EAGAIN', 'the lock of a function on the bus is held', 'request');
    return error;
  }

  private unreadable(size: number): number {
    return this.refusals.refuse('EFAULT', `the ${size} bytes of the argument are not readable`, 'argument');
  }

  private unwritable(): number {
    return this.refusals.refuse('EFAULT', 'the argument is not writable', 'argument');
  }

  private shortArgsz(argsz: number, size: number): number {
    return this.refusals.refuse('EINVAL', `argsz ${argsz} is less than ${size}`, 'argsz');
  }

  private noReset(): number {
    return this.refusals.refuse('ENODEV', `${this.dev.name} is on a root bus, which no bridge can reset`, 'request');
  }
}
