/** Where a device's owner wants the window for software MSIs, as posted for Linux in October 2025: struct iommufd_device's sw_msi_start and _size. */
import type { ReservedRegion } from '../../ports/iommu.ts';

/** PHYS_ADDR_MAX: no start was given. */
export const NO_START = 2n ** 64n - 1n;

export class SwMsiWindow {
  /** First IOVA, or NO_START. */
  start = NO_START;
  /** Bytes; 0: the driver's window stands, whatever `start` says. */
  size = 0n;

  /** The region that takes the place of the driver's software MSI window. */
  instead(region: ReservedRegion): ReservedRegion {
    if (this.size === 0n) return region;
    return { ...region, start: Number(this.start), end: Number(this.start + this.size - 1n) };
  }
}
