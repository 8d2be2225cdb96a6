/** MSI on x86: the address is the destination, the data the vector (Intel SDM 3A 11.11; VT-d 5.1.2.2 for the remappable format). */

/** The interrupt address range: 1 MiB that no IOMMU translates. */
export const MSI_RANGE_BASE = 0xfee0_0000;
export const MSI_RANGE_SIZE = 0x10_0000;

/** Address bits. */
export const MSI_ADDR_DEST_MODE_LOGICAL = 1 << 2;
export const MSI_ADDR_REDIRECTION_HINT = 1 << 3;
/** Bit 4 says remappable. Then bit 3 is SHV (the data holds a subhandle) and bit 2 is bit 15 of the handle. */
export const MSI_ADDR_REMAPPABLE = 1 << 4;
export const MSI_ADDR_SHV = 1 << 3;
export const MSI_ADDR_HANDLE_15 = 1 << 2;

/** Delivery modes, data bits 10:8 and IRTE bits 7:5. */
export const Delivery = { FIXED: 0, LOWEST_PRIORITY: 1, SMI: 2, NMI: 4, INIT: 5, EXTINT: 7 } as const;

/** Vectors below 16 are illegal in a message. */
export const VECTOR_FIRST = 16;
export const VECTORS = 256;

/** Compatibility format: destination APIC id in 19:12. */
export const compatibilityAddress = (apicId: number): number => (MSI_RANGE_BASE | (apicId << 12)) >>> 0;
export const addressDestination = (lo: number): number => (lo >>> 12) & 0xff;

/** Remappable format: handle[14:0] in 19:5, handle[15] in bit 2. */
export function remappableAddress(handle: number, shv: boolean): number {
  const high = (handle & 0x8000) === 0 ? 0 : MSI_ADDR_HANDLE_15;
  return (MSI_RANGE_BASE | ((handle & 0x7fff) << 5) | MSI_ADDR_REMAPPABLE | (shv ? MSI_ADDR_SHV : 0) | high) >>> 0;
}
export const addressHandle = (lo: number): number => ((lo >>> 5) & 0x7fff) | ((lo & MSI_ADDR_HANDLE_15) << 13);

/** The number under which (CPU, vector) arrives at the host's interrupt core: a vector means something else on each CPU. */
export const x86Intid = (cpu: number, vector: number): number => cpu * VECTORS + vector;
export const intidVector = (intid: number): number => intid % VECTORS;
export const intidCpu = (intid: number): number => Math.floor(intid / VECTORS);
