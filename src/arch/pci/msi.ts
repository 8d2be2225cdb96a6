/** The MSI capability (PCI 3.0 section 6.8.1, PCIe 7.7.1). Offsets are relative to the capability. */

export const Msi = {
  FLAGS: 2,
  ADDRESS_LO: 4,
  /** Only with a 64-bit address. */
  ADDRESS_HI: 8,
} as const;

/** Bits of the message control word. */
export const MsiFlags = {
  ENABLE: 0x0001,
  /** Multiple message capable: log2 of what the function asks for. */
  CAPABLE_SHIFT: 1,
  CAPABLE_MASK: 0x000e,
  /** Multiple message enable: log2 of what software grants. */
  ENABLED_SHIFT: 4,
  ENABLED_MASK: 0x0070,
  ADDRESS_64: 0x0080,
  PER_VECTOR_MASK: 0x0100,
} as const;

/** Offset of the 16-bit data register. */
export const msiDataOffset = (flags: number): number => ((flags & MsiFlags.ADDRESS_64) !== 0 ? 12 : 8);
/** Offset of the mask bits; meaningful only with {@link MsiFlags.PER_VECTOR_MASK}. */
export const msiMaskOffset = (flags: number): number => ((flags & MsiFlags.ADDRESS_64) !== 0 ? 16 : 12);
/** Offset of the pending bits; meaningful only with {@link MsiFlags.PER_VECTOR_MASK}. */
export const msiPendingOffset = (flags: number): number => ((flags & MsiFlags.ADDRESS_64) !== 0 ? 20 : 16);

/** Bytes of the capability: 10, 14, 20 or 24. */
export const msiLength = (flags: number): number =>
  10 + ((flags & MsiFlags.ADDRESS_64) !== 0 ? 4 : 0) + ((flags & MsiFlags.PER_VECTOR_MASK) !== 0 ? 10 : 0);

/** Messages that the function asks for: 1 to 32 (reserved encodings count as 32). */
export const msiCapable = (flags: number): number =>
  1 << Math.min((flags & MsiFlags.CAPABLE_MASK) >> MsiFlags.CAPABLE_SHIFT, 5);
/** Messages that software granted: 1 to 32, never more than the function asks for. */
export const msiGranted = (flags: number): number =>
  Math.min(1 << Math.min((flags & MsiFlags.ENABLED_MASK) >> MsiFlags.ENABLED_SHIFT, 5), msiCapable(flags));
