/** What an iommufd knows of an IOMMU group with bound devices: struct iommufd_group. */
import type { IommuGroup } from '../iommu/iommu-group.ts';
import type { IommufdContext } from './context.ts';
import type { IommufdDevice } from './device.ts';
import type { HwptPaging } from './hwpt.ts';
import type { HwptNested } from './hwpt-nested.ts';

/** What a device can be attached to. */
export type Hwpt = HwptPaging | HwptNested;

/** A page table and the devices of a group that were attached to it with one PASID: struct iommufd_attach. */
export interface PasidAttach {
  hwpt: Hwpt;
  readonly devices: Set<IommufdDevice>;
}

export class IommufdGroup {
  readonly ctx: IommufdContext;
  readonly group: IommuGroup;
  /** Bound devices. */
  references = 0;
  readonly bound: IommufdDevice[] = [];
  /** What all devices of the group translate through, or null. */
  hwpt: Hwpt | null = null;
  /** Devices that were attached, in that order; the group moves with the first and the last. */
  readonly attached: IommufdDevice[] = [];
  /** By PASID, without 0, which is `hwpt` and `attached` (pasid_attach). */
  readonly pasids = new Map<number, PasidAttach>();
  /** Doorbell pages, by id in the file's table, that vectors of the group were programmed with (required_sw_msi). */
  readonly requiredSwMsi = new Set<number>();

  constructor(ctx: IommufdContext, group: IommuGroup) {
    this.ctx = ctx;
    this.group = group;
  }
}
