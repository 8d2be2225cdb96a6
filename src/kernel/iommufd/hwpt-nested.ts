/** A page table whose stage 1 is user space's: struct iommufd_hwpt_nested. */
import { setMsiCookie } from '../irq/msi-cookie.ts';
import type { FaultQueue } from './fault.ts';
import type { HwptPaging } from './hwpt.ts';
import type { NestedTable } from './iommu-ops.ts';
import { IommufdObject } from './object.ts';
import { IommufdCookie } from './sw-msi.ts';
import type { Viommu } from './viommu.ts';

export class HwptNested extends IommufdObject {
  readonly type = 'hwpt-nested';
  /** Stage 2. */
  readonly parent: HwptPaging;
  /** null: it lies on the stage 2 without one. */
  readonly viommu: Viommu | null;
  readonly domain: NestedTable;
  /** See HwptPaging. */
  fault: FaultQueue | null = null;
  readonly pasidCompat: boolean;

  /** Takes an id; the caller finalizes. Doorbell pages go to the stage 2. */
  constructor(parent: HwptPaging, viommu: Viommu | null, domain: NestedTable, pasidCompat: boolean) {
    super();
    this.pasidCompat = pasidCompat;
    this.parent = parent;
    this.viommu = viommu;
    this.domain = domain;
    (viommu ?? parent).users += 1;
    setMsiCookie(domain, new IommufdCookie(parent.ctx, parent));
    parent.ctx.objects.add(this);
  }

  /** find_hwpt_paging. */
  get paging(): HwptPaging {
    return this.parent;
  }

  /** A device left. */
  put(): void {
    this.users -= 1;
  }

  destroy(): void {
    setMsiCookie(this.domain, null);
    this.domain.free();
    (this.viommu ?? this.parent).users -= 1;
    if (this.fault !== null) this.fault.users -= 1;
  }
}
