/** The doorbell pages that are mapped in one domain for user-given ranges: key (domain, range, physical page), counted by vectors. */
import { hex } from '../../ports/address.ts';
import { type IommuDomain, Prot } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import { mapDeviceMemory, unmapDeviceMemory } from './device-memory.ts';
import { type DmaContext, doorbellGranule, type IovaSpan } from './doorbell-context.ts';

/** One page of G bytes. */
export interface DoorbellSlot {
  readonly iova: number;
  /** Page of the physical doorbell. */
  readonly pa: number;
  /** Allocated vectors that it serves. */
  readonly vectors: number;
}

interface CountedSlot extends DoorbellSlot {
  vectors: number;
}

export class DoorbellPages {
  /** Bytes of a page, a power of two. */
  readonly granule: number;
  private readonly context: KernelContext;
  private readonly domain: IommuDomain;
  private readonly prot: number;
  /** Ranges of a context never overlap in part, so the IOVA alone finds (range, slot). */
  private readonly byIova = new Map<number, CountedSlot>();

  constructor(context: KernelContext, kind: DmaContext['kind'], domain: IommuDomain) {
    this.context = context;
    this.domain = domain;
    this.granule = doorbellGranule(context.pageSize, domain);
    this.prot = kind === 'type1' ? Prot.WRITE | Prot.NOEXEC | Prot.MMIO : Prot.READ | Prot.WRITE | Prot.MMIO;
  }

  get slots(): readonly DoorbellSlot[] {
    return [...this.byIova.values()];
  }

  /** One vector more for the doorbell's page in the range: its slot, or the first free one, mapped. The IOVA, or -errno. */
  acquire(range: IovaSpan, doorbell: number): number {
    const pa = this.page(doorbell);
    for (const slot of this.byIova.values()) {
      if (slot.pa === pa && slot.iova >= range.start && slot.iova <= range.end) {
        slot.vectors++;
        return slot.iova;
      }
    }
    let free = range.start;
    while (this.byIova.has(free)) free += this.granule;
    if (free > range.end) return this.refuseFull(range, pa);
    const error = this.map(free, pa);
    return error < 0 ? error : free;
  }

  /** One vector more for the doorbell's page exactly at `iova`: what a message that is already written needs. 0 or -errno. */
  acquireAt(iova: number, doorbell: number): number {
    const pa = this.page(doorbell);
    const slot = this.byIova.get(iova);
    if (slot === undefined) return this.map(iova, pa);
    if (slot.pa !== pa) {
      return this.context.refusals.refuse(
        'EADDRINUSE',
        `iova ${hex(iova)} stands for the doorbell page ${hex(slot.pa)} in this domain, a vector needs it for ${hex(pa)}`,
        'iova',
      );
    }
    slot.vectors++;
    return 0;
  }

  /** One vector less; the last one unmaps, and waits for the invalidation. */
  release(iova: number): void {
    const slot = this.byIova.get(iova);
    if (slot === undefined || --slot.vectors > 0) return;
    this.byIova.delete(iova);
    unmapDeviceMemory([this.domain], iova, this.granule);
  }

  private page(doorbell: number): number {
    return doorbell - (doorbell % this.granule);
  }

  private map(iova: number, pa: number): number {
    const memory = { iova, pa, size: this.granule, prot: this.prot };
    const error = mapDeviceMemory(this.context, [this.domain], memory);
    if (error < 0) return error;
    this.byIova.set(iova, { iova, pa, vectors: 1 });
    return 0;
  }

  private refuseFull(range: IovaSpan, pa: number): number {
    const size = range.end - range.start + 1;
    return this.context.refusals.refuse(
      'ENOSPC',
      `size ${hex(size)} at iova ${hex(range.start)} has ${size / this.granule} pages of ${hex(this.granule)}, all taken by other doorbells; ${hex(pa)} needs one more`,
      'size',
      `a size of ${hex(size + this.granule)} holds it`,
    );
  }
}

const pagesOf = new WeakMap<IommuDomain, DoorbellPages>();

/** The one set of pages of a domain. */
export function doorbellPages(context: KernelContext, kind: DmaContext['kind'], domain: IommuDomain): DoorbellPages {
  const known = pagesOf.get(domain) ?? new DoorbellPages(context, kind, domain);
  pagesOf.set(domain, known);
  return known;
}
