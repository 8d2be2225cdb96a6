/** An IOMMU group: the unit of isolation and of ownership (drivers/iommu/iommu.c). */
import type { IommuDomain, IommuDriver, ReservedRegion } from '../../ports/iommu.ts';
import type { IommuOps } from '../iommufd/iommu-ops.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { GroupPasids } from './group-pasids.ts';

export interface IommuGroup {
  /** The number in /sys/kernel/iommu_groups. */
  readonly id: number;
  readonly devices: readonly PciDev[];
  /** Of the IOMMU; absent where a test stands in for one. */
  readonly driver?: IommuDriver;
  /** What iommufd asks of an IOMMU whose driver is not built in. */
  readonly ops?: IommuOps;
  /** What the host's own drivers use. */
  readonly defaultDomain: IommuDomain;
  /** Where ownership without an attachment points. */
  readonly blockingDomain: IommuDomain;
  /** What the streams translate through now. */
  readonly domain: IommuDomain;
  /** Sorted by start, merged within one type, as sysfs shows them. */
  reservedRegions(): readonly ReservedRegion[];
  /** All devices' MSI domains are isolated, or the platform isolates. */
  hasIsolatedMsi(): boolean;
  /** A new paging domain for this group's IOMMU, `dirty` with dirtyOps; or -errno. */
  allocateDomain(stage?: 1 | 2, dirty?: boolean): IommuDomain | number;
  /** EPERM: somebody owns it, or a host driver is bound to one of its devices; EBUSY: the domain is not the default one. */
  claimDmaOwner(owner: object): number;
  releaseDmaOwner(): void;
  /** One device's claim (a cdev's bind): the same owner may claim once for each device. Errors as claimDmaOwner. */
  claimDeviceDmaOwner(owner: object): number;
  releaseDeviceDmaOwner(): void;
  readonly dmaOwner: object | null;
  /** EBUSY: not in the default or blocking domain. EINVAL: a device that firmware wants mapped 1:1. */
  attach(domain: IommuDomain): number;
  /** Back to the blocking domain while owned, else to the default one. */
  detach(): void;
  /** Switches without a moment outside either; on failure the old one stays. */
  replace(domain: IommuDomain): number;
  /** Can this domain be shared with this group (same IOMMU instance and driver)? */
  canShare(domain: IommuDomain): boolean;
  /** Its PASIDs; absent where the IOMMU has none to give. */
  readonly pasids?: GroupPasids;
  /** Another default domain, as sysfs `type` asks for: 0 or -errno. Absent where the platform keeps the first one. */
  changeDefault?(type: 'dma' | 'identity'): number;
}
