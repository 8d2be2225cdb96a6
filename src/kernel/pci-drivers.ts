/** The driver core's side of PCI: which driver has a device, and what sysfs's bind and unbind do (drivers/base/bus.c, pci-driver.c). */
import type { PciDev } from './pci/pci-dev.ts';

/** Drivers that leave DMA ownership to somebody else (driver_managed_dma), so that a group with them can still be claimed. */
const MANAGED_DMA: ReadonlySet<string> = new Set(['vfio-pci', 'pci-stub', 'pcieport']);

/** Does a device with this driver keep its group from being claimed by user space? */
export const claimsDma = (driver: string | null): boolean => driver !== null && !MANAGED_DMA.has(driver);

/** One driver: probe and remove. */
export interface PciDriver {
  readonly name: string;
  /** Takes the device: 0 or -errno. */
  probe(dev: PciDev): number;
  /** Gives it back: 0, or -errno when it is in use (Linux waits then; nothing waits here). */
  remove(dev: PciDev): number;
}

/** What sysfs writes to. */
export interface DriverCore {
  readonly devices: readonly PciDev[];
  /** Names of registered drivers. */
  readonly drivers: readonly string[];
  bind(dev: PciDev, driver: string): number;
  unbind(dev: PciDev): number;
  setOverride(dev: PciDev, driver: string | null): void;
  /** Adds a vendor and device id to a driver, and offers it the devices that match and have no driver. */
  newId(driver: string, vendor: number, device: number): number;
  removeId(driver: string, vendor: number, device: number): number;
  /** Offers a device without a driver to those that match it (drivers_probe). */
  probe(dev: PciDev): number;
}
