/** What an IOMMU's driver has for the PASIDs of a group. */
import type { IommuDomain, IommuDriver } from '../../ports/iommu.ts';
import { maxPasids } from '../pci/pasid.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { PasidOps } from './group-pasids.ts';
import { PagingDomain } from './paging-domain.ts';

export class DriverPasids implements PasidOps {
  private readonly driver: IommuDriver;

  constructor(driver: IommuDriver) {
    this.driver = driver;
  }

  /** dev_iommu_get_max_pasids: what the function and the IOMMU have together. */
  maxPasids(dev: PciDev): number {
    return Math.min(maxPasids(dev), this.driver.maxPasids ?? 0);
  }

  /** Domains with page tables have it, whichever stage they are; neither identity nor nested ones of the SMMU do. */
  canSetPasid(domain: IommuDomain): boolean {
    return domain instanceof PagingDomain;
  }

  /** domain_iommu_ops_compatible: any unit's of the same kind. */
  isCompatible(domain: IommuDomain): boolean {
    return domain instanceof PagingDomain && domain.owner.name === this.driver.name;
  }

  setPasid(dev: PciDev, pasid: number, domain: IommuDomain | null): number {
    return this.driver.setPasid?.(dev.requester, pasid, domain ?? this.driver.blocked) ?? 0;
  }
}
