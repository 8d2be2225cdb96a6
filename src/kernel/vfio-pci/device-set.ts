/** The devices that only reset together: struct vfio_device_set, made of the functions of one bus (vfio_pci_core_register_device). */
import type { PciDev } from '../pci/pci-dev.ts';
import type { PciDevice } from '../pci/pci-device.ts';
import type { VfioDevice } from '../vfio/device.ts';

/** What a reset of the whole bus asks of each device of the set. */
export interface BusResettable {
  /** Wakes the function; it sleeps again after `endBusReset`, when nobody uses it. */
  beginBusReset(): void;
  /** mmaps go, and the function is in D0. */
  quiesce(): void;
  /** After the reset, or when it failed: what of the BARs was lent to other devices can be used again. */
  unquiesce(): void;
  endBusReset(): void;
  /** The last user left it without a reset of its own (vdev->needs_reset). */
  needsReset: boolean;
}

/** Which devices VFIO has: the part of `Vfio` that a set is looked up in. */
export interface VfioDevices {
  readonly devices: readonly VfioDevice[];
}

const drivers = new WeakMap<PciDev, BusResettable>();

/** dev_set_drvdata: vfio-pci took the device. */
export const setDriverData = (dev: PciDev, core: BusResettable): void => {
  drivers.set(dev, core);
};

export class DeviceSet {
  private readonly dev: PciDevice;
  private readonly vfio: VfioDevices | null;

  constructor(dev: PciDevice, vfio: VfioDevices | null) {
    this.dev = dev;
    this.vfio = vfio;
  }

  /** The device itself in the VFIO core, or null while it is not registered. */
  get own(): VfioDevice | null {
    return this.find(this.dev);
  }

  find(dev: PciDev): VfioDevice | null {
    return this.vfio?.devices.find((device) => device.dev === dev) ?? null;
  }

  /** In the order of their registration. On a root bus each device is a set of its own. */
  get devices(): readonly VfioDevice[] {
    const { dev } = this;
    return (this.vfio?.devices ?? []).filter(
      (device) => device.dev === dev || (dev.parent !== null && device.dev.parent === dev.parent),
    );
  }

  /** The devices' cores, for a reset. */
  get cores(): readonly BusResettable[] {
    return this.devices.flatMap((device) => drivers.get(device.dev) ?? []);
  }

  /** vfio_pci_dev_set_resettable: the name of a function that a bus reset would hit and that is not in the set; null: none. */
  get outsider(): string | null {
    const { devices } = this;
    const missing = this.dev.busMembers.find((member) => !devices.some((device) => device.dev === member));
    return missing?.name ?? null;
  }

  /**
   * vfio_iommufd_get_dev_id: the id of `device` in an iommufd, 0 when only its group is there (VFIO_PCI_DEVID_OWNED), -1 when neither
   * (VFIO_PCI_DEVID_NOT_OWNED).
   */
  deviceId(device: VfioDevice | null, context: object): number {
    if (device === null) return -1;
    if (device.iommufd?.context === context) return device.iommufd.deviceId;
    const inGroup = this.vfio?.devices.some(
      (other) => other.iommufd?.context === context && other.dev.iommuGroup === device.dev.iommuGroup,
    );
    return inGroup === true ? 0 : -1;
  }
}
