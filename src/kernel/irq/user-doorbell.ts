/** The seam by which a device's user-given doorbell comes before the kernel's window (docs/doorbell.md, rule 8). */
import type { IommuDomain } from '../../ports/iommu.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { DmaContext } from '../vfio/doorbell-context.ts';
import type { MsiDesc } from './msi-desc.ts';
import type { MsiMode } from './pci-irqs.ts';

export interface UserDoorbell {
  /**
   * Finds and maps the page for the doorbell's physical address in the range that user space gave the vector. 0 with desc.doorbellIova and
   * doorbellShift set, -errno, or null: user space gave this vector nothing, the kernel's window serves it.
   */
  prepare(desc: MsiDesc, doorbell: number): number | null;
  /** The vector was freed. True when its page was the user's. */
  unprepare(desc: MsiDesc): boolean;
  /** The device is about to translate through another domain (rules 11 and 17): everything stands there already, or -errno and nothing does. */
  beginMove?(site: { readonly dma: DmaContext; readonly domain: IommuDomain }): DoorbellSwitch | number;
  /** The device left its domain, and its stream is blocked. */
  detach?(): void;
  /**
   * VFIO_IRQ_SET_ACTION_PREPARE: stage-1 addresses for vectors [start, start + iovas.length) of a nested device, from their next allocation on;
   * null un-sets those of [start, start + count). 0 or -errno.
   */
  prepareStage1?(mode: MsiMode, start: number, iovas: readonly bigint[] | null, count?: number): number;
}

/** Doorbells that stand at the old place and at the new one, until the switch was made or failed. */
export interface DoorbellSwitch {
  commit(): void;
  cancel(): void;
}

const doorbells = new WeakMap<PciDev, UserDoorbell>();

export const userDoorbell = (dev: PciDev): UserDoorbell | null => doorbells.get(dev) ?? null;

export function setUserDoorbell(dev: PciDev, doorbell: UserDoorbell | null): void {
  if (doorbell === null) doorbells.delete(dev);
  else doorbells.set(dev, doorbell);
}
