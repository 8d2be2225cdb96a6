/** The MSI cookie of a host driver's default domain (dma-iommu.c, IOMMU_COOKIE_DMA_IOVA): doorbells among the driver's other IOVAs. */
import { hex } from '../../ports/address.ts';
import { type IommuDomain, Prot, type ReservedRegion } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import type { MsiCookie } from './msi-cookie.ts';
import type { MsiDesc } from './msi-desc.ts';
import { prepared } from './msi-desc-iova.ts';

const FOUR_GIB = 2 ** 32;

/**
 * PCI devices get IOVAs below 4 GiB from the top down (iommu_dma_alloc_iova), in pages of the domain's granule: the first doorbell of an SMMU
 * with 4 KiB pages stands at 0xfffff000. Reserved regions are left out, but for SW_MSI, which this allocator itself would be.
 */
export class DmaCookie implements MsiCookie {
  readonly kind = 'dma';
  private readonly context: KernelContext;
  private readonly domain: IommuDomain;
  private readonly granule: number;
  private readonly reserved: readonly ReservedRegion[];
  readonly pages: { readonly iova: number; readonly pa: number }[] = [];
  private top: number;

  constructor(context: KernelContext, domain: IommuDomain, reserved: readonly ReservedRegion[]) {
    this.context = context;
    this.domain = domain;
    this.granule = domain.pageSizes[0] ?? context.pageSize;
    this.reserved = reserved.filter((region) => region.type !== 'sw-msi');
    this.top = Math.min(FOUR_GIB, domain.apertureEnd + 1);
  }

  prepare(desc: MsiDesc, doorbell: number): number {
    const pa = doorbell - (doorbell % this.granule);
    const known = this.pages.find((page) => page.pa === pa);
    if (known !== undefined) return prepared(desc, known.iova, this.granule);
    const iova = this.below(this.top);
    const error =
      iova <= this.domain.apertureStart
        ? -1
        : this.domain.map(iova, pa, this.granule, Prot.WRITE | Prot.NOEXEC | Prot.MMIO);
    if (error < 0) {
      return this.context.refusals.refuse('ENOMEM', `the doorbell page ${hex(pa)} found no IOVA in the host's domain`);
    }
    this.top = iova;
    this.pages.push({ iova, pa });
    return prepared(desc, iova, this.granule);
  }

  unprepare(_desc: MsiDesc): void {}

  /** The highest free page below `top`. */
  private below(top: number): number {
    let iova = Math.floor(top / this.granule) * this.granule - this.granule;
    const blocker = (): ReservedRegion | undefined =>
      this.reserved.find((region) => region.start < iova + this.granule && region.end >= iova);
    for (let region = blocker(); region !== undefined; region = blocker()) {
      iova = Math.floor(region.start / this.granule) * this.granule - this.granule;
    }
    return iova;
  }
}

export function createDmaCookie(
  context: KernelContext,
  domain: IommuDomain,
  reserved: readonly ReservedRegion[] = [],
): DmaCookie {
  return new DmaCookie(context, domain, reserved);
}
