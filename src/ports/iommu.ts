/** An IOMMU as the hardware shows it to devices, and as a driver shows it to the rest of the kernel. */
import type { TranslationOutcome } from './outcome.ts';
import type { StatusCode, Transaction } from './transaction.ts';

/** The hardware: translates what a device emits. */
export interface Iommu {
  readonly name: string;
  /** Sets tx.pa and answers OK, or refuses. Never allocates on a TLB hit. */
  translate(tx: Transaction): StatusCode;
  /** The same walk told in full, without side effects: no event, no TLB fill. */
  explain(tx: Transaction): TranslationOutcome;
}

/** Bits of a mapping's protection, as Linux names them (include/linux/iommu.h). */
export const Prot = { READ: 1, WRITE: 2, CACHE: 4, NOEXEC: 8, MMIO: 16 } as const;

export type ReservedType = 'direct' | 'direct-relaxable' | 'reserved' | 'msi' | 'sw-msi';

/** A range of IOVAs that a device cannot use for DMA. `end` is inclusive. */
export interface ReservedRegion {
  readonly start: number;
  readonly end: number;
  readonly type: ReservedType;
}

/** How a domain's tables say which pages devices have written (struct iommu_dirty_ops). Results below zero are -errno. */
export interface DirtyOps {
  setDirtyTracking(enable: boolean): number;
  /**
   * Calls `record` with each dirty leaf of [iova, iova + size), lowest first, and makes it clean unless `noClear`. What is not mapped ends it with
   * -EINVAL, where a driver says so; what came before stays recorded.
   */
  readAndClearDirty(
    iova: number,
    size: number,
    noClear: boolean,
    record: (iova: number, length: number) => void,
  ): number;
}

/** A page table with its owner; what Linux calls an iommu_domain. Results below zero are -errno. */
export interface IommuDomain {
  readonly type: 'dma' | 'unmanaged' | 'identity' | 'blocked' | 'nested';
  /** First and last IOVA that the tables can express. */
  readonly apertureStart: number;
  readonly apertureEnd: number;
  /** Every page and block size the format has, as a list of bytes, smallest first. */
  readonly pageSizes: readonly number[];
  /** Maps [iova, iova + size) to [pa, pa + size); all multiples of the smallest page. 0 or -errno; on error nothing stays mapped. */
  map(iova: number, pa: number, size: number, prot: number): number;
  /** Returns the bytes unmapped (0 at the first hole, never part of a block). Stale TLB entries live until `sync`. */
  unmap(iova: number, size: number): number;
  /** Invalidates what `unmap` left behind, and waits for it. */
  sync(): void;
  /** The physical address under an IOVA, or -1; what Linux calls iova_to_phys. Reads the tables in memory. */
  lookup(iova: number): number;
  /** Absent: the tables do not say who was written. */
  readonly dirtyOps?: DirtyOps | undefined;
  enforceCoherency(): boolean;
  free(): void;
}

/** An IOMMU's driver: what the kernel's iommu core drives. `requester` is the stream id or source id of the function. */
export interface IommuDriver {
  readonly name: string;
  readonly iommu: Iommu;
  /** DMA is coherent with CPU caches; without it iommufd and type1 refuse some set-ups. */
  readonly coherent: boolean;
  /** Its domains can track dirty pages (IOMMU_CAP_DIRTY_TRACKING). */
  readonly dirtyTracking?: boolean;
  /** Reserved regions that the driver itself advertises for a function, sorted by start. */
  reservedRegions(requester: number): readonly ReservedRegion[];
  /**
   * A new paging domain that `requester` can be attached to, or -errno. `stage` forces stage 1 or 2 where there is a choice;
   * `type` dma is the host's own (the group's default domain). Default unmanaged. `dirty`: with dirtyOps.
   */
  allocate(requester: number, stage?: 1 | 2, type?: 'dma' | 'unmanaged', dirty?: boolean): IommuDomain | number;
  /** The driver's static domains. */
  readonly identity: IommuDomain;
  readonly blocked: IommuDomain;
  /** Points the requester's stream at the domain; the device translates at every moment through the old or the new. 0 or -errno. */
  attach(requester: number, domain: IommuDomain): number;
  /** iommu_device.max_pasids: how many PASIDs the IOMMU can tell apart, 0 among them; absent or 0: none. */
  readonly maxPasids?: number;
  /** Before its first attach: the function at `requester` may use PASIDs of so many bits, 0 for none. */
  enablePasids?(requester: number, bits: number): void;
  /**
   * set_dev_pasid: requests with this PASID go through the domain, a stage 1; `blocked` refuses them, and cannot fail. 0 or -errno with nothing
   * changed.
   */
  setPasid?(requester: number, pasid: number, domain: IommuDomain): number;
  /** Takes the records that wait in the event queue, oldest first, and returns how many were handed to `each`. */
  drainEvents(each: (record: readonly bigint[]) => void): number;
}
