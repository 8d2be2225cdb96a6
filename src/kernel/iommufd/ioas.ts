/** An I/O address space: an io page table with an id, and the hardware page tables that follow it (struct iommufd_ioas). */
import type { IommuDomain, ReservedRegion } from '../../ports/iommu.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { DmaContext, IovaSpan } from '../vfio/doorbell-context.ts';
import type { IommufdContext } from './context.ts';
import { IommufdDevice } from './device.ts';
import type { HwptPaging } from './hwpt.ts';
import { IoPagetable } from './io-pagetable.ts';
import { IommufdObject } from './object.ts';

/** On whose account a user-given doorbell is reserved, in every IOAS. */
const DOORBELLS = {};

export class Ioas extends IommufdObject implements DmaContext {
  readonly type = 'ioas';
  readonly kind = 'iommufd';
  readonly iopt: IoPagetable;
  /** In the order in which they were made. */
  readonly hwpts: HwptPaging[] = [];

  constructor(ctx: IommufdContext) {
    super();
    this.iopt = new IoPagetable(ctx.context);
  }

  /** iommufd_ioas_alloc: the object has an id, and is not finalized. */
  static alloc(ctx: IommufdContext): Ioas {
    const ioas = new Ioas(ctx);
    ctx.objects.add(ioas);
    return ioas;
  }

  destroy(): void {
    this.iopt.unmapAll();
  }

  get domains(): readonly IommuDomain[] {
    return this.hwpts.map(({ domain }) => domain);
  }

  domainOf(dev: PciDev): IommuDomain | null {
    const domain = dev.iommuGroup?.domain ?? null;
    return domain !== null && this.domains.includes(domain) ? domain : null;
  }

  userMapping(start: number, end: number): IovaSpan | null {
    const area = this.iopt.areas.first(BigInt(start), BigInt(end));
    return area === null ? null : { start: Number(area.start), end: Number(area.last) };
  }

  reservedRegions(): readonly ReservedRegion[] {
    return this.iopt.reserved.flatMap(({ region }) => (region === null ? [] : [region]));
  }

  windowsOf(dev: PciDev): readonly ReservedRegion[] {
    return this.iopt.reserved.flatMap(({ owner, region }) => {
      const own = owner instanceof IommufdDevice && owner.dev.iommuGroup === dev.iommuGroup;
      return own && region?.type === 'sw-msi' ? [region] : [];
    });
  }

  reserve(start: number, end: number): void {
    this.iopt.addReserved({ start: BigInt(start), last: BigInt(end), owner: DOORBELLS, region: null });
  }

  release(start: number, end: number): void {
    const [first, last] = [BigInt(start), BigInt(end)];
    this.iopt.reserved = this.iopt.reserved.filter(
      (taken) => taken.owner !== DOORBELLS || taken.start !== first || taken.last !== last,
    );
  }
}
