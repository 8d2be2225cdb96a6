/** What the mock and the programs that examine it say to each other: drivers/iommu/iommufd/iommufd_test.h. */
import { u32, u64 } from '../../uapi/field.ts';
import { struct } from '../../uapi/struct.ts';

/** struct iommu_test_cmd's op. */
export const Op = {
  ADD_RESERVED: 1,
  MOCK_DOMAIN: 2,
  MD_CHECK_MAP: 3,
  MD_CHECK_REFS: 4,
  CREATE_ACCESS: 5,
  DESTROY_ACCESS_PAGES: 6,
  ACCESS_PAGES: 7,
  ACCESS_RW: 8,
  SET_TEMP_MEMORY_LIMIT: 9,
  MOCK_DOMAIN_REPLACE: 10,
  ACCESS_REPLACE_IOAS: 11,
  MOCK_DOMAIN_FLAGS: 12,
  DIRTY: 13,
  MD_CHECK_IOTLB: 14,
  TRIGGER_IOPF: 15,
  DEV_CHECK_CACHE: 16,
  TRIGGER_VEVENT: 17,
  PASID_ATTACH: 18,
  PASID_REPLACE: 19,
  PASID_DETACH: 20,
  PASID_CHECK_HWPT: 21,
  DMABUF_GET: 22,
  DMABUF_REVOKE: 23,
} as const;

/** dev_flags of MOCK_DOMAIN_FLAGS. */
export const DEVICE_NO_DIRTY = 1;
export const DEVICE_PASID = 4;
export const PASID_WIDTH = 20;

export const HW_INFO_TYPE = 0xfeed_beef;
export const HW_INFO_REGISTER = 0xdead_beef;
export const iommu_test_hw_info = struct('iommu_test_hw_info', { flags: u32, test_reg: u32 });

export const HWPT_DATA_TYPE = 0xdead;
export const iommu_hwpt_selftest = struct('iommu_hwpt_selftest', { iotlb: u32, pagetable_type: u32 });
/** pagetable_type. */
export const PageTable = { DEFAULT: 0, HUGE: 1 } as const;

/** Entries of a nested table's mock IOTLB, and of a device's mock cache. */
export const CACHE_ENTRIES = 4;
export const DEVICE_CACHE = 0xba_ddad;

export const INVALIDATE_TYPE = 0xdead_beef;
export const INVALIDATE_ALL = 1;
export const iommu_hwpt_invalidate_selftest = struct('iommu_hwpt_invalidate_selftest', { flags: u32, iotlb_id: u32 });

export const VIOMMU_TYPE = 0xdead_beef;
export const iommu_viommu_selftest = struct('iommu_viommu_selftest', {
  in_data: u32,
  out_data: u32,
  out_mmap_offset: u64,
  out_mmap_length: u64,
});
export const iommu_viommu_invalidate_selftest = struct('iommu_viommu_invalidate_selftest', {
  flags: u32,
  vdev_id: u32,
  cache_id: u32,
});

export const VEVENTQ_TYPE = 0xbeef_beef;
export const iommu_viommu_event_selftest = struct('iommu_viommu_event_selftest', { virt_id: u32 });

export const HW_QUEUE_TYPE = 0xdead_beef;
export const HW_QUEUES = 2;
