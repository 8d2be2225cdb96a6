/** A VFIO group (group.c): the devices of one IOMMU group that are bound to a VFIO driver, and what its file answers. */
import * as uapi from '../../uapi/vfio.ts';
import type { KernelContext } from '../context.ts';
import { type File, fget, fput } from '../files.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import { claimsDma } from '../pci-drivers.ts';
import type { Process } from '../process.ts';
import { copyFromUser, copyToUser, userPointer } from '../user-copy.ts';
import { VfioContainer } from './container.ts';
import { type VfioDevice, VfioDeviceFile, type VfioGroupIommufd } from './device.ts';

export class VfioGroup {
  readonly iommuGroup: IommuGroup;
  readonly devices: VfioDevice[] = [];
  readonly context: KernelContext;
  container: VfioContainer | null = null;
  /** In the container's place. */
  iommufd: VfioGroupIommufd | null = null;
  /** One for being in a container, one for each open device. */
  containerUsers = 0;
  /** The only open file of the group. Devices that are open keep it when they use its container; those of an iommufd do not. */
  openedFile: VfioGroupFile | null = null;
  /** The last device left while the group's file was open: group->iommu_group is NULL. */
  gone = false;
  /** Devices that are open through their own character device. */
  cdevOpenCount = 0;

  constructor(context: KernelContext, iommuGroup: IommuGroup) {
    this.context = context;
    this.iommuGroup = iommuGroup;
  }

  get id(): number {
    return this.iommuGroup.id;
  }

  /** vfio_group_fops_open. */
  open(): VfioGroupFile | number {
    const { refusals } = this.context;
    if (this.devices.length === 0)
      return refusals.refuse('ENODEV', `no device of group ${this.id} is bound to a VFIO driver`);
    if (this.cdevOpenCount > 0)
      return refusals.refuse('EBUSY', `a device of group ${this.id} is open through /dev/vfio/devices`);
    if (this.openedFile !== null)
      return refusals.refuse('EBUSY', `group ${this.id} is open already, and has a single opener`);
    this.openedFile = new VfioGroupFile(this);
    return this.openedFile;
  }

  /** vfio_group_has_iommu: asked of each file of a device, the first and the later ones. 0 or -EINVAL. */
  hasIommu(): number {
    if (this.container !== null || this.iommufd !== null) return 0;
    return this.noIommu(`group ${this.id} has no container`);
  }

  private noIommu(why: string): number {
    return this.context.refusals.refuse('EINVAL', why, 'fd', 'SET_CONTAINER, then SET_IOMMU, then GET_DEVICE_FD');
  }

  /** vfio_group_use_container: a device opens. 0 or -EINVAL. */
  useContainer(): number {
    if (this.container?.iommu == null) return this.noIommu(`group ${this.id} has no IOMMU set in its container`);
    if (this.openedFile !== null) fget(this.openedFile);
    this.containerUsers += 1;
    return 0;
  }

  unuseContainer(): void {
    this.containerUsers -= 1;
    if (this.openedFile !== null) fput(this.openedFile);
  }
}

export class VfioGroupFile implements File {
  readonly kind = 'group';
  readonly group: VfioGroup;

  constructor(group: VfioGroup) {
    this.group = group;
  }

  get name(): string {
    return `/dev/vfio/${this.group.id}`;
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    switch (request) {
      case uapi.VFIO_GROUP_GET_STATUS:
        return this.getStatus(process, argument);
      case uapi.VFIO_GROUP_SET_CONTAINER:
        return this.setContainer(process, argument);
      case uapi.VFIO_GROUP_UNSET_CONTAINER:
        return this.unsetContainer();
      case uapi.VFIO_GROUP_GET_DEVICE_FD:
        return this.getDeviceFd(process, argument);
      default:
        return this.refusals.refuse('ENOTTY', 'a group does not know this request', 'request');
    }
  }

  /** Devices of the container hold the file, so none of those is open here. */
  release(): void {
    this.group.container?.detachGroup(this.group);
    this.dropIommufd();
    this.group.openedFile = null;
  }

  private get refusals() {
    return this.group.context.refusals;
  }

  private getStatus(process: Process, argument: bigint): number {
    const layout = uapi.vfio_group_status;
    const bytes = copyFromUser(process, argument, layout.size);
    if (bytes === null)
      return this.refusals.refuse('EFAULT', `the ${layout.size} bytes of the argument are not readable`, 'argument');
    const { argsz } = layout.read(bytes);
    if (argsz < layout.size)
      return this.refusals.refuse('EINVAL', `argsz ${argsz} is less than ${layout.size}`, 'argsz');
    const { container, iommufd, iommuGroup } = this.group;
    if (this.group.gone) return this.noDevices();
    const both = uapi.VFIO_GROUP_FLAGS_VIABLE | uapi.VFIO_GROUP_FLAGS_CONTAINER_SET;
    const viable = dmaOwnerClaimed(iommuGroup) ? 0 : uapi.VFIO_GROUP_FLAGS_VIABLE;
    layout.patch(bytes, { flags: container === null && iommufd === null ? viable : both });
    return copyToUser(process, argument, bytes)
      ? 0
      : this.refusals.refuse('EFAULT', 'the argument is not writable', 'argument');
  }

  private setContainer(process: Process, argument: bigint): number {
    const bytes = copyFromUser(process, argument, 4);
    if (bytes === null)
      return this.refusals.refuse('EFAULT', 'the 4 bytes of the argument are not readable', 'argument');
    const fd = new DataView(bytes.buffer).getInt32(0, true);
    const file = process.file(fd);
    if (file === null) return this.refusals.refuse('EBADF', `file descriptor ${fd} is not open`, 'container');
    if (this.group.container !== null || this.group.iommufd !== null)
      return this.refusals.refuse('EINVAL', `group ${this.group.id} is in a container already`, 'fd');
    if (this.group.gone) return this.noDevices();
    if (file instanceof VfioContainer) return file.attachGroup(this.group);
    this.group.iommufd = this.group.devices[0].cdev?.container?.(file) ?? null;
    if (this.group.iommufd !== null) return 0;
    return this.refusals.refuse('EBADFD', `file descriptor ${fd} (${file.name}) is no container`, 'container');
  }

  private noDevices(): number {
    return this.refusals.refuse('ENODEV', `the last device of group ${this.group.id} left it`, 'fd');
  }

  private unsetContainer(): number {
    const { container, containerUsers, id } = this.group;
    if (this.group.iommufd !== null) return this.dropIommufd();
    if (container === null) return this.refusals.refuse('EINVAL', `group ${id} is in no container`, 'fd');
    if (containerUsers !== 1) {
      return this.refusals.refuse(
        'EBUSY',
        `${containerUsers - 1} devices of group ${id} are open`,
        'fd',
        'close them first',
      );
    }
    container.detachGroup(this.group);
    return 0;
  }

  /** Devices that are open keep what they have. */
  private dropIommufd(): number {
    this.group.iommufd?.put();
    this.group.iommufd = null;
    return 0;
  }

  private getDeviceFd(process: Process, argument: bigint): number {
    const name = copyString(process, argument, this.group.context.pageSize);
    if (name === null) return this.refusals.refuse('EFAULT', 'the name is not readable up to its NUL', 'argument');
    if (name === undefined) return this.refusals.refuse('EINVAL', 'the name has no NUL within a page', 'argument');
    const device = this.match(name);
    if (typeof device === 'number') return device;
    const file = new VfioDeviceFile(device, this.group);
    const error = file.openFromGroup(process);
    return error < 0 ? error : process.install(file);
  }

  /** vfio_device_get_from_name: each driver says whether it is meant; an error of one ends the search. */
  private match(name: string): VfioDevice | number {
    for (const device of this.group.devices) {
      const answer = device.ops.match(name);
      if (answer < 0) return this.refusals.passOn(answer, `${device.ops.name} refuses ${JSON.stringify(name)}`);
      if (answer > 0) return device;
    }
    const known = this.group.devices.map((device) => device.ops.name).join(', ');
    return this.refusals.refuse(
      'ENODEV',
      `group ${this.group.id} has no device ${JSON.stringify(name)}; it has ${known}`,
      'argument',
    );
  }
}

/** iommu_group_dma_owner_claimed: by an owner, or by the host's own drivers. */
function dmaOwnerClaimed(group: IommuGroup): boolean {
  return group.dmaOwner !== null || group.devices.some((dev) => claimsDma(dev.driver));
}

/** strndup_user: the text before the NUL; null is EFAULT, undefined that there is none in `most` bytes. */
function copyString(process: Process, argument: bigint, most: number): string | null | undefined {
  const start = userPointer(argument);
  const bytes: number[] = [];
  const one = new Uint8Array(1);
  while (bytes.length < most) {
    if (!process.memory.copyIn(start + bytes.length, one)) return null;
    if (one[0] === 0) return String.fromCharCode(...bytes);
    bytes.push(one[0]);
  }
  return undefined;
}
