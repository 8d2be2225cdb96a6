/** The SR-IOV extended capability (PCIe 9.3.3). Offsets relative to the capability. */

export const SrIov = {
  CAPABILITIES: 0x04,
  CONTROL: 0x08,
  STATUS: 0x0a,
  INITIAL_VFS: 0x0c,
  TOTAL_VFS: 0x0e,
  NUM_VFS: 0x10,
  FUNCTION_LINK: 0x12,
  /** Routing id of the first VF, relative to the PF's; and from each VF to the next. */
  VF_OFFSET: 0x14,
  VF_STRIDE: 0x16,
  VF_DEVICE_ID: 0x1a,
  /** Bit n: pages of 2^(n + 12) bytes. */
  SUPPORTED_PAGE_SIZES: 0x1c,
  SYSTEM_PAGE_SIZE: 0x20,
  VF_BAR0: 0x24,
  MIGRATION_STATE: 0x3c,
  LENGTH: 0x40,
} as const;

export const SrIovControl = { VF_ENABLE: 0x0001, MEMORY_SPACE_ENABLE: 0x0008, ARI_HIERARCHY: 0x0010 } as const;

/** 4 KiB, 8 KiB, 64 KiB, 256 KiB, 1 MiB and 4 MiB: what every SR-IOV device has to support. */
export const SR_IOV_PAGE_SIZES = 0x553;
