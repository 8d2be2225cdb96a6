/**
 * The ledger of interrupts: sent = delivered + coalesced + pending + lost, each lost one with its reason.
 *
 * It is a `Float64Array` of named slots that every room increments (a typed array does not allocate, and 2^53
 * interrupts fit). An interrupt is *sent* when a function raises a vector; it ends in exactly one of the others.
 */
export const Count = {
  SENT: 0,
  /** A consumer took it: the guest CPU acknowledged, or user space drained the eventfd. */
  DELIVERED: 1,
  /** Merged into one of the same vector that was still pending somewhere on the way. */
  COALESCED: 2,
  /** Waits: a mask, an undrained eventfd, an unacknowledged guest interrupt. Kept by whoever holds it: +1 and -1. */
  PENDING: 3,
  /** Records that the IOMMU wrote to its event queue. */
  FAULTS: 4,
  /** Records that the IOMMU could not write because the queue was full. */
  FAULTS_OVERFLOWED: 5,
  /** First slot of the losses: `LOST + Loss.X`. */
  LOST: 8,
} as const;

/** Where and why an interrupt ended without a consumer. Numbers are slots behind `Count.LOST`. */
export const Loss = {
  /** Function: COMMAND.BusMaster is clear, the write never leaves. */
  BUS_MASTER_OFF: 0,
  /** Function: neither MSI nor MSI-X is enabled, or the vector is beyond what is enabled. */
  NOT_ENABLED: 1,
  /** IOMMU: refused, with an event record. */
  IOMMU_FAULT: 2,
  /** IOMMU: refused silently (the stream is aborted). */
  IOMMU_ABORT: 3,
  /** Bus: nothing claims the address. */
  UNCLAIMED: 4,
  /** Bus: it was an ordinary write to memory. */
  WENT_TO_MEMORY: 5,
  /** Controller: the page of a doorbell, but not its register. */
  NOT_A_DOORBELL: 6,
  /** Controller is disabled. */
  CONTROLLER_OFF: 7,
  /** ITS: no device table entry for the device id. */
  ITS_NO_DEVICE: 8,
  /** ITS: the event id is beyond the table or not mapped. */
  ITS_NO_EVENT: 9,
  /** ITS: the collection is not mapped. */
  ITS_NO_COLLECTION: 10,
  /** GIC: no such interrupt, or not an edge interrupt of this frame. */
  NO_SUCH_INTID: 11,
  /** x86 interrupt remapping: entry absent or of another requester. */
  REMAP_FAULT: 12,
  /** Host: no handler is installed for the interrupt. */
  NO_HANDLER: 13,
  /** Host: the handler has no eventfd (fd -1). */
  NO_EVENTFD: 14,
  /** KVM: the route is missing or is not an MSI's. */
  NO_ROUTE: 15,
  /** KVM: the route's address is in no ITS of the guest, or lacks a device id. */
  ROUTE_REFUSED: 16,
  /** KVM: the guest's controller is off. */
  GUEST_CONTROLLER_OFF: 17,
  /** KVM: the guest has not mapped the event. */
  GUEST_NOT_MAPPED: 18,
  /** The last owner of the eventfd went away with a count in it. */
  EVENTFD_CLOSED: 19,
  /** The function was reset or its vectors were freed while pending. */
  TORN_DOWN: 20,
  /** Another requester's or a peer's range took the write before the IOMMU (peer to peer without ACS). */
  PEER_TO_PEER: 21,
  /** A CPU's interrupt controller interface has the interrupt but is itself disabled for good. */
  CPU_OFF: 22,
} as const;
export type LossCode = (typeof Loss)[keyof typeof Loss];

/** Slots of a ledger. */
export const LEDGER_SIZE = 64;

/** `IOMMU_FAULT` for 2. */
export function lossName(code: number): string {
  return Object.entries(Loss).find(([, value]) => value === code)?.[0] ?? `LOSS_${code}`;
}
