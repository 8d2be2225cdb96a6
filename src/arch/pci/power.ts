/** The power management capability (PCI Bus Power Management 1.2). Offsets relative to the capability. */

export const Power = {
  CAPABILITIES: 2,
  CONTROL: 4,
  LENGTH: 8,
  /** Bits of the control register: the state D0 to D3hot. */
  STATE_MASK: 0x0003,
  D0: 0,
  D3_HOT: 3,
  /** Going from D3hot to D0 keeps the function's state. */
  NO_SOFT_RESET: 0x0008,
  PME_ENABLE: 0x0100,
  PME_STATUS: 0x8000,
  /** Bits of the capabilities register. */
  VERSION_3: 0x0003,
  D1: 0x0200,
  D2: 0x0400,
} as const;
