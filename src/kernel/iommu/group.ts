/** An IOMMU group at work: whose it is, and what its streams translate through (drivers/iommu/iommu.c). */
import type { IommuDomain, IommuDriver, ReservedRegion } from '../../ports/iommu.ts';
import { Prot } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import { enablePasid, maxPasids } from '../pci/pasid.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { DriverPasids } from './driver-pasids.ts';
import { GroupPasids } from './group-pasids.ts';
import type { IommuGroup } from './iommu-group.ts';
import { NestedDomain } from './nested-domain.ts';
import { PagingDomain } from './paging-domain.ts';
import { dmaAliases } from './pci-topology.ts';
import { mergeRegions } from './reserved.ts';

/** What the group asks of the rest of the kernel. */
export interface GroupCallbacks {
  /** Does a driver that uses the DMA API hold the device? It counts as an owner of the group. */
  readonly isBoundToHostDriver: (dev: PciDev) => boolean;
  /** The group got another default domain with tables: it needs what the first one had (its MSI cookie). */
  readonly onDefaultDomain: (group: PciIommuGroup) => void;
  /** Does an isolated MSI domain serve the device (msi_device_has_isolated_msi)? */
  readonly isMsiIsolated: (dev: PciDev) => boolean;
}

export class PciIommuGroup implements IommuGroup {
  readonly id: number;
  readonly driver: IommuDriver;
  domain: IommuDomain;
  dmaOwner: object | null = null;
  /** What the host's own drivers use; see `changeDefault`. */
  defaultDomain: IommuDomain;
  private readonly context: KernelContext;
  private readonly callbacks: GroupCallbacks;
  readonly pasids: GroupPasids;
  private readonly members: PciDev[] = [];
  /** Claims of the owner: one for a whole group, or one for each device. */
  private claims = 0;

  constructor(
    context: KernelContext,
    driver: IommuDriver,
    id: number,
    defaultDomain: IommuDomain,
    callbacks: GroupCallbacks,
  ) {
    this.context = context;
    this.driver = driver;
    this.id = id;
    this.defaultDomain = defaultDomain;
    this.domain = defaultDomain;
    this.callbacks = callbacks;
    this.pasids = new GroupPasids(context.refusals, id, this.members, new DriverPasids(driver));
  }

  get devices(): readonly PciDev[] {
    return this.members;
  }

  get blockingDomain(): IommuDomain {
    return this.driver.blocked;
  }

  /** A device joins: what firmware wants mapped is mapped 1:1, and its streams follow the group. 0 or -errno. */
  add(dev: PciDev): number {
    this.enablePasids(dev);
    this.mapDirect(dev);
    const refused = this.point(dev, this.domain);
    if (refused !== 0) return refused;
    this.members.push(dev);
    dev.iommuGroup = this;
    return 0;
  }

  /** The device goes (unplugged): its streams are aborted. */
  remove(dev: PciDev): void {
    const index = this.members.indexOf(dev);
    if (index < 0) return;
    this.members.splice(index, 1);
    dev.iommuGroup = null;
    this.point(dev, this.blockingDomain);
  }

  reservedRegions(): readonly ReservedRegion[] {
    return mergeRegions(this.members.flatMap((dev) => this.driver.reservedRegions(dev.requester)));
  }

  hasIsolatedMsi(): boolean {
    return this.members.every((dev) => this.callbacks.isMsiIsolated(dev));
  }

  allocateDomain(stage?: 1 | 2, dirty = false): IommuDomain | number {
    const [first] = this.members;
    if (first === undefined) return this.context.refusals.refuse('ENODEV', `group ${this.id} has no devices`);
    return this.driver.allocate(first.requester, stage, 'unmanaged', dirty);
  }

  claimDmaOwner(owner: object): number {
    if (this.dmaOwner !== null) {
      return this.context.refusals.refuse('EPERM', `group ${this.id} is owned already`);
    }
    return this.takeOwnership(owner);
  }

  releaseDmaOwner(): void {
    if (this.dmaOwner === null) return;
    this.dmaOwner = null;
    this.claims = 0;
    this.setDomain(this.defaultDomain);
  }

  /** One device's claim (a cdev's bind): the same owner may claim once for each device (iommu_device_claim_dma_owner). */
  claimDeviceDmaOwner(owner: object): number {
    if (this.dmaOwner === null) return this.takeOwnership(owner);
    if (this.dmaOwner !== owner) return this.context.refusals.refuse('EPERM', `group ${this.id} has another owner`);
    this.claims++;
    return 0;
  }

  releaseDeviceDmaOwner(): void {
    if (this.claims > 1) this.claims--;
    else this.releaseDmaOwner();
  }

  attach(domain: IommuDomain): number {
    if (this.domain !== this.defaultDomain && this.domain !== this.blockingDomain) {
      return this.context.refusals.refuse('EBUSY', `group ${this.id} is attached to another domain`);
    }
    if (!this.canShare(domain)) {
      return this.context.refusals.refuse('EINVAL', `the domain belongs to another IOMMU than group ${this.id}`);
    }
    return this.setDomain(domain);
  }

  detach(): void {
    this.setDomain(this.dmaOwner === null ? this.defaultDomain : this.blockingDomain);
  }

  replace(domain: IommuDomain): number {
    if (!this.canShare(domain)) {
      return this.context.refusals.refuse('EINVAL', `the domain belongs to another IOMMU than group ${this.id}`);
    }
    return this.setDomain(domain);
  }

  canShare(domain: IommuDomain): boolean {
    if (domain instanceof NestedDomain) return domain.parent.owner === this.driver;
    if (domain instanceof PagingDomain) return domain.owner === this.driver;
    return domain === this.driver.identity || domain === this.driver.blocked;
  }

  /**
   * Another default domain, as a write to sysfs `type` asks for. EPERM: owned, or a host driver is bound; the old one is
   * freed when it has tables.
   */
  changeDefault(type: 'dma' | 'identity'): number {
    if (this.isTaken()) return this.context.refusals.refuse('EPERM', `group ${this.id} is in use`);
    const [first] = this.members;
    if (first === undefined) return this.context.refusals.refuse('EPERM', `group ${this.id} has no devices`);
    const domain = type === 'identity' ? this.driver.identity : this.driver.allocate(first.requester, undefined, 'dma');
    if (typeof domain === 'number') return domain;
    const old = this.defaultDomain;
    this.defaultDomain = domain;
    for (const dev of this.members) this.mapDirect(dev);
    const refused = this.setDomain(domain);
    if (refused !== 0) this.defaultDomain = old;
    (refused === 0 ? old : domain).free();
    if (refused === 0 && type === 'dma') this.callbacks.onDefaultDomain(this);
    return refused;
  }

  /** arm_smmu_enable_pasid: also an SMMU without substreams turns on what a function has. */
  private enablePasids(dev: PciDev): void {
    const { driver } = this;
    if (driver.enablePasids === undefined) return;
    const most = maxPasids(dev);
    const enabled = most > 0 && enablePasid(dev);
    if (most > 0 && !enabled) this.context.log(`pci ${dev.name}: Failed to enable PASID`);
    driver.enablePasids(dev.requester, enabled ? Math.log2(most) : 0);
  }

  private isTaken(): boolean {
    return this.dmaOwner !== null || this.members.some((dev) => this.callbacks.isBoundToHostDriver(dev));
  }

  private takeOwnership(owner: object): number {
    const { refusals } = this.context;
    const bound = this.members.find((dev) => this.callbacks.isBoundToHostDriver(dev));
    if (bound !== undefined) {
      return refusals.refuse('EPERM', `${bound.name} of group ${this.id} is bound to the host driver ${bound.driver}`);
    }
    if (this.domain !== this.defaultDomain || !this.pasids.empty) {
      return refusals.refuse('EBUSY', `group ${this.id} is not in its default domain`);
    }
    const refused = this.setDomain(this.blockingDomain);
    if (refused !== 0) return refused;
    this.dmaOwner = owner;
    this.claims = 1;
    return 0;
  }

  /** All devices move, or none. */
  private setDomain(domain: IommuDomain): number {
    if (domain === this.domain) return 0;
    if (domain === this.blockingDomain) {
      const direct = this.members.find((dev) => this.requiresDirect(dev));
      if (direct !== undefined) {
        const why = `firmware has requested that ${direct.name} keeps a 1:1 mapping, so it cannot be taken from the host`;
        return this.context.refusals.refuse('EINVAL', why);
      }
    }
    const old = this.domain;
    for (let i = 0; i < this.members.length; i++) {
      const refused = this.point(this.members[i], domain);
      if (refused === 0) continue;
      for (const moved of this.members.slice(0, i + 1)) this.point(moved, old);
      return refused;
    }
    this.domain = domain;
    return 0;
  }

  /** Every requester id that the device's transactions may carry. */
  private point(dev: PciDev, domain: IommuDomain): number {
    for (const requester of [dev.requester, ...dmaAliases(dev).map((alias) => alias.requester)]) {
      const refused = this.driver.attach(requester, domain);
      if (refused !== 0) return refused;
    }
    return 0;
  }

  private requiresDirect(dev: PciDev): boolean {
    return this.driver.reservedRegions(dev.requester).some(({ type }) => type === 'direct');
  }

  /** iommu_create_device_direct_mappings. */
  private mapDirect(dev: PciDev): void {
    const domain = this.defaultDomain;
    if (!(domain instanceof PagingDomain)) return;
    const [page] = domain.pageSizes;
    for (const { start, end, type } of this.driver.reservedRegions(dev.requester)) {
      if (type !== 'direct' && type !== 'direct-relaxable') continue;
      const first = start - (start % page);
      for (let at = first; at <= end; at += page) {
        if (domain.lookup(at) < 0) domain.map(at, at, page, Prot.READ | Prot.WRITE);
      }
    }
  }
}
