/** A page table whose stage 1 is user space's: struct iommufd_hwpt_nested. */
import type { NestedDomain } from '../iommu/nested-domain.ts';
import { setMsiCookie } from '../irq/msi-cookie.ts';
import type { HwptPaging } from './hwpt.ts';
import { IommufdObject } from './object.ts';
import { IommufdCookie } from './sw-msi.ts';
import type { Viommu } from './viommu.ts';

export class HwptNested extends IommufdObject {
  readonly type = 'hwpt-nested';
  readonly viommu: Viommu;
  readonly domain: NestedDomain;
  /** See HwptPaging. */
  onDestroy: () => void = () => {};

  /** Takes an id; the caller finalizes. Doorbell pages go to the stage 2. */
  constructor(viommu: Viommu, domain: NestedDomain) {
    super();
    this.viommu = viommu;
    this.domain = domain;
    viommu.users += 1;
    setMsiCookie(domain, new IommufdCookie(viommu.ctx, viommu.parent));
    viommu.ctx.objects.add(this);
  }

  /** find_hwpt_paging. */
  get paging(): HwptPaging {
    return this.viommu.parent;
  }

  /** A device left. */
  put(): void {
    this.users -= 1;
  }

  destroy(): void {
    setMsiCookie(this.domain, null);
    this.viommu.users -= 1;
    this.onDestroy();
  }
}
