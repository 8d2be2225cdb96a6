/** IOMMU drivers, domains and groups of the simulated kernel. */
export { ArmSmmuV3Driver, SW_MSI } from './arm-smmu-v3/driver.ts';
export { describeEvent } from './arm-smmu-v3/event-queue.ts';
export { type GroupCallbacks, PciIommuGroup } from './group.ts';
export { IommuGroups, type IommuGroupsOptions } from './groups.ts';
export { describeFault, IntelVtdDriver, IOAPIC_RANGE } from './intel/driver.ts';
export type { IommuGroup } from './iommu-group.ts';
export { PagingDomain } from './paging-domain.ts';
export { mergeRegions, resvRegionText } from './reserved.ts';
