/** The configuration header of a PCI function: PCI Local Bus 3.0 chapter 6, PCI Express base specification 7.5.1. Offsets in bytes. */

/** Sizes of a configuration space: conventional PCI, and PCI Express (or PCI-X 2.0). */
export const CONFIG_SIZE = 256;
export const EXTENDED_CONFIG_SIZE = 4096;

/** Registers that both header types share. */
export const Header = {
  VENDOR_ID: 0x00,
  DEVICE_ID: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION: 0x08,
  /** 24 bits: programming interface, subclass, base class. */
  CLASS_CODE: 0x09,
  CACHE_LINE_SIZE: 0x0c,
  LATENCY_TIMER: 0x0d,
  HEADER_TYPE: 0x0e,
  BIST: 0x0f,
  BAR0: 0x10,
  CAPABILITIES: 0x34,
  INTERRUPT_LINE: 0x3c,
  INTERRUPT_PIN: 0x3d,
} as const;

/** Type 0: an endpoint. */
export const Header0 = {
  CARDBUS_CIS: 0x28,
  SUBSYSTEM_VENDOR_ID: 0x2c,
  SUBSYSTEM_ID: 0x2e,
  ROM: 0x30,
  MIN_GNT: 0x3e,
  MAX_LAT: 0x3f,
} as const;

/** Type 1: a bridge. */
export const Header1 = {
  PRIMARY_BUS: 0x18,
  SECONDARY_BUS: 0x19,
  SUBORDINATE_BUS: 0x1a,
  SECONDARY_LATENCY: 0x1b,
  IO_BASE: 0x1c,
  IO_LIMIT: 0x1d,
  SECONDARY_STATUS: 0x1e,
  MEMORY_BASE: 0x20,
  MEMORY_LIMIT: 0x22,
  PREFETCH_BASE: 0x24,
  PREFETCH_LIMIT: 0x26,
  PREFETCH_BASE_UPPER: 0x28,
  PREFETCH_LIMIT_UPPER: 0x2c,
  IO_BASE_UPPER: 0x30,
  IO_LIMIT_UPPER: 0x32,
  ROM: 0x38,
  BRIDGE_CONTROL: 0x3e,
} as const;

export const Command = {
  IO: 0x0001,
  MEMORY: 0x0002,
  BUS_MASTER: 0x0004,
  SPECIAL_CYCLES: 0x0008,
  MEMORY_WRITE_INVALIDATE: 0x0010,
  VGA_SNOOP: 0x0020,
  PARITY: 0x0040,
  SERR: 0x0100,
  FAST_BACK: 0x0200,
  INTX_DISABLE: 0x0400,
} as const;

export const PciStatus = {
  IMMEDIATE_READINESS: 0x0001,
  INTERRUPT: 0x0008,
  CAPABILITIES_LIST: 0x0010,
  MASTER_PARITY_ERROR: 0x0100,
  SIGNALED_TARGET_ABORT: 0x0800,
  RECEIVED_TARGET_ABORT: 0x1000,
  RECEIVED_MASTER_ABORT: 0x2000,
  SIGNALED_SYSTEM_ERROR: 0x4000,
  DETECTED_PARITY_ERROR: 0x8000,
  /** Every bit that software clears by writing a one. */
  WRITE_ONE_TO_CLEAR: 0xf900,
} as const;

export const HeaderType = {
  ENDPOINT: 0x00,
  BRIDGE: 0x01,
  CARDBUS: 0x02,
  LAYOUT_MASK: 0x7f,
  MULTI_FUNCTION: 0x80,
} as const;

export const BridgeControl = { PARITY: 0x01, SERR: 0x02, ISA: 0x04, VGA: 0x08, BUS_RESET: 0x40 } as const;

/** The low bits of a base address register. */
export const Bar = {
  IO: 0x1,
  /** Bits 2:1 of a memory BAR. */
  TYPE_MASK: 0x6,
  TYPE_64: 0x4,
  PREFETCHABLE: 0x8,
  MEMORY_MASK: ~0xf,
  IO_MASK: ~0x3,
  /** Bit 0 of the expansion ROM register. */
  ROM_ENABLE: 0x1,
  ROM_MASK: ~0x7ff,
} as const;

/** Bits of bridge windows: granularity and type nibble. */
export const Window = {
  /** Memory windows are multiples of 1 MiB, I/O windows of 4 KiB. */
  MEMORY_GRANULE: 0x10_0000,
  IO_GRANULE: 0x1000,
  PREFETCH_64: 0x1,
  IO_32: 0x1,
} as const;

/** Base class and subclass of the classes that this project meets. */
export const ClassCode = {
  NVME: 0x010802,
  ETHERNET: 0x020000,
  HOST_BRIDGE: 0x060000,
  PCI_BRIDGE: 0x060400,
  OTHER: 0xff0000,
  UNCLASSIFIED: 0x00ff00,
} as const;
