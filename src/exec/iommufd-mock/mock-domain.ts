/** The page table of a mock device: a list of mappings in pages of 2 KiB, half of what a kernel page has. */
import type { IommuDomain } from '../../ports/iommu.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { type Chunk, DirtyLeaves } from './dirty-leaves.ts';

export const MOCK_APERTURE_START = 2 ** 24;
export const MOCK_APERTURE_LAST = 2 ** 31 - 1;
export const MOCK_PAGE_SIZE = 2048;
const MOCK_HUGE_PAGE_SIZE = 512 * MOCK_PAGE_SIZE;
const KERNEL_PAGE_SIZE = 4096;
const HUGE_APERTURE_LAST = 2 ** 53 - 1;

export class MockDomain implements IommuDomain {
  readonly type: IommuDomain['type'];
  readonly apertureStart: number;
  readonly apertureEnd: number;
  readonly pageSizes: readonly number[];
  /** Sorted, without overlap. */
  private readonly list: Chunk[] = [];
  readonly dirtyOps: DirtyLeaves | undefined;

  /**
   * @param huge whole pages of the kernel and huge ones, over all addresses that a number here holds exactly (the kernel's mock has 56 bits)
   * @param dirty IOMMU_HWPT_ALLOC_DIRTY_TRACKING
   */
  constructor(type: IommuDomain['type'], huge = false, dirty = false) {
    this.type = type;
    const isSize = (bytes: number): boolean => !huge || this.pageSizes.includes(bytes);
    this.dirtyOps = dirty ? new DirtyLeaves((iova) => this.chunkAt(iova), isSize) : undefined;
    this.apertureStart = huge ? 0 : MOCK_APERTURE_START;
    this.apertureEnd = huge ? HUGE_APERTURE_LAST : MOCK_APERTURE_LAST;
    this.pageSizes = [huge ? KERNEL_PAGE_SIZE : MOCK_PAGE_SIZE, MOCK_HUGE_PAGE_SIZE];
  }

  map(iova: number, pa: number, size: number): number {
    if (iova % MOCK_PAGE_SIZE !== 0 || size % MOCK_PAGE_SIZE !== 0 || pa % MOCK_PAGE_SIZE !== 0) return -ERRNO.EINVAL;
    const at = this.firstEndingAfter(iova);
    const next = this.list[at];
    if (next !== undefined && next.iova < iova + size) return -ERRNO.EEXIST;
    this.list.splice(at, 0, { iova, pa, size });
    return 0;
  }

  unmap(iova: number, size: number): number {
    this.dirtyOps?.forget(iova, size);
    const end = iova + size;
    let done = iova;
    for (let at = this.firstEndingAfter(iova); at < this.list.length && done < end; ) {
      const mapped = this.list[at]!;
      if (mapped.iova > done) break;
      const stop = Math.min(end, mapped.iova + mapped.size);
      const rest: Chunk[] = [];
      if (mapped.iova < done) rest.push({ ...mapped, size: done - mapped.iova });
      const behind = mapped.iova + mapped.size - stop;
      if (behind > 0) rest.push({ iova: stop, pa: mapped.pa + (stop - mapped.iova), size: behind });
      this.list.splice(at, 1, ...rest);
      if (mapped.iova < done) at += 1;
      done = stop;
    }
    return done - iova;
  }

  sync(): void {}

  lookup(iova: number): number {
    const mapped = this.chunkAt(iova);
    return mapped === null ? -1 : mapped.pa + (iova - mapped.iova);
  }

  private chunkAt(iova: number): Chunk | null {
    const mapped = this.list[this.firstEndingAfter(iova)];
    return mapped !== undefined && mapped.iova <= iova ? mapped : null;
  }

  enforceCoherency(): boolean {
    return true;
  }

  free(): void {}

  private firstEndingAfter(iova: number): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const mapped = this.list[middle]!;
      if (mapped.iova + mapped.size <= iova) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
