/** The VFIO core (vfio_main.c): which devices are registered, in which groups, and the nodes under /dev/vfio. */
import type { KernelContext } from '../context.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import type { SimKernel } from '../kernel.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { DeviceNode } from '../sysfs/node.ts';
import { VfioContainer } from './container.ts';
import { VfioDevice, type VfioDeviceCdev, VfioDeviceFile } from './device.ts';
import type { VfioDeviceOps } from './device-ops.ts';
import { VfioGroup } from './group.ts';
import type { VfioIommuDriver } from './iommu-driver.ts';
import { type1Driver } from './type1.ts';

export class Vfio {
  readonly devices: VfioDevice[] = [];
  readonly groups: VfioGroup[] = [];
  private readonly kernel: SimKernel;
  private readonly context: KernelContext;
  private readonly drivers: readonly VfioIommuDriver[];
  private cdev: VfioDeviceCdev | null = null;

  /** Mounts /dev/vfio/vfio. */
  constructor(kernel: SimKernel, drivers?: readonly VfioIommuDriver[]) {
    this.kernel = kernel;
    this.context = kernel.context;
    this.drivers = drivers ?? [type1Driver(kernel.context)];
    kernel.mount('/dev/vfio/vfio', { kind: 'device', mode: 0o666, uid: 0, open: () => this.openContainer() });
  }

  openContainer(): VfioContainer {
    return new VfioContainer(this.context, this.drivers);
  }

  /** CONFIG_VFIO_DEVICE_CDEV: from now on every device has a node under /dev/vfio/devices, and its file answers BIND_IOMMUFD. */
  enableCdev(cdev: VfioDeviceCdev): void {
    this.cdev = cdev;
    for (const device of this.devices) this.showCdev(device);
  }

  /** vfio_register_group_dev: a driver took the device. The device, or -EINVAL without an IOMMU group. */
  register(dev: PciDev, ops: VfioDeviceOps): VfioDevice | number {
    if (dev.iommuGroup === null) {
      return this.context.refusals.refuse('EINVAL', `${dev.name} is in no IOMMU group: no IOMMU translates for it`);
    }
    const group = this.groupOf(dev.iommuGroup);
    const device = new VfioDevice(dev, ops, group, this.lowestIndex());
    this.devices.push(device);
    group.devices.push(device);
    this.showCdev(device);
    return device;
  }

  /**
   * vfio_unregister_group_dev: 0, or -EBUSY while user space has the device open. Linux asks the user through the REQ interrupt and waits; nothing
   * waits here, so the REQ interrupt is signalled and the caller is told to try again.
   */
  unregister(dev: PciDev): number {
    const device = this.deviceOf(dev);
    if (device === null) return 0;
    const error = this.askForRelease(dev);
    if (error < 0) return error;
    this.devices.splice(this.devices.indexOf(device), 1);
    const { group } = device;
    group.devices.splice(group.devices.indexOf(device), 1);
    this.kernel.unmount(`/dev/vfio/devices/vfio${device.index}`);
    if (group.devices.length === 0) {
      group.container?.detachGroup(group);
      group.gone = true;
      this.groups.splice(this.groups.indexOf(group), 1);
      this.kernel.unmount(`/dev/vfio/${group.id}`);
    }
    return 0;
  }

  /** Whether `unregister` could do it now: 0, or -EBUSY after the user was asked to let go. */
  askForRelease(dev: PciDev): number {
    const device = this.deviceOf(dev);
    if (device === null || device.openCount === 0) return 0;
    device.ops.request(0);
    const why = `${dev.name} is open ${device.openCount} times; its user was asked through the REQ interrupt to let go`;
    return this.context.refusals.refuse('EBUSY', why, undefined, 'close the device, then try again; Linux waits here');
  }

  deviceOf(dev: PciDev): VfioDevice | null {
    return this.devices.find((device) => device.dev === dev) ?? null;
  }

  /** The group's node and object appear with its first device. */
  private groupOf(iommuGroup: IommuGroup): VfioGroup {
    const known = this.groups.find((group) => group.iommuGroup === iommuGroup);
    if (known !== undefined) return known;
    const group = new VfioGroup(this.context, iommuGroup);
    this.groups.push(group);
    this.kernel.mount(`/dev/vfio/${group.id}`, { kind: 'device', mode: 0o600, uid: 0, open: () => group.open() });
    return group;
  }

  private showCdev(device: VfioDevice): void {
    if (this.cdev === null) return;
    device.cdev = this.cdev;
    const node: DeviceNode = { kind: 'device', mode: 0o600, uid: 0, open: () => new VfioDeviceFile(device, null) };
    this.kernel.mount(`/dev/vfio/devices/vfio${device.index}`, node);
  }

  private lowestIndex(): number {
    let index = 0;
    while (this.devices.some((device) => device.index === index)) index += 1;
    return index;
  }
}
