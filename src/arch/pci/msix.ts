/** The MSI-X capability, its table and its pending bits (PCI 3.0 section 6.8.2, PCIe 7.7.2). */

/** Offsets relative to the capability. */
export const Msix = { FLAGS: 2, TABLE: 4, PBA: 8, LENGTH: 12 } as const;

/** Bits of the message control word. */
export const MsixFlags = {
  /** Vectors minus one. */
  SIZE_MASK: 0x07ff,
  FUNCTION_MASK: 0x4000,
  ENABLE: 0x8000,
} as const;

/** Table and PBA registers: bits 2:0 are the BAR, the rest the offset in bytes. */
export const MSIX_BAR_MASK = 0x7;
export const MSIX_MAX_VECTORS = 2048;

/** An entry of the table: offsets in bytes. */
export const MsixEntry = { ADDRESS_LO: 0, ADDRESS_HI: 4, DATA: 8, CONTROL: 12, SIZE: 16, MASKED: 1 } as const;

export const msixVectors = (flags: number): number => (flags & MsixFlags.SIZE_MASK) + 1;
/** Bytes of the table. */
export const msixTableSize = (vectors: number): number => vectors * MsixEntry.SIZE;
/** Bytes of the pending bit array: one bit a vector, in 64-bit words. */
export const msixPbaSize = (vectors: number): number => Math.ceil(vectors / 64) * 8;
