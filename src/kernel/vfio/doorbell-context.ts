/** What the user-given doorbell needs of the context whose IOVAs a device uses: a type1 container, or an iommufd IOAS. */
import type { IommuDomain, ReservedRegion } from '../../ports/iommu.ts';
import type { PciDev } from '../pci/pci-dev.ts';

export interface IovaSpan {
  readonly start: number;
  /** Inclusive. */
  readonly end: number;
}

export interface DmaContext {
  readonly kind: 'type1' | 'iommufd';
  /** The paging domains that share this context's mappings. */
  readonly domains: readonly IommuDomain[];
  /** The domain that the device translates through, or null while it is not attached to this context. */
  domainOf(dev: PciDev): IommuDomain | null;
  /** A user's mapping that touches [start, end], or null. */
  userMapping(start: number, end: number): IovaSpan | null;
  /** Reserved regions of every device in the context. */
  reservedRegions(): readonly ReservedRegion[];
  /** The windows for software MSIs that the device's group has in this context, where they are not the driver's (they were moved). */
  windowsOf?(dev: PciDev): readonly ReservedRegion[];
  /** From now on [start, end] is in no list of usable IOVAs, and mapping over it is refused. Called for ranges that do not overlap. */
  reserve(start: number, end: number): void;
  release(start: number, end: number): void;
}

const contexts = new WeakMap<IommuDomain, DmaContext>();

/** Whose mappings a domain holds, or null: no user's. */
export const dmaContext = (domain: IommuDomain): DmaContext | null => contexts.get(domain) ?? null;

/** Called by a context for each domain that it makes. */
export function setDmaContext(domain: IommuDomain, context: DmaContext | null): void {
  if (context === null) contexts.delete(domain);
  else contexts.set(domain, context);
}

/** G: what a doorbell's IOVA and size are multiples of, in bytes. */
export const doorbellGranule = (pageSize: number, domain: IommuDomain | null): number =>
  Math.max(pageSize, domain?.pageSizes[0] ?? pageSize);
