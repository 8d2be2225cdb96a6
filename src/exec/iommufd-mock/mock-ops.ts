/** The mock's driver, as iommufd asks it. */
import type { HwInfo, HwptPaging, IommufdContext, IommuOps, UserData } from '../../kernel/iommufd/index.ts';
import type { PciDev } from '../../kernel/pci/pci-dev.ts';
import type { RefusalLog } from '../../kernel/refusal.ts';
import { hex } from '../../ports/address.ts';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
} from '../../uapi/iommufd.ts';
import type { PagePlacer } from './driver-pages.ts';
import { MockGroup } from './mock-device.ts';
import { MockDomain } from './mock-domain.ts';
import { checkNestedFlags, MockNested } from './mock-nested.ts';
import { MockViommu } from './mock-viommu.ts';
import {
  DEVICE_NO_DIRTY,
  DEVICE_PASID,
  HW_INFO_REGISTER,
  HW_INFO_TYPE,
  HWPT_DATA_TYPE,
  iommu_hwpt_selftest,
  iommu_test_hw_info,
  PASID_WIDTH,
  PageTable,
  VIOMMU_TYPE,
} from './structs.ts';

const PAGING_FLAGS = IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID;

export class MockOps implements IommuOps {
  /** All mock devices are behind one IOMMU. */
  readonly iommu = this;
  readonly userPasidTable = true;
  private readonly refusals: RefusalLog;
  private readonly placer: PagePlacer;

  constructor(refusals: RefusalLog, placer: PagePlacer) {
    this.refusals = refusals;
    this.placer = placer;
  }

  hwInfo(_dev: PciDev, wanted: number): HwInfo | number {
    if (wanted !== 0 && wanted !== HW_INFO_TYPE) {
      return this.refusals.refuse('EOPNOTSUPP', `in_data_type ${hex(wanted)} is not the mock's`, 'in_data_type');
    }
    return { type: HW_INFO_TYPE, data: iommu_test_hw_info.bytes({ test_reg: HW_INFO_REGISTER }) };
  }

  dirtyTracking(dev: PciDev): boolean {
    return (flagsOf(dev) & DEVICE_NO_DIRTY) === 0;
  }

  maxPasidLog2(dev: PciDev): number {
    return (flagsOf(dev) & DEVICE_PASID) === 0 ? 0 : PASID_WIDTH;
  }

  allocPaging(dev: PciDev, flags: number, data: UserData | null): MockDomain | number {
    const dirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
    if ((flags & ~PAGING_FLAGS) !== 0 || (dirty && !this.dirtyTracking(dev))) {
      return this.refusals.refuse('EOPNOTSUPP', `flags ${hex(flags)} are not all the mock's`, 'flags');
    }
    if (data !== null && data.type !== HWPT_DATA_TYPE && data.type !== IOMMU_HWPT_DATA_NONE) {
      return this.refusals.refuse('EOPNOTSUPP', `data_type ${data.type} is not the mock's`, 'data_type');
    }
    const config = data?.read(iommu_hwpt_selftest, HWPT_DATA_TYPE, 'iotlb') ?? { pagetable_type: PageTable.DEFAULT };
    if (typeof config === 'number') return config;
    const { pagetable_type: table } = config;
    if (table === PageTable.DEFAULT || table === PageTable.HUGE)
      return new MockDomain('unmanaged', table === PageTable.HUGE, dirty);
    return this.refusals.refuse('EOPNOTSUPP', `the mock has no page table of type ${table}`, 'data_uptr');
  }

  allocNested(_dev: PciDev, _parent: object, flags: number, data: UserData): MockNested | number {
    const refused = checkNestedFlags(this.refusals, flags);
    return refused < 0 ? refused : MockNested.from(this.refusals, data, null);
  }

  hasViommu(_dev: PciDev, type: number): boolean {
    return type === VIOMMU_TYPE;
  }

  initViommu(ctx: IommufdContext, parent: HwptPaging, data: UserData | null): MockViommu | number {
    return MockViommu.init(ctx, this, parent, data, this.placer);
  }
}

function flagsOf({ iommuGroup }: PciDev): number {
  return iommuGroup instanceof MockGroup ? iommuGroup.flags : 0;
}
