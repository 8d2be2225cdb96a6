/** The PASIDs of a group and the domains behind them: pasid_array, and iommu_attach_device_pasid and its kin (drivers/iommu/iommu.c). */
import type { IommuDomain } from '../../ports/iommu.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { RefusalLog } from '../refusal.ts';

/** What the group's IOMMU does for it. */
export interface PasidOps {
  /** dev->iommu->max_pasids: PASIDs below it can be used, 0 among them; 0: the device has none, and nothing is ever done for it. */
  maxPasids(dev: PciDev): number;
  /** Has the domain a set_dev_pasid at all, and the IOMMU a blocked domain with one? */
  canSetPasid(domain: IommuDomain): boolean;
  /** Is the domain of this IOMMU's driver? */
  isCompatible(domain: IommuDomain): boolean;
  /** set_dev_pasid: 0 or -errno with nothing changed; a null domain blocks, and cannot fail. */
  setPasid(dev: PciDev, pasid: number, domain: IommuDomain | null, old: IommuDomain | null): number;
}

export class GroupPasids {
  private readonly refusals: RefusalLog;
  private readonly group: number;
  private readonly devices: readonly PciDev[];
  private readonly ops: PasidOps;
  private readonly domains = new Map<number, IommuDomain>();

  /** `devices` are the group's, as they come and go. */
  constructor(refusals: RefusalLog, group: number, devices: readonly PciDev[], ops: PasidOps) {
    this.refusals = refusals;
    this.group = group;
    this.devices = devices;
    this.ops = ops;
  }

  /** Nothing has a PASID here. */
  get empty(): boolean {
    return this.domains.size === 0;
  }

  /** What a PASID goes through, or null. */
  domainOf(pasid: number): IommuDomain | null {
    return this.domains.get(pasid) ?? null;
  }

  maxPasids(dev: PciDev): number {
    return this.ops.maxPasids(dev);
  }

  /**
   * iommu_attach_device_pasid, for all devices of the group that have PASIDs: -EOPNOTSUPP (the domain is of a kind that PASIDs cannot have), -EINVAL
   * (another IOMMU's, PASID 0, or beyond what a device has), -EBUSY (attached already), or what the driver says.
   */
  attach(domain: IommuDomain, pasid: number): number {
    const { refusals, devices, ops } = this;
    const error = this.check(domain, pasid);
    if (error < 0) return error;
    const small = devices.find((dev) => ops.maxPasids(dev) > 0 && pasid >= ops.maxPasids(dev));
    if (small !== undefined) {
      const why = `PASID ${pasid} is not below the ${ops.maxPasids(small)} that ${small.name} and its IOMMU have together`;
      return refusals.refuse('EINVAL', why, 'pasid');
    }
    if (this.domains.has(pasid)) {
      return refusals.refuse('EBUSY', `PASID ${pasid} of group ${this.group} is attached already`, 'pasid');
    }
    const refused = this.setAll(domain, pasid, null);
    if (refused === 0) this.domains.set(pasid, domain);
    return refused;
  }

  /** iommu_replace_device_pasid: on an error the old domain stays. -EINVAL also for a PASID that is not attached. */
  replace(domain: IommuDomain, pasid: number): number {
    const error = this.check(domain, pasid);
    if (error < 0) return error;
    const old = this.domains.get(pasid);
    if (old === undefined) {
      return this.refusals.refuse('EINVAL', `PASID ${pasid} of group ${this.group} is not attached`, 'pasid');
    }
    const refused = old === domain ? 0 : this.setAll(domain, pasid, old);
    if (refused === 0) this.domains.set(pasid, domain);
    return refused;
  }

  /** iommu_detach_device_pasid: from now on requests with it are refused. */
  detach(pasid: number): void {
    const old = this.domains.get(pasid);
    if (old === undefined) return;
    for (const dev of this.devices) if (this.ops.maxPasids(dev) > 0) this.ops.setPasid(dev, pasid, null, old);
    this.domains.delete(pasid);
  }

  private check(domain: IommuDomain, pasid: number): number {
    const { refusals, ops, group } = this;
    if (!ops.canSetPasid(domain)) {
      return refusals.refuse(
        'EOPNOTSUPP',
        `no PASID goes through a domain of type ${domain.type} of group ${group}`,
        'pt_id',
      );
    }
    if (!ops.isCompatible(domain)) {
      return refusals.refuse('EINVAL', `the domain belongs to another IOMMU driver than group ${group}`, 'pt_id');
    }
    return pasid === 0 ? refusals.refuse('EINVAL', 'PASID 0 stands for requests without one', 'pasid') : 0;
  }

  /** __iommu_set_group_pasid: all devices, or none. */
  private setAll(domain: IommuDomain, pasid: number, old: IommuDomain | null): number {
    const { ops } = this;
    const able = this.devices.filter((dev) => ops.maxPasids(dev) > 0);
    for (const [i, dev] of able.entries()) {
      const refused = ops.setPasid(dev, pasid, domain, old);
      if (refused === 0) continue;
      for (const moved of able.slice(0, i)) ops.setPasid(moved, pasid, old, domain);
      return refused;
    }
    return 0;
  }
}
