/** VFIO's type1 IOMMU back end (vfio_iommu_type1.c): what a container is once SET_IOMMU was answered. */
import { hex } from '../../ports/address.ts';
import type { IommuDomain, ReservedRegion } from '../../ports/iommu.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { KernelContext } from '../context.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { Process } from '../process.ts';
import { DmaList, type VfioDma } from './dma-list.ts';
import type { DmaContext } from './doorbell-context.ts';
import type { VfioIommu, VfioIommuDriver } from './iommu-driver.ts';
import { IovaList, type IovaRange } from './iova-list.ts';
import { Reservations } from './reservations.ts';
import { attachGroup, detachGroup, refreshIovaList } from './type1-attach.ts';
import { dirtyPages } from './type1-dirty.ts';
import type { Type1Domain } from './type1-domain.ts';
import { getInfo } from './type1-info.ts';
import { mapDma } from './type1-map.ts';
import { unmapDma } from './type1-unmap.ts';

export class VfioIommuType1 implements VfioIommu, DmaContext {
  readonly kind = 'type1';
  readonly context: KernelContext;
  /** VFIO_TYPE1v2_IOMMU: unmapping never splits a mapping. */
  readonly v2: boolean;
  readonly dmas = new DmaList();
  readonly taken = new Reservations();
  domainList: Type1Domain[] = [];
  iovas = new IovaList();
  /** Entries that MAP_DMA still may make. */
  dmaAvail: number;
  /** Mappings whose vaddr UNMAP_DMA(VADDR) took away. */
  vaddrInvalidCount = 0;
  /** VFIO_IOMMU_DIRTY_PAGES with START came, and no STOP since. */
  dirtyTracking = false;
  /** Page sizes of all domains, as bits of a u64; what is below PAGE_SIZE is folded into PAGE_SIZE. */
  pageSizeBitmap: bigint;

  constructor(context: KernelContext, v2: boolean) {
    this.context = context;
    this.v2 = v2;
    this.dmaAvail = context.modules.vfio_iommu_type1.dma_entry_limit;
    this.pageSizeBitmap = BigInt.asUintN(64, -BigInt(context.pageSize));
  }

  get type1(): VfioIommuType1 {
    return this;
  }

  /** Smallest page that every domain can map, in bytes. */
  get smallestPage(): number {
    return Number(this.pageSizeBitmap & -this.pageSizeBitmap);
  }

  /** Page sizes that every domain has, in bytes, smallest first. */
  get pageSizes(): readonly number[] {
    const first = this.domainList[0]?.domain.pageSizes ?? [];
    return first.filter((size) => (this.pageSizeBitmap & BigInt(size)) !== 0n);
  }

  get domains(): readonly IommuDomain[] {
    return this.domainList.map((entry) => entry.domain);
  }

  get groups(): readonly IommuGroup[] {
    return this.domainList.flatMap((entry) => entry.groups);
  }

  /** The domain that the device translates through, or null while its group is not in this container. */
  domainOf(dev: PciDev): IommuDomain | null {
    const group = dev.iommuGroup;
    return group === null ? null : (this.domainList.find((entry) => entry.groups.includes(group))?.domain ?? null);
  }

  /** The first mapping of user space's that touches [start, end], or null. */
  userMapping(start: number, end: number): IovaRange | null {
    const dma = this.dmas.overlapping(start, end + 1);
    return dma === null ? null : { start: dma.iova, end: dma.iova + dma.size - 1 };
  }

  /** Of every group in the container. */
  reservedRegions(): readonly ReservedRegion[] {
    return this.groups.flatMap((group) => group.reservedRegions());
  }

  get reservations(): readonly IovaRange[] {
    return this.taken.all;
  }

  /** Takes [start, end] out of what user space may map. Conflicts are the caller's to refuse, before. */
  reserve(start: number, end: number): void {
    this.taken.add(start, end);
    refreshIovaList(this);
  }

  release(start: number, end: number): void {
    this.taken.remove(start, end);
    refreshIovaList(this);
  }

  checkExtension(id: number): number {
    if (id === uapi.VFIO_DMA_CC_IOMMU) return this.domainList.every((entry) => entry.enforcesCoherency) ? 1 : 0;
    return id === uapi.VFIO_UPDATE_VADDR ? 1 : checkStaticExtension(id);
  }

  attachGroup(group: IommuGroup): number {
    return attachGroup(this, group);
  }

  detachGroup(group: IommuGroup): void {
    detachGroup(this, group);
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    switch (request) {
      case uapi.VFIO_IOMMU_GET_INFO:
        return getInfo(this, process, argument);
      case uapi.VFIO_IOMMU_MAP_DMA:
        return mapDma(this, process, argument);
      case uapi.VFIO_IOMMU_UNMAP_DMA:
        return unmapDma(this, process, argument);
      case uapi.VFIO_IOMMU_DIRTY_PAGES:
        return dirtyPages(this, process, argument);
      default:
        return this.context.refusals.refuse('ENOTTY', 'type1 does not know this request', 'request');
    }
  }

  /** The mapping that [start, end) splits at one of its ends, and which end; null stands for what 2^53 does not hold. */
  bisected(start: number | null, end: number | null): { readonly field: 'iova' | 'size'; readonly why: string } | null {
    const why = (dma: VfioDma): string => `would split the mapping at iova ${hex(dma.iova)} + ${hex(dma.size)}`;
    const first = start === null ? null : this.dmas.at(start);
    if (first !== null && first.iova !== start) return { field: 'iova', why: why(first) };
    const last = end === null ? null : this.dmas.at(end - 1);
    if (last !== null && last.iova + last.size !== end) return { field: 'size', why: why(last) };
    return null;
  }

  /** vfio_remove_dma: out of every domain's tables first, then the pages are given back. */
  removeDma(dma: VfioDma): void {
    for (const entry of this.domainList) entry.unmap(dma);
    this.unpin(dma);
    this.dmas.remove(dma);
    if (dma.vaddrInvalid) this.vaddrInvalidCount -= 1;
    this.dmaAvail += 1;
  }

  unpin(dma: VfioDma): void {
    if (dma.pinned === null) return;
    dma.process.lockedPages -= dma.pinned.accountedPages;
    dma.pinned.release();
    dma.pinned = null;
  }
}

/** What type1 answers without an instance. */
export function checkStaticExtension(id: number): number {
  return id === uapi.VFIO_TYPE1_IOMMU || id === uapi.VFIO_TYPE1v2_IOMMU || id === uapi.VFIO_UNMAP_ALL ? 1 : 0;
}

export function type1Driver(context: KernelContext): VfioIommuDriver {
  return {
    name: 'vfio-iommu-type1',
    checkExtension: checkStaticExtension,
    open(id) {
      if (id === uapi.VFIO_TYPE1_IOMMU || id === uapi.VFIO_TYPE1v2_IOMMU) {
        return new VfioIommuType1(context, id === uapi.VFIO_TYPE1v2_IOMMU);
      }
      return context.refusals.refuse(
        'EINVAL',
        `extension ${id} is an ability of type1, not an IOMMU to set`,
        'argument',
      );
    },
  };
}
