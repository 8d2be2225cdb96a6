/** The driver core's side of PCI: which driver has a device, and what sysfs's bind and unbind do (drivers/base/bus.c, pci-driver.c). */
import type { KernelContext } from './context.ts';
import type { PciDev } from './pci/pci-dev.ts';
import type { VfioDeviceOps } from './vfio/device-ops.ts';
import type { Vfio } from './vfio/vfio-main.ts';

/** Drivers that leave DMA ownership to somebody else (driver_managed_dma), so that a group with them can still be claimed. */
const MANAGED_DMA: ReadonlySet<string> = new Set(['vfio-pci', 'pci-stub', 'pcieport']);

/** Does a device with this driver keep its group from being claimed by user space? */
export const claimsDma = (driver: string | null): boolean => driver !== null && !MANAGED_DMA.has(driver);

/** One driver. `Dev` is the kernel's own class of device, where that matters to it. */
export interface PciDriver<Dev extends PciDev = PciDev> {
  readonly name: string;
  /** Its own id table; what driver_override and new_id add is the core's. */
  matches(dev: Dev): boolean;
  /** Takes the device: 0 or -errno. */
  probe(dev: Dev): number;
  /** Gives it back: 0, or -errno when it is in use (Linux waits then; nothing waits here). */
  remove(dev: Dev): number;
  /** sriov_configure: makes `count` virtual functions, or takes all away with 0. How many there are now, or -errno. */
  sriovConfigure?(dev: Dev, count: number): number;
}

/** What sysfs writes to. Results are 0 or -errno. */
export interface DriverCore {
  readonly devices: readonly PciDev[];
  /** Names of registered drivers. */
  readonly drivers: readonly string[];
  bind(dev: PciDev, driver: string): number;
  unbind(dev: PciDev, driver: string): number;
  setOverride(dev: PciDev, driver: string | null): void;
  /** Adds ids to a driver, and offers it the devices that match and have no driver. */
  newId(driver: string, vendor: number, device: number): number;
  removeId(driver: string, vendor: number, device: number): number;
  /** Offers a device without a driver to those that match it (drivers_probe). */
  probe(dev: PciDev): number;
  /** What a write of `sriov_numvfs` does. */
  sriovNumVfs?(dev: PciDev, count: number): number;
}

/** The real one: drivers in the order of their registration, devices as enumeration found them. */
export class PciDrivers<Dev extends PciDev = PciDev> implements DriverCore {
  readonly devices: readonly Dev[];
  private readonly context: KernelContext;
  private readonly registered = new Map<string, PciDriver<Dev>>();
  /** Ids that new_id added: `driver vendor device`. */
  private readonly dynamic = new Set<string>();

  constructor(context: KernelContext, devices: readonly Dev[]) {
    this.context = context;
    this.devices = devices;
  }

  get drivers(): readonly string[] {
    return [...this.registered.keys()];
  }

  /** Registers a driver and offers it what matches. */
  register(driver: PciDriver<Dev>): void {
    this.registered.set(driver.name, driver);
    for (const dev of this.devices) if (this.isMatch(driver, dev)) this.attach(driver, dev);
  }

  /** bind_store: ENODEV when the driver does not match, EBUSY when the device has one. */
  bind(dev: Dev, name: string): number {
    const driver = this.registered.get(name);
    if (driver === undefined || !this.isMatch(driver, dev)) {
      const why = `${name} does not match ${dev.name} (driver_override is ${dev.driverOverride ?? 'not set'})`;
      return this.context.refusals.refuse(
        'ENODEV',
        why,
        undefined,
        'write the driver to driver_override, or the ids to new_id',
      );
    }
    return this.attach(driver, dev);
  }

  /** unbind_store. */
  unbind(dev: Dev, name: string): number {
    const driver = this.registered.get(name);
    if (driver === undefined || dev.driver !== name) {
      return this.context.refusals.refuse(
        'ENODEV',
        `${dev.name} is bound to ${dev.driver ?? 'no driver'}, not to ${name}`,
      );
    }
    const error = driver.remove(dev);
    if (error === 0) dev.driver = null;
    return error;
  }

  setOverride(dev: Dev, driver: string | null): void {
    dev.driverOverride = driver;
  }

  /** new_id_store: EEXIST when the driver has the ids in its own table. */
  newId(name: string, vendor: number, device: number): number {
    const driver = this.registered.get(name);
    if (driver === undefined) return this.context.refusals.refuse('ENODEV', `there is no driver ${name}`);
    const matching = this.devices.filter((dev) => dev.vendorId === vendor && dev.deviceId === device);
    if (this.dynamic.has(idKey(name, vendor, device)) || matching.some((dev) => driver.matches(dev))) {
      return this.context.refusals.refuse('EEXIST', `${name} knows ${idKey(name, vendor, device)} already`);
    }
    this.dynamic.add(idKey(name, vendor, device));
    for (const dev of matching) if (dev.driver === null && this.isMatch(driver, dev)) this.attach(driver, dev);
    return 0;
  }

  removeId(name: string, vendor: number, device: number): number {
    if (this.dynamic.delete(idKey(name, vendor, device))) return 0;
    return this.context.refusals.refuse('ENODEV', `new_id never gave ${idKey(name, vendor, device)}`);
  }

  probe(dev: Dev): number {
    if (dev.driver !== null) return 0;
    for (const driver of this.registered.values()) {
      if (this.isMatch(driver, dev) && this.attach(driver, dev) === 0) break;
    }
    return 0;
  }

  /** A function that appeared after boot: its drivers are offered it, unless its physical function says no (pci_device_can_probe). */
  added(dev: Dev): void {
    const { physfn } = dev;
    if (physfn?.sriov?.driversAutoprobe === false && dev.driverOverride === null) return;
    this.probe(dev);
  }

  /** A function goes: its driver lets go of it first. 0 or -errno. */
  removed(dev: Dev): number {
    return dev.driver === null ? 0 : this.unbind(dev, dev.driver);
  }

  /** sriov_numvfs_store. */
  sriovNumVfs(dev: Dev, count: number): number {
    const { refusals } = this.context;
    const { totalVfs, numVfs } = dev.sriov ?? { totalVfs: 0, numVfs: 0 };
    if (count > totalVfs) return refusals.refuse('ERANGE', `${count} VFs are more than sriov_totalvfs, ${totalVfs}`);
    if (count === numVfs) return 0;
    const configure = this.registered.get(dev.driver ?? '')?.sriovConfigure;
    if (configure === undefined) {
      const why = dev.driver === null ? 'has no driver' : `is bound to ${dev.driver}, which`;
      return refusals.refuse('ENOENT', `${dev.name} ${why} that could configure SR-IOV`);
    }
    if (count > 0 && numVfs > 0)
      return refusals.refuse('EBUSY', `${numVfs} VFs are there; they have to go (0) before ${count} can come`);
    return Math.min(configure(dev, count), 0);
  }

  /** pci_match_device: an override binds to its driver alone. */
  private isMatch(driver: PciDriver<Dev>, dev: Dev): boolean {
    if (dev.driverOverride !== null) return dev.driverOverride === driver.name;
    return this.dynamic.has(idKey(driver.name, dev.vendorId, dev.deviceId)) || driver.matches(dev);
  }

  private attach(driver: PciDriver<Dev>, dev: Dev): number {
    const { refusals } = this.context;
    if (dev.driver !== null)
      return refusals.refuse('EBUSY', `${dev.name} is bound to ${dev.driver}`, undefined, 'unbind it first');
    if (claimsDma(driver.name) && (dev.iommuGroup?.dmaOwner ?? null) !== null) {
      return refusals.refuse(
        'EBUSY',
        `user space owns the DMA of group ${dev.iommuGroup?.id}, so that ${driver.name} cannot have it`,
      );
    }
    const error = driver.probe(dev);
    if (error === 0) dev.driver = driver.name;
    return error;
  }
}

/** A driver of the host that does nothing here but own its device. */
export function hostDriver<Dev extends PciDev>(
  name: string,
  matches: (dev: Dev) => boolean,
  sriovConfigure?: (dev: Dev, count: number) => number,
): PciDriver<Dev> {
  const driver: PciDriver<Dev> = {
    name,
    matches,
    probe: () => 0,
    remove: (dev) => Math.min(sriovConfigure?.(dev, 0) ?? 0, 0),
  };
  return sriovConfigure === undefined ? driver : { ...driver, sriovConfigure };
}

/**
 * vfio-pci: it matches nothing by itself, and registers with the VFIO core what it takes. `createOps` makes the device's operations, or answers
 * -errno.
 */
export function vfioPciDriver<Dev extends PciDev>(
  context: KernelContext,
  vfio: Vfio,
  createOps: (dev: Dev) => VfioDeviceOps | number,
  sriovConfigure?: (dev: Dev, count: number) => number,
): PciDriver<Dev> {
  return {
    ...(sriovConfigure === undefined ? {} : { sriovConfigure }),
    name: 'vfio-pci',
    matches: () => false,
    probe(dev) {
      if (dev.isBridge)
        return context.refusals.refuse('EINVAL', `${dev.name} is a bridge, and vfio-pci takes endpoints alone`);
      if (dev.iommuGroup === null) return context.refusals.refuse('EINVAL', `no IOMMU translates for ${dev.name}`);
      if ((dev.sriov?.numVfs ?? 0) > 0)
        return context.refusals.refuse('EBUSY', `${dev.name} has virtual functions that somebody else made`);
      const ops = createOps(dev);
      if (typeof ops === 'number') return ops;
      const device = vfio.register(dev, ops);
      return typeof device === 'number' ? device : 0;
    },
    remove(dev) {
      const error = (dev.sriov?.numVfs ?? 0) > 0 ? (sriovConfigure?.(dev, 0) ?? 0) : 0;
      return error < 0 ? error : vfio.unregister(dev);
    },
  };
}

const idKey = (driver: string, vendor: number, device: number): string =>
  `${driver} ${vendor.toString(16)} ${device.toString(16)}`;
