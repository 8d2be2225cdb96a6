/** The PCI Express capability (PCIe 7.5.3), advanced features (Advanced Capabilities for Conventional PCI ECN) and ACS (PCIe 7.7.8). Offsets relative to the capability. */

export const Express = {
  FLAGS: 0x02,
  DEVICE_CAPABILITIES: 0x04,
  DEVICE_CONTROL: 0x08,
  DEVICE_STATUS: 0x0a,
  LINK_CAPABILITIES: 0x0c,
  LINK_CONTROL: 0x10,
  LINK_STATUS: 0x12,
  SLOT_CAPABILITIES: 0x14,
  SLOT_CONTROL: 0x18,
  SLOT_STATUS: 0x1a,
  ROOT_CONTROL: 0x1c,
  ROOT_STATUS: 0x20,
  DEVICE_CAPABILITIES_2: 0x24,
  DEVICE_CONTROL_2: 0x28,
  LINK_CAPABILITIES_2: 0x2c,
  LINK_CONTROL_2: 0x30,
  LINK_STATUS_2: 0x32,
  SLOT_CAPABILITIES_2: 0x34,
  /** Bytes of a version 2 capability; version 1 of an endpoint has 20. */
  LENGTH_V2: 0x3c,
  LENGTH_V1: 0x14,
} as const;

export const ExpressFlags = { VERSION_MASK: 0x000f, TYPE_SHIFT: 4, TYPE_MASK: 0x00f0, SLOT: 0x0100 } as const;

/** Device and port types. */
export const ExpressType = {
  ENDPOINT: 0,
  LEGACY_ENDPOINT: 1,
  ROOT_PORT: 4,
  UPSTREAM_PORT: 5,
  DOWNSTREAM_PORT: 6,
  /** PCIe above, conventional PCI below. */
  PCI_BRIDGE: 7,
  PCIE_BRIDGE: 8,
  INTEGRATED_ENDPOINT: 9,
  EVENT_COLLECTOR: 10,
} as const;

export const DeviceCapabilities = { ROLE_BASED_ERRORS: 0x0000_8000, FLR: 0x1000_0000 } as const;
/** PCIe 7.5.3.15. A prefix before a request's header carries its PASID; with no maximum named, four of them may stand there. */
export const DeviceCapabilities2 = {
  EXTENDED_FORMAT: 0x0010_0000,
  END_TO_END_PREFIX: 0x0020_0000,
  MAX_PREFIXES_MASK: 0x00c0_0000,
  MAX_PREFIXES_SHIFT: 22,
} as const;
export const DeviceControl = {
  RELAXED_ORDERING: 0x0010,
  MAX_PAYLOAD_MASK: 0x00e0,
  NO_SNOOP: 0x0800,
  MAX_READ_REQUEST_MASK: 0x7000,
  /** Writing a one starts a function level reset; reads as zero. On a PCIe-to-PCI bridge it is configuration retry. */
  FLR: 0x8000,
} as const;
/** Correctable, non-fatal, fatal, unsupported request: all cleared by writing a one. */
export const DEVICE_STATUS_ERRORS = 0x000f;

export const AdvancedFeatures = {
  LENGTH: 2,
  CAPABILITIES: 3,
  CONTROL: 4,
  STATUS: 5,
  SIZE: 6,
  CAP_TP: 0x01,
  CAP_FLR: 0x02,
  CONTROL_FLR: 0x01,
} as const;

/** ACS: capability and control words, and their bits. */
export const Acs = {
  CAPABILITY: 4,
  CONTROL: 6,
  LENGTH: 8,
  SOURCE_VALIDATION: 0x01,
  TRANSLATION_BLOCKING: 0x02,
  /** Peer-to-peer requests go up instead of across. */
  REQUEST_REDIRECT: 0x04,
  COMPLETION_REDIRECT: 0x08,
  UPSTREAM_FORWARDING: 0x10,
  EGRESS_CONTROL: 0x20,
  DIRECT_TRANSLATED: 0x40,
} as const;
