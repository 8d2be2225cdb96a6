/** A domain with page tables, whatever driver owns it: the tables, what waits for invalidation, and the checks of iommu_map. */
import { hex } from '../../ports/address.ts';
import { type DirtyOps, type IommuDomain, type IommuDriver, Prot } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import { PageTable, PageTableError } from './pgtable.ts';
import type { PageTableFormat } from './pgtable-format.ts';

/** What a driver does to its hardware's TLB for one domain. Each waits for completion. */
export interface DomainInvalidation {
  /** [start, end], inclusive. */
  range(domain: PagingDomain, start: number, end: number): void;
  /** Everything of the domain. */
  all(domain: PagingDomain): void;
  /** The domain goes: its tag returns to the driver. */
  release(domain: PagingDomain): void;
}

export interface PagingDomainOptions {
  readonly context: KernelContext;
  readonly owner: IommuDriver;
  readonly type: 'dma' | 'unmanaged';
  readonly stage: 1 | 2;
  readonly format: PageTableFormat;
  /** ASID, VMID or domain id. */
  readonly tag: number;
  readonly invalidation: DomainInvalidation;
  readonly enforceCoherency: boolean;
  /** The format marks what may become dirty, and this reads what did. */
  readonly dirtyOps?: ((table: PageTable) => DirtyOps) | undefined;
}

export class PagingDomain implements IommuDomain {
  readonly type: 'dma' | 'unmanaged';
  readonly owner: IommuDriver;
  readonly stage: 1 | 2;
  readonly format: PageTableFormat;
  readonly tag: number;
  readonly table: PageTable;
  readonly apertureStart = 0;
  readonly apertureEnd: number;
  readonly pageSizes: readonly number[];
  readonly dirtyOps: DirtyOps | undefined;
  /** A stage 2 that stage 1s of user space may stand on: what the TLB holds of both together goes with every unmap. */
  nestParent = false;
  private readonly context: KernelContext;
  private readonly invalidation: DomainInvalidation;
  private readonly coherency: boolean;
  private readonly granule: number;
  /** The IOVAs that wait for an invalidation, inclusive; none while start > end. */
  private start = 1;
  private end = 0;
  private freed = false;

  /** @throws RangeError when memory is exhausted. */
  constructor(options: PagingDomainOptions) {
    this.context = options.context;
    this.owner = options.owner;
    this.type = options.type;
    this.stage = options.stage;
    this.format = options.format;
    this.tag = options.tag;
    this.invalidation = options.invalidation;
    this.coherency = options.enforceCoherency;
    this.apertureEnd = 2 ** options.format.inputBits - 1;
    this.pageSizes = options.format.pageSizes;
    this.granule = 2 ** options.format.granuleShift;
    this.table = new PageTable(options.context.memory, options.format);
    this.dirtyOps = options.dirtyOps?.(this.table);
  }

  map(iova: number, pa: number, size: number, prot: number): number {
    const { granule } = this;
    if (iova % granule !== 0 || pa % granule !== 0 || size % granule !== 0 || !(size > 0)) {
      const what = `iova ${hex(iova)}, pa ${hex(pa)} and size ${hex(size)}`;
      return this.refuse('EINVAL', `${what} must be multiples of ${hex(granule)}, and size not 0`);
    }
    if ((prot & (Prot.READ | Prot.WRITE)) === 0) return this.refuse('EINVAL', 'a mapping needs READ or WRITE');
    if (iova + size - 1 > this.apertureEnd) {
      return this.refuse(
        'ERANGE',
        `iova ${hex(iova)} + ${hex(size)} is beyond the aperture's end ${hex(this.apertureEnd)}`,
      );
    }
    if (pa + size > 2 ** this.format.outputBits) {
      return this.refuse('ERANGE', `pa ${hex(pa)} + ${hex(size)} is beyond ${this.format.outputBits} bits`);
    }
    const error = this.table.map(iova, pa, size, prot);
    if (error === PageTableError.NONE) return 0;
    if (error === PageTableError.EXISTS)
      return this.refuse('EEXIST', `a page of ${hex(iova)} + ${hex(size)} is mapped already`);
    return this.refuse('ENOMEM', `no memory for a page table under ${hex(iova)}`);
  }

  unmap(iova: number, size: number): number {
    if (iova % this.granule !== 0 || size % this.granule !== 0) return 0;
    // A hole between two ranges is not worth invalidating: what was gathered goes first.
    if (this.start <= this.end && (iova > this.end + 1 || iova + size < this.start)) this.sync();
    const bytes = this.table.unmap(iova, size);
    if (bytes === 0) return 0;
    if (this.start > this.end) {
      this.start = iova;
      this.end = iova + bytes - 1;
    } else {
      this.start = Math.min(this.start, iova);
      this.end = Math.max(this.end, iova + bytes - 1);
    }
    return bytes;
  }

  sync(): void {
    if (this.start > this.end) return;
    this.invalidation.range(this, this.start, this.end);
    this.start = 1;
    this.end = 0;
    this.table.reclaim();
  }

  lookup(iova: number): number {
    return iova > this.apertureEnd ? -1 : this.table.lookup(iova);
  }

  enforceCoherency(): boolean {
    return this.coherency;
  }

  free(): void {
    if (this.freed) return;
    this.freed = true;
    this.invalidation.all(this);
    this.table.free();
    this.invalidation.release(this);
  }

  private refuse(code: 'EINVAL' | 'ERANGE' | 'EEXIST' | 'ENOMEM', why: string): number {
    return this.context.refusals.refuse(code, why);
  }
}
