/** Dirty tracking of a stage 1 (arm_smmu_dirty_ops). */
import type { DirtyOps } from '../../../ports/iommu.ts';
import type { PageTable } from '../pgtable.ts';
import type { DirtyRecord } from '../pgtable-dirty.ts';

/**
 * No TLB entry is invalidated when pages become clean. iommufd does ask for it, but with a range that names no page size (iommu_iotlb_gather_add_range),
 * and arm_smmu_iotlb_sync then returns at once: Linux 7.2 depends on an SMMU whose TLB does not keep for long that a page is dirty.
 */
export class SmmuDirtyOps implements DirtyOps {
  private readonly table: PageTable;

  constructor(table: PageTable) {
    this.table = table;
  }

  /** The SMMU tracks for as long as the table lives; only what iommufd clears first makes a beginning. */
  setDirtyTracking(): number {
    return 0;
  }

  readAndClearDirty(iova: number, size: number, noClear: boolean, record: DirtyRecord): number {
    return this.table.readAndClearDirty(iova, size, noClear, record);
  }
}
