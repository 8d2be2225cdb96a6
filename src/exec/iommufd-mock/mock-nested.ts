/** A stage 1 without tables: four entries of an IOTLB that programs fill, invalidate and look at. */
import type { Invalidated, NestedTable, UserArray, UserData } from '../../kernel/iommufd/index.ts';
import type { RefusalLog } from '../../kernel/refusal.ts';
import { hex } from '../../ports/address.ts';
import { IOMMU_HWPT_ALLOC_PASID } from '../../uapi/iommufd.ts';
import { MOCK_APERTURE_LAST, MOCK_APERTURE_START } from './mock-domain.ts';
import type { MockViommu } from './mock-viommu.ts';
import {
  CACHE_ENTRIES,
  HWPT_DATA_TYPE,
  INVALIDATE_ALL,
  INVALIDATE_TYPE,
  iommu_hwpt_invalidate_selftest,
  iommu_hwpt_selftest,
} from './structs.ts';

export class MockNested implements NestedTable {
  readonly type = 'nested';
  readonly apertureStart = MOCK_APERTURE_START;
  readonly apertureEnd = MOCK_APERTURE_LAST;
  readonly pageSizes: readonly number[] = [];
  /** Under which it was made, or null. */
  readonly viommu: MockViommu | null;
  readonly iotlb: number[];
  private readonly refusals: RefusalLog;

  constructor(refusals: RefusalLog, iotlb: number, viommu: MockViommu | null) {
    this.refusals = refusals;
    this.viommu = viommu;
    this.iotlb = new Array<number>(CACHE_ENTRIES).fill(iotlb);
  }

  /** Of what a program gave; -EOPNOTSUPP for another type of data, else as UserData.read. */
  static from(refusals: RefusalLog, data: UserData, viommu: MockViommu | null): MockNested | number {
    if (data.type !== HWPT_DATA_TYPE) {
      return refusals.refuse('EOPNOTSUPP', `data_type ${data.type} is not the mock's`, 'data_type');
    }
    const config = data.read(iommu_hwpt_selftest, HWPT_DATA_TYPE, 'iotlb');
    return typeof config === 'number' ? config : new MockNested(refusals, config.iotlb, viommu);
  }

  /** Entry by entry: what is wrong with one is found when those before it are done. */
  invalidate(array: UserArray): Invalidated {
    const { refusals } = this;
    if (array.type !== INVALIDATE_TYPE) {
      return { done: 0, error: refusals.refuse('EINVAL', `data_type ${array.type} is not the mock's`, 'data_type') };
    }
    for (let i = 0; i < array.count; i += 1) {
      const entry = array.entry(iommu_hwpt_invalidate_selftest, INVALIDATE_TYPE, i, 'iotlb_id');
      const error = typeof entry === 'number' ? entry : this.invalidateEntry(entry.flags, entry.iotlb_id);
      if (error < 0) return { done: i, error };
    }
    return { done: array.count, error: 0 };
  }

  map(): number {
    return this.refusals.refuse('EINVAL', 'user space owns the tables of this stage 1');
  }

  unmap(): number {
    return 0;
  }

  sync(): void {}

  lookup(): number {
    return -1;
  }

  enforceCoherency(): boolean {
    return true;
  }

  free(): void {}

  private invalidateEntry(flags: number, id: number): number {
    if ((flags & ~INVALIDATE_ALL) !== 0) {
      return this.refusals.refuse('EOPNOTSUPP', `flags ${flags} has unknown bits`, 'flags');
    }
    if (id >= CACHE_ENTRIES) return this.refusals.refuse('EINVAL', `the IOTLB has no entry ${id}`, 'iotlb_id');
    if (flags === INVALIDATE_ALL) this.iotlb.fill(0);
    else this.iotlb[id] = 0;
    return 0;
  }
}

/** PASID alone: 0 or -EOPNOTSUPP. */
export function checkNestedFlags(refusals: RefusalLog, flags: number): number {
  if ((flags & ~IOMMU_HWPT_ALLOC_PASID) === 0) return 0;
  return refusals.refuse('EOPNOTSUPP', `flags ${hex(flags)}: a nested table of the mock takes PASID alone`, 'flags');
}
