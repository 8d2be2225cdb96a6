/** The seam by which a device's user-given doorbell comes before the kernel's window (DESIGN 4, rule 8). */
import type { PciDev } from '../pci/pci-dev.ts';
import type { MsiDesc } from './msi-desc.ts';

export interface UserDoorbell {
  /**
   * Finds and maps the page for the doorbell's physical address in the range that user space gave the vector. 0 with desc.doorbellIova and
   * doorbellShift set, -errno, or null: user space gave this vector nothing, the kernel's window serves it.
   */
  prepare(desc: MsiDesc, doorbell: number): number | null;
  /** The vector was freed. True when its page was the user's. */
  unprepare(desc: MsiDesc): boolean;
}

const doorbells = new WeakMap<PciDev, UserDoorbell>();

export const userDoorbell = (dev: PciDev): UserDoorbell | null => doorbells.get(dev) ?? null;

export function setUserDoorbell(dev: PciDev, doorbell: UserDoorbell | null): void {
  if (doorbell === null) doorbells.delete(dev);
  else doorbells.set(dev, doorbell);
}
