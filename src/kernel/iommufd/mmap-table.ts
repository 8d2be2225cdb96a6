/** Pages of drivers that user space may map through the iommufd itself (struct iommufd_mmap, iommufd/driver.c and main.c). */
import type { Mapping } from '../../ports/kernel.ts';
import type { KernelContext } from '../context.ts';
import type { FileMapping, MapRequest } from '../files.ts';
import type { IommufdObject } from './object.ts';

const PROT_EXEC = 4;

interface Entry {
  /** What is not destroyed while somebody has the pages mapped. */
  readonly owner: IommufdObject;
  readonly offset: number;
  readonly pa: number;
  readonly length: number;
}

/** Offsets are the lowest free ones from the second page up. */
export class MmapTable {
  private readonly context: KernelContext;
  /** Sorted by offset. */
  private entries: readonly Entry[] = [];

  constructor(context: KernelContext) {
    this.context = context;
  }

  /** iommufd_viommu_alloc_mmap: the offset that user space maps; -EINVAL for what is not whole pages. */
  alloc(owner: IommufdObject, pa: number, length: number): number {
    const { refusals, pageSize } = this.context;
    if (pa % pageSize !== 0 || length === 0 || length % pageSize !== 0) {
      return refusals.refuse('EINVAL', `${length} bytes at ${pa} are not whole pages`, 'length');
    }
    let offset = pageSize;
    for (const entry of this.entries) {
      if (entry.offset - offset >= length) break;
      offset = entry.offset + entry.length;
    }
    const made = { owner, offset, pa, length };
    this.entries = [...this.entries, made].sort((a, b) => a.offset - b.offset);
    return offset;
  }

  /** iommufd_viommu_destroy_mmap. */
  free(offset: number): void {
    this.entries = this.entries.filter((entry) => entry.offset !== offset);
  }

  /** iommufd_fops_mmap: all of one entry, shared and not executable. -EINVAL, -EPERM, -ENXIO. */
  map(offset: number, length: number, { shared, prot }: MapRequest): FileMapping | number {
    const { refusals, pageSize } = this.context;
    if (length % pageSize !== 0) return refusals.refuse('EINVAL', `length ${length} is not whole pages`, 'length');
    if (!shared) return refusals.refuse('EINVAL', 'a private mapping of device pages', 'flags', 'map with MAP_SHARED');
    if ((prot & PROT_EXEC) !== 0) return refusals.refuse('EPERM', 'the pages hold no code', 'prot');
    const entry = this.entries.find((each) => each.offset === offset && each.length === length);
    if (entry === undefined) {
      return refusals.refuse('ENXIO', `nothing of ${length} bytes can be mapped at offset ${offset}`, 'offset');
    }
    return new PageMapping(this.context, entry);
  }
}

class PageMapping implements FileMapping {
  readonly pa: number;
  readonly length: number;
  readonly deviceMemory = true;
  private readonly context: KernelContext;
  private readonly owner: IommufdObject;
  private closed = false;

  constructor(context: KernelContext, { owner, pa, length }: Entry) {
    this.context = context;
    this.pa = pa;
    this.length = length;
    this.owner = owner;
    owner.users += 1;
  }

  open(address: number): Mapping {
    const { bus, memory } = this.context;
    const { pa, length } = this;
    return {
      address,
      length,
      bytes: memory.view(pa, length),
      read32: (offset) => bus.read32(pa + offset) >>> 0,
      write32: (offset, value) => void bus.write32(pa + offset, value),
      unmap: () => {},
    };
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.owner.users -= 1;
  }
}
