/** A device without hardware, in a group of its own, behind an IOMMU without hardware. */
import { fget, fput } from '../../kernel/files.ts';
import { GroupPasids } from '../../kernel/iommu/group-pasids.ts';
import type { IommuGroup } from '../../kernel/iommu/iommu-group.ts';
import { detachDevice, type IommufdContext, IommufdDevice, type IommuOps } from '../../kernel/iommufd/index.ts';
import { IommufdObject } from '../../kernel/iommufd/object.ts';
import type { PciDev } from '../../kernel/pci/pci-dev.ts';
import type { RefusalLog } from '../../kernel/refusal.ts';
import type { IommuDomain, ReservedRegion } from '../../ports/iommu.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { MockDomain } from './mock-domain.ts';
import { MockNested } from './mock-nested.ts';
import { MockPasids } from './mock-pasids.ts';
import type { MockViommu } from './mock-viommu.ts';
import { CACHE_ENTRIES, DEVICE_CACHE, DEVICE_NO_DIRTY, DEVICE_PASID, PASID_WIDTH } from './structs.ts';

export class MockGroup implements IommuGroup {
  readonly id: number;
  readonly devices: PciDev[] = [];
  readonly defaultDomain: IommuDomain = new MockDomain('blocked');
  readonly blockingDomain: IommuDomain = this.defaultDomain;
  domain: IommuDomain = this.defaultDomain;
  dmaOwner: object | null = null;
  readonly ops: IommuOps;
  /** DEVICE_… bits of the device. */
  readonly flags: number;
  /** What the device remembers of translations, by entry. */
  readonly cache = new Array<number>(CACHE_ENTRIES).fill(DEVICE_CACHE);
  /** The vIOMMU whose stage 1 it translates through, and what it is called there. */
  guest: { readonly viommu: MockViommu; readonly virtualId: bigint } | null = null;
  readonly pasids: GroupPasids;
  private claims = 0;

  constructor(refusals: RefusalLog, id: number, ops: IommuOps, flags: number) {
    this.id = id;
    this.ops = ops;
    this.flags = flags;
    const most = (flags & DEVICE_PASID) === 0 ? 1 : 2 ** PASID_WIDTH;
    const pasids = new MockPasids(refusals, most, (domain) => this.canShare(domain));
    this.pasids = new GroupPasids(refusals, id, this.devices, pasids);
  }

  reservedRegions(): readonly ReservedRegion[] {
    return [];
  }

  hasIsolatedMsi(): boolean {
    return true;
  }

  allocateDomain(): IommuDomain {
    return new MockDomain('unmanaged');
  }

  claimDmaOwner(owner: object): number {
    if (this.dmaOwner !== null) return -ERRNO.EPERM;
    this.dmaOwner = owner;
    return 0;
  }

  releaseDmaOwner(): void {
    this.dmaOwner = null;
  }

  claimDeviceDmaOwner(owner: object): number {
    if (this.dmaOwner !== null && this.dmaOwner !== owner) return -ERRNO.EPERM;
    this.dmaOwner = owner;
    this.claims += 1;
    return 0;
  }

  releaseDeviceDmaOwner(): void {
    this.claims -= 1;
    if (this.claims === 0) this.dmaOwner = null;
  }

  attach(domain: IommuDomain): number {
    if (!this.canShare(domain)) return -ERRNO.EINVAL;
    if (domain.dirtyOps !== undefined && (this.flags & DEVICE_NO_DIRTY) !== 0) return -ERRNO.EINVAL;
    const viommu = domain instanceof MockNested ? domain.viommu : null;
    const [dev] = this.devices;
    const virtualId = dev === undefined ? null : (viommu?.virtualIdOf(dev) ?? null);
    if (viommu !== null && virtualId === null) return -ERRNO.ENOENT;
    this.guest = viommu === null || virtualId === null ? null : { viommu, virtualId };
    this.domain = domain;
    return 0;
  }

  detach(): void {
    this.guest = null;
    this.domain = this.blockingDomain;
  }

  replace(domain: IommuDomain): number {
    return this.attach(domain);
  }

  canShare(domain: IommuDomain): boolean {
    return domain instanceof MockDomain || domain instanceof MockNested;
  }
}

/** The mock behind a bound device; null: it is no mock's. */
export function mockOf({ igroup }: IommufdDevice): MockGroup | null {
  return igroup.group instanceof MockGroup ? igroup.group : null;
}

/** What iommufd asks of a device: a name and a group. It has no configuration space. */
export function mockDevice(number: number, group: MockGroup): PciDev {
  const dev: PciDev = {
    address: { segment: 0xffff, bus: 0, device: 0, function: 0 },
    name: `iommufd_mock${number}`,
    requester: -1 - number,
    parent: null,
    vendorId: 0xffff,
    deviceId: 0xffff,
    classCode: 0,
    configSize: 256,
    isBridge: false,
    configRead: () => 0xffff_ffff,
    configWrite: () => {},
    capability: () => 0,
    extendedCapability: () => 0,
    resources: [],
    irq: 0,
    driver: 'iommufd_mock',
    driverOverride: null,
    iommuGroup: group,
    enable: () => 0,
    disable: () => {},
    setMaster: () => {},
    clearMaster: () => {},
    canReset: false,
    tryReset: () => -ERRNO.ENOTTY,
  };
  group.devices.push(dev);
  return dev;
}

/** What user space destroys to take a mock device away: it detaches and unbinds. */
export class SelftestDevice extends IommufdObject {
  readonly type = 'selftest';
  idev: IommufdDevice | null = null;

  destroy(): void {
    if (this.idev === null) return;
    // Linux forgets PASIDs here, and warns of the device that is still used.
    for (const pasid of [...this.idev.igroup.pasids.keys()]) detachDevice(this.idev, pasid);
    detachDevice(this.idev);
    release(this.idev);
  }
}

/** Binds; a mock device does not keep the iommufd open, which would else never close: nothing but the iommufd itself knows of it. */
export function bindMock(ctx: IommufdContext, dev: PciDev): IommufdDevice | number {
  const idev = IommufdDevice.bindTo(ctx, dev);
  if (typeof idev !== 'number') fput(ctx.file);
  return idev;
}

export function release(idev: IommufdDevice): void {
  fget(idev.ctx.file);
  idev.unbind();
}
