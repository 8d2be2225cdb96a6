/** What iommufd asks of an IOMMU that it has no built-in driver for (the part of struct iommu_ops that serves user space). */
import type { IommuDomain } from '../../ports/iommu.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { IommufdContext } from './context.ts';
import type { HwptPaging } from './hwpt.ts';
import type { Invalidated, UserArray, UserData } from './user-data.ts';
import type { Viommu } from './viommu.ts';

/** What GET_HW_INFO shows. */
export interface HwInfo {
  readonly type: number;
  readonly data: Uint8Array;
}

/** Results are what was made, or -errno with a refusal noted. */
export interface IommuOps {
  /** The IOMMU itself: only devices of one share page tables and vIOMMUs. */
  readonly iommu: object;
  /** `wanted` 0: whatever the driver has. */
  hwInfo(dev: PciDev, wanted: number): HwInfo | number;
  /** IOMMU_CAP_DIRTY_TRACKING. */
  dirtyTracking(dev: PciDev): boolean;
  /** log2 of how many PASIDs the device may use; 0 is none. */
  maxPasidLog2(dev: PciDev): number;
  /** A PASID without a page table of its own is one of a table that user space keeps (iommu_ops user_pasid_table). */
  readonly userPasidTable: boolean;
  /** domain_alloc_paging_flags, without FAULT_ID_VALID. */
  allocPaging(dev: PciDev, flags: number, data: UserData | null): IommuDomain | number;
  /** domain_alloc_nested over a nest parent, without FAULT_ID_VALID; absent: nests under a vIOMMU only, or not at all. */
  allocNested?(dev: PciDev, parent: IommuDomain, flags: number, data: UserData): NestedTable | number;
  /** get_viommu_size: is there a vIOMMU of this type? */
  hasViommu(dev: PciDev, type: number): boolean;
  /** viommu_init: the object has its id, and is not finalized. */
  initViommu(ctx: IommufdContext, parent: HwptPaging, data: UserData | null): Viommu | number;
}

/** A page table whose stage 1 is user space's. */
export interface NestedTable extends IommuDomain {
  readonly type: 'nested';
  /** cache_invalidate_user; absent: its vIOMMU does that. */
  invalidate?(array: UserArray): Invalidated;
}

/** The IOMMU instance of a group (iommu_device). */
export const iommuOf = (group: IommuGroup): object | undefined => group.ops?.iommu ?? group.driver;
