/**
 * Registers of the kernel's PCI endpoint test function, 32 bits each, as drivers/misc/pci_endpoint_test.c of Linux 7.2 reads them and
 * drivers/pci/endpoint/functions/pci-epf-test.c answers.
 */
export const EndpointRegister = {
  /** Memory like any other: the driver's BAR test writes it. */
  MAGIC: 0x00,
  /** A bit of {@link EndpointCommand}; reads zero. */
  COMMAND: 0x04,
  /** Bits of {@link EndpointStatus}. */
  STATUS: 0x08,
  SRC_LO: 0x0c,
  SRC_HI: 0x10,
  DST_LO: 0x14,
  DST_HI: 0x18,
  /** Bytes; for the BAR_SUBRANGE commands the BAR's number. */
  SIZE: 0x1c,
  /** CRC-32 (reflected, from ~0, not inverted at the end) of what was or will be moved. */
  CHECKSUM: 0x20,
  /** 0 INTx, 1 MSI, 2 MSI-X. */
  IRQ_TYPE: 0x24,
  /** From 1. */
  IRQ_NUMBER: 0x28,
  /** Bit 0, use DMA; without it the CPU of an endpoint would move the bytes. */
  FLAGS: 0x2c,
  /** Read only: bits of {@link EndpointCaps}. */
  CAPS: 0x30,
  /** Where a doorbell is, once enabled: BAR, offset, and the value that rings. */
  DB_BAR: 0x34,
  DB_OFFSET: 0x38,
  DB_DATA: 0x3c,
} as const;
export const ENDPOINT_REGISTER_BYTES = 0x40;

export const EndpointCommand = {
  RAISE_INTX: 1 << 0,
  RAISE_MSI: 1 << 1,
  RAISE_MSIX: 1 << 2,
  READ: 1 << 3,
  WRITE: 1 << 4,
  COPY: 1 << 5,
  ENABLE_DOORBELL: 1 << 6,
  DISABLE_DOORBELL: 1 << 7,
  SUBRANGE_SETUP: 1 << 8,
  SUBRANGE_CLEAR: 1 << 9,
} as const;

export const EndpointStatus = {
  READ_SUCCESS: 1 << 0,
  READ_FAIL: 1 << 1,
  WRITE_SUCCESS: 1 << 2,
  WRITE_FAIL: 1 << 3,
  COPY_SUCCESS: 1 << 4,
  COPY_FAIL: 1 << 5,
  IRQ_RAISED: 1 << 6,
  SRC_ADDR_INVALID: 1 << 7,
  DST_ADDR_INVALID: 1 << 8,
  DOORBELL_SUCCESS: 1 << 9,
  DOORBELL_ENABLE_SUCCESS: 1 << 10,
  DOORBELL_DISABLE_SUCCESS: 1 << 12,
  DOORBELL_DISABLE_FAIL: 1 << 13,
  SUBRANGE_SETUP_SUCCESS: 1 << 14,
  SUBRANGE_SETUP_FAIL: 1 << 15,
  SUBRANGE_CLEAR_SUCCESS: 1 << 16,
  SUBRANGE_CLEAR_FAIL: 1 << 17,
} as const;

export const EndpointCaps = {
  UNALIGNED_ACCESS: 1 << 0,
  MSI: 1 << 1,
  MSIX: 1 << 2,
  INTX: 1 << 3,
  SUBRANGE_MAPPING: 1 << 4,
  DYNAMIC_INBOUND_MAPPING: 1 << 5,
} as const;

export const IrqType = { INTX: 0, MSI: 1, MSIX: 2 } as const;
