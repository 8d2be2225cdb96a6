/** A device in the VFIO core (vfio_main.c): struct vfio_device, and the file that user space drives it through. */
import * as uapi from '../../uapi/vfio.ts';
import type { File, FileMapping } from '../files.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { Process } from '../process.ts';
import type { RefusalLog } from '../refusal.ts';
import type { VfioDeviceOps } from './device-ops.ts';
import { deviceFeature } from './feature.ts';
import type { VfioGroup } from './group.ts';
import type { VfioIommuType1 } from './type1.ts';

export class VfioDevice {
  readonly dev: PciDev;
  readonly ops: VfioDeviceOps;
  readonly group: VfioGroup;
  /** The N of vfioN in /sys/class/vfio-dev. */
  readonly index: number;
  /** Open files, through the group or the character device. */
  openCount = 0;
  /** What answers BIND_IOMMUFD and its kin; null in a kernel without CONFIG_VFIO_DEVICE_CDEV. */
  cdev: VfioDeviceCdev | null = null;
  /** What it was opened through, when its group has an iommufd for a container. */
  openedThrough: VfioGroupIommufd | null = null;
  /** Open through the character device (vfio_device_cdev_opened), not through a group. */
  cdevOpened = false;
  /** The iommufd that the device is bound to; null: none. */
  iommufd: IommufdBinding | null = null;

  constructor(dev: PciDev, ops: VfioDeviceOps, group: VfioGroup, index: number) {
    this.dev = dev;
    this.ops = ops;
    this.group = group;
    this.index = index;
  }

  /** The type1 container that the device's group is in, or null. */
  get type1(): VfioIommuType1 | null {
    return this.group.container?.type1 ?? null;
  }
}

/** What BIND_IOMMUFD leaves: vfio_iommufd_device_ictx and vfio_iommufd_device_id. */
export interface IommufdBinding {
  /** The open /dev/iommu, by identity. */
  readonly context: object;
  readonly deviceId: number;
}

/** The iommufd side of a device file (device_cdev.c). */
export interface VfioDeviceCdev {
  bind(file: VfioDeviceFile, process: Process, argument: bigint): number;
  attach(file: VfioDeviceFile, process: Process, argument: bigint): number;
  detach(file: VfioDeviceFile, process: Process, argument: bigint): number;
  /** The file closes; it was bound, or not. */
  release(file: VfioDeviceFile): void;
  /** SET_CONTAINER with `file`: what stands for the container when it is an iommufd, else null. */
  container?(file: File): VfioGroupIommufd | null;
}

/** An iommufd in a container's place (group->iommufd). It holds a reference on its file until `put`. */
export interface VfioGroupIommufd {
  /** First open of a device: bound, opened, and attached to the IOAS that stands for the container. 0 or -errno. */
  open(device: VfioDevice, process: Process): number;
  /** Last close. */
  close(device: VfioDevice): void;
  put(): void;
}

/** struct vfio_device_file. */
export class VfioDeviceFile implements File {
  readonly kind = 'device';
  readonly device: VfioDevice;
  /** The group that it was opened from; null: the character device. */
  readonly group: VfioGroup | null;
  /** Requests are answered from the first open on. */
  accessGranted = false;

  constructor(device: VfioDevice, group: VfioGroup | null) {
    this.device = device;
    this.group = group;
  }

  get name(): string {
    return this.group === null ? `/dev/vfio/devices/vfio${this.device.index}` : 'anon_inode:[vfio-device]';
  }

  /** vfio_df_group_open: the first file of a device opens it, and every file counts. */
  openFromGroup(process: Process): number {
    const { device } = this;
    const { group } = device;
    const refused = group.hasIommu();
    if (refused < 0) return refused;
    if (device.openCount === 0) {
      const { iommufd } = group;
      const used = iommufd === null ? group.useContainer() : 0;
      if (used < 0) return used;
      const error = iommufd === null ? device.ops.openDevice(process) : iommufd.open(device, process);
      device.openedThrough = error < 0 ? null : iommufd;
      if (error < 0) {
        if (iommufd === null) group.unuseContainer();
        return this.refusals.passOn(error, `${device.ops.name} could not be opened`);
      }
    }
    device.openCount += 1;
    this.accessGranted = true;
    return 0;
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    const { cdev, ops } = this.device;
    if (request === uapi.VFIO_DEVICE_BIND_IOMMUFD) {
      return (
        cdev?.bind(this, process, argument) ??
        this.refusals.refuse('ENOTTY', 'this kernel has no VFIO character devices', 'request')
      );
    }
    if (!this.accessGranted) return this.noAccess();
    if (this.group === null && cdev !== null) {
      if (request === uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT) return cdev.attach(this, process, argument);
      if (request === uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT) return cdev.detach(this, process, argument);
    }
    if (request === uapi.VFIO_DEVICE_FEATURE) return deviceFeature(this.device, process, argument);
    return ops.ioctl(process, request, argument);
  }

  read(process: Process, address: number, count: number, offset: number): number {
    return this.accessGranted ? this.device.ops.read(process, address, count, offset) : this.noAccess();
  }

  write(process: Process, address: number, count: number, offset: number): number {
    return this.accessGranted ? this.device.ops.write(process, address, count, offset) : this.noAccess();
  }

  mmap(process: Process, offset: number, length: number, write: boolean): FileMapping | number {
    return this.accessGranted ? this.device.ops.mmap(process, offset, length, write) : this.noAccess();
  }

  /** The last file closes the device, and only then may the group leave its container: vectors go before domains. */
  release(): void {
    const { device } = this;
    if (this.group === null) {
      device.cdev?.release(this);
      return;
    }
    if (!this.accessGranted) return;
    this.accessGranted = false;
    device.openCount -= 1;
    if (device.openCount > 0) return;
    if (device.openedThrough === null) {
      device.ops.closeDevice();
      this.group.unuseContainer();
    } else device.openedThrough.close(device);
    device.openedThrough = null;
  }

  private get refusals(): RefusalLog {
    return this.device.group.context.refusals;
  }

  private noAccess(): number {
    return this.refusals.refuse(
      'EINVAL',
      'the device file is not bound to an IOMMU yet',
      'fd',
      'VFIO_DEVICE_BIND_IOMMUFD comes first',
    );
  }
}
