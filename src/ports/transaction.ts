/**
 * A memory transaction on its way from a PCI function to physical memory or a doorbell.
 *
 * One object is reused for all walks of a requester, so that nothing on the interrupt's path allocates. Addresses are
 * signed 32-bit halves (see address.ts). The walk answers with an integer {@link Status}; the rich outcome is built
 * on demand by `explain`, for traces and for people.
 */
export class Transaction {
  /** PCI requester id: bus << 8 | device << 3 | function; with more segments, segment << 16 above it. */
  requester = 0;
  /** Substream id (PASID), or -1 without one. */
  ssid = -1;
  /** What the device emits. */
  iovaHi = 0;
  iovaLo = 0;
  /** Where it goes after translation. Meaningless until the status is OK. */
  paHi = 0;
  paLo = 0;
  /** The 32 bits of a write up to 4 bytes; bulk data travels beside the transaction. */
  data = 0;
  /** Bytes. An access never crosses a 4 KiB boundary (PCIe base specification 2.2.7). */
  size = 4;
  /** Bits of {@link Access}. */
  access = 0;
}

/** Access bits of a transaction. */
export const Access = { READ: 1, WRITE: 2, EXECUTE: 4, PRIVILEGED: 8 } as const;

/** What a walk says of a transaction. */
export const Status = {
  /** pa is set; go on. Bypass is OK with pa = iova. */
  OK: 0,
  /** Refused, and an event was recorded (or counted as overflowed). */
  FAULT: 1,
  /** Refused silently, as an SMMUv3 STE with Config = abort does. */
  ABORT: 2,
  /** Held by the IOMMU until software resumes or terminates it. */
  STALL: 3,
  /** Nothing claims the address. */
  UNCLAIMED: 4,
} as const;
export type StatusCode = (typeof Status)[keyof typeof Status];
