/** The I/O APIC: wires to messages (Intel 82093AA; VT-d 5.1.5.1 for the remappable entry). */

export const IOAPIC_BASE = 0xfec0_0000;
export const IOAPIC_SIZE = 0x1000;
export const IOAPIC_PINS = 24;
/** Memory-mapped registers: an index, and the register that it names. */
export const IOAPIC_REGSEL = 0x00;
export const IOAPIC_WIN = 0x10;
/** Indexes. An entry takes two, low half first. */
export const IOAPIC_ID = 0x00;
export const IOAPIC_VERSION = 0x01;
export const IOAPIC_ENTRY = 0x10;
/** Its source id where Linux's firmware tables put it: bus 0xff, device 0. */
export const IOAPIC_SOURCE = 0xff00;

/** Low half of an entry. Vector 7:0, delivery mode 10:8. */
export const RTE_LOGICAL = 1 << 11;
export const RTE_LEVEL = 1 << 15;
export const RTE_MASKED = 1 << 16;
/** High half, remappable format: bit 48. Compatibility format: destination 63:56. */
export const RTE_REMAPPABLE = 1 << 16;

/** High half of a compatibility entry. */
export const rteDestination = (apicId: number): number => apicId << 24;
/** A remappable entry's handle: [14:0] in 63:49, [15] in bit 11. */
export const rteHandleHigh = (handle: number): number => RTE_REMAPPABLE | ((handle & 0x7fff) << 17);
export const rteHandleLow = (handle: number): number => ((handle >>> 15) & 1) << 11;
export const rteHandle = (lo: number, hi: number): number => ((hi >>> 17) & 0x7fff) | (((lo >>> 11) & 1) << 15);
