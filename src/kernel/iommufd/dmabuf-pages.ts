/**
 * A dma-buf as the pages of areas (IOPT_ADDRESS_DMABUF in iommufd/pages.c): device memory, neither pinned nor charged. When the exporter revokes it,
 * every domain loses it at once; areas stay, map nothing, and never come back to life.
 */
import { hex } from '../../ports/address.ts';
import type { IommuDomain } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import type { DmaBufFile, DmaBufImporter, PhysVec } from '../dma-buf.ts';
import { fget, fput } from '../files.ts';
import type { Process } from '../process.ts';
import type { Area } from './area.ts';
import { unmapArea } from './area-domain.ts';
import { IoptPages, type Run } from './pages.ts';

export interface DmaBufSource {
  /** Who mapped it. */
  readonly process: Process;
  readonly dmabuf: DmaBufFile;
  /** Offset in the dma-buf, down to a whole page. */
  readonly base: bigint;
  readonly writable: boolean;
}

export class DmaBufPages extends IoptPages implements DmaBufImporter {
  override readonly mmio = true;
  private readonly dmabuf: DmaBufFile;
  /** Null once it was revoked. */
  private physical: PhysVec | null;
  /** Areas that are in domains, and the domains: of the same array that their IOAS has. */
  private readonly tracked = new Map<Area, readonly IommuDomain[]>();

  private constructor(context: KernelContext, source: DmaBufSource) {
    super(context, { ...source, file: null, account: 'none' });
    this.dmabuf = source.dmabuf;
    this.physical = null;
  }

  /** iopt_alloc_dmabuf_pages: `start` and `length` in bytes of the dma-buf. -EINVAL beyond its end, -ENODEV revoked, -EOPNOTSUPP not for iommufd. */
  static import(context: KernelContext, source: DmaBufSource, start: bigint, length: bigint): DmaBufPages | number {
    const { refusals, pageSize } = context;
    const { dmabuf } = source;
    if (start + length > BigInt(dmabuf.size)) {
      const why = `${hex(start)} + ${hex(length)} ends beyond the dma-buf, which has ${hex(dmabuf.size, 1)} bytes`;
      return refusals.refuse('EINVAL', why, 'length');
    }
    if (start % BigInt(pageSize) !== start - source.base) throw new Error('base is not the page of start');
    const pages = new DmaBufPages(context, source);
    const attached = dmabuf.attach(pages);
    if (attached < 0) return refusals.passOn(attached, `${dmabuf.name} lets nobody attach`);
    const physical = pages.ask();
    if (typeof physical === 'number') {
      dmabuf.detach(pages);
      return physical;
    }
    pages.physical = physical;
    fget(dmabuf);
    return pages;
  }

  override get revoked(): boolean {
    return this.physical === null;
  }

  /** Nothing is pinned: 0. */
  override pin(): number {
    return 0;
  }

  override unpin(): void {}

  /** Nothing once it is revoked. */
  override runs(startByte: bigint, length: bigint): Run[] {
    if (this.physical === null) return [];
    return [{ pa: this.physical.pa + Number(this.base + startByte), length: Number(length) }];
  }

  override track(area: Area, domains: readonly IommuDomain[]): void {
    this.tracked.set(area, domains);
  }

  override untrack(area: Area): void {
    this.tracked.delete(area);
  }

  /** iopt_revoke_notify. */
  invalidateMappings(): void {
    if (this.physical === null) return;
    for (const [area, domains] of this.tracked) for (const domain of domains) unmapArea(domain, area);
    this.physical = null;
  }

  protected override released(): void {
    this.dmabuf.detach(this);
    fput(this.dmabuf);
  }

  private ask(): PhysVec | number {
    const { refusals } = this.context;
    const physical = this.dmabuf.exporter.iommufdMap?.();
    if (physical !== undefined) return physical;
    return refusals.refuse('EOPNOTSUPP', `${this.dmabuf.name} comes from a driver that iommufd does not know`, 'fd');
  }
}
