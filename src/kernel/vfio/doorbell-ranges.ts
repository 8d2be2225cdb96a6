/** The doorbell ranges that user space reserved in one context: shared when identical, refused when they collide with anything. */
import { hex } from '../../ports/address.ts';
import type { ReservedRegion } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import { msiCookie } from '../irq/msi-cookie.ts';
import type { TakenRanges } from '../irq/type1-cookie.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { DmaContext, IovaSpan } from './doorbell-context.ts';

/** A reserved range [iova, iova + size), in bytes. */
export class DoorbellRange implements IovaSpan {
  readonly iova: number;
  readonly size: number;
  /** Defaults and vectors of all devices that name exactly this range. */
  holders = 0;
  private readonly owner: DoorbellRanges;

  constructor(owner: DoorbellRanges, iova: number, size: number) {
    this.owner = owner;
    this.iova = iova;
    this.size = size;
  }

  /** One holder less; the last one gives the range back to its context. */
  drop(): void {
    if (--this.holders === 0) this.owner.remove(this);
  }

  /** Takes back a `drop` of a moment ago, unchecked: what came to stand in between has gone again. */
  regain(): void {
    if (this.holders++ === 0) this.owner.add(this);
  }

  get start(): number {
    return this.iova;
  }

  get end(): number {
    return this.iova + this.size - 1;
  }
}

const overlap = (a: IovaSpan, b: IovaSpan): boolean => a.start <= b.end && b.start <= a.end;
const show = (span: IovaSpan): string => `${hex(span.start)} to ${hex(span.end)}`;

export class DoorbellRanges implements TakenRanges {
  private readonly context: KernelContext;
  private readonly dma: DmaContext;
  private readonly list: DoorbellRange[] = [];

  constructor(context: KernelContext, dma: DmaContext) {
    this.context = context;
    this.dma = dma;
  }

  get all(): readonly DoorbellRange[] {
    return this.list;
  }

  /** Reserves [iova, iova + size) for one holder more, or -EADDRINUSE with what is in the way. */
  hold(dev: PciDev, iova: number, size: number): DoorbellRange | number {
    const known = this.list.find((range) => range.iova === iova && range.size === size);
    const range = known ?? new DoorbellRange(this, iova, size);
    if (known === undefined) {
      const obstacle = this.obstacle(dev, range);
      if (obstacle !== null) {
        const why = `iova ${hex(iova)} + ${hex(size)} overlaps ${obstacle}`;
        return this.context.refusals.refuse('EADDRINUSE', why, 'iova');
      }
    }
    range.regain();
    return range;
  }

  /** Of DoorbellRange: the first holder came. */
  add(range: DoorbellRange): void {
    this.list.push(range);
    this.dma.reserve(range.start, range.end);
  }

  /** Of DoorbellRange: nobody holds it any more. */
  remove(range: DoorbellRange): void {
    const at = this.list.indexOf(range);
    if (at < 0) return;
    this.list.splice(at, 1);
    this.dma.release(range.start, range.end);
  }

  takenEnd(start: number, end: number): number {
    return this.list.find((range) => overlap(range, { start, end }))?.end ?? -1;
  }

  /** A range that a new group's reserved regions would cut, or null. Its own SW_MSI window and direct-relaxable regions do not count. */
  conflict(regions: readonly ReservedRegion[]): DoorbellRange | null {
    const hard = regions.filter((region) => region.type !== 'sw-msi' && region.type !== 'direct-relaxable');
    return this.list.find((range) => hard.some((region) => overlap(range, region))) ?? null;
  }

  /** In the order of rule 10: the user's maps, reserved regions, other reservations, pages that the kernel's window already has. */
  private obstacle(dev: PciDev, wanted: DoorbellRange): string | null {
    const mapping = this.dma.userMapping(wanted.start, wanted.end);
    if (mapping !== null) return `the mapping ${show(mapping)}`;
    const own = [...(dev.iommuGroup?.reservedRegions() ?? []), ...(this.dma.windowsOf?.(dev) ?? [])];
    const region = [...own, ...this.dma.reservedRegions()].find(
      (candidate) => overlap(wanted, candidate) && !exempt(candidate, own),
    );
    if (region !== undefined) return `the reserved region ${region.type} ${show(region)}`;
    const other = this.list.find((range) => overlap(wanted, range));
    if (other !== undefined) return `the doorbell range ${show(other)}, and only the identical range can be shared`;
    return this.windowPage(wanted);
  }

  /** A doorbell that the kernel's window placed there. */
  private windowPage(wanted: IovaSpan): string | null {
    for (const domain of this.dma.domains) {
      for (const page of msiCookie(domain)?.pages ?? []) {
        const span = { start: page.iova, end: page.iova + this.context.pageSize - 1 };
        if (overlap(wanted, span)) {
          return `the kernel's own doorbell page ${hex(page.iova)}, which lives as long as its domain`;
        }
      }
    }
    return null;
  }
}

/** A doorbell may stand in the window that the group's driver keeps for doorbells, and where firmware would tolerate other mappings. */
function exempt(region: ReservedRegion, own: readonly ReservedRegion[]): boolean {
  if (region.type === 'direct-relaxable') return true;
  return (
    region.type === 'sw-msi' &&
    own.some((mine) => mine.type === 'sw-msi' && mine.start === region.start && mine.end === region.end)
  );
}

const ranges = new WeakMap<DmaContext, DoorbellRanges>();

/** The one set of ranges of a context. */
export function doorbellRanges(context: KernelContext, dma: DmaContext): DoorbellRanges {
  const known = ranges.get(dma) ?? new DoorbellRanges(context, dma);
  ranges.set(dma, known);
  return known;
}
