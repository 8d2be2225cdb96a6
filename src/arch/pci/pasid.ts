/** The PASID extended capability (PCIe 7.8.9): offsets relative to the capability, and its bits. */

export const Pasid = {
  CAPABILITY: 0x04,
  CONTROL: 0x06,
  LENGTH: 0x08,
} as const;

/** Execute and privileged have the same places in the capability and in the control register. */
export const PasidBits = { ENABLE: 0x01, EXECUTE: 0x02, PRIVILEGED: 0x04 } as const;

export const PASID_WIDTH_SHIFT = 8;
export const PASID_WIDTH_MASK = 0x1f00;
/** Bits of a PASID at most. */
export const PASID_MAX_BITS = 20;
