/** A container: one IOMMU context (`/dev/vfio/vfio`) that groups are put into and memory is mapped into. */
import { hex, type Iova } from '../ports/address.ts';
import type { Kernel } from '../ports/kernel.ts';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
} from '../uapi/vfio-container.ts';
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
} from '../uapi/vfio-type1.ts';
import { type AddressSpace, DMA_ACCESSES, type DmaAccess, type MapDmaOptions } from './address-space.ts';
import { oneOf, whole, wholeIova } from './argument.ts';
import { chooseIova } from './choose-iova.ts';
import type { DmaBuffer } from './dma-buffer.ts';
import { mapMemory } from './dma-memory.ts';
import { check, VfioError } from './error.ts';
import { explainMap } from './explain-map.ts';
import type { Group } from './group.ts';
import { type IommuInfo, type IovaRange, parseIommuInfo } from './iommu-info.ts';
import { askInfo } from './request.ts';
import { Resource } from './resource.ts';

const PATH = '/dev/vfio/vfio';
/** What is assumed when the kernel does not list the IOVAs that may be mapped. */
const ANYWHERE: readonly IovaRange[] = [{ start: 0, end: 2 ** 32 - 1 }];

/**
 * @example
 * using container = Container.open(kernel);
 * using group = Group.open(kernel, 3);
 * group.setContainer(container);
 * container.setIommu();
 * using buffer = container.mapDma({ length: 4096 });
 * console.log(hex(buffer.iova));
 */
export class Container extends Resource implements AddressSpace {
  readonly kernel: Kernel;
  readonly fd: number;
  readonly #groups = new Set<Group>();
  readonly #mappings = new Map<number, number>();
  #iommu: number | null = null;

  private constructor(kernel: Kernel, fd: number) {
    super();
    this.kernel = kernel;
    this.fd = fd;
  }

  /** @throws VfioError, also EINVAL when the kernel speaks another version of the interface */
  static open(kernel: Kernel): Container {
    const container = new Container(kernel, check(kernel, kernel.open(PATH), `open(${PATH})`));
    const version = kernel.ioctl(container.fd, VFIO_GET_API_VERSION);
    if (version === VFIO_API_VERSION) return container;
    container.close();
    throw new VfioError({
      code: 'EINVAL',
      request: 'VFIO_GET_API_VERSION',
      why: `the kernel speaks version ${version}, this library version ${VFIO_API_VERSION}`,
    });
  }

  get label(): string {
    return 'container';
  }

  /** The IOMMU driver that was set (`VFIO_TYPE1v2_IOMMU`), or null. */
  get iommu(): number | null {
    return this.#iommu;
  }

  get groups(): readonly Group[] {
    return [...this.#groups];
  }

  /** Does the kernel know the IOMMU driver, or the ability, `id` (`VFIO_UNMAP_ALL`)? @throws VfioError */
  hasExtension(id: number): boolean {
    const name = 'VFIO_CHECK_EXTENSION';
    return this.#call(VFIO_CHECK_EXTENSION, name, whole(id, name, 'extension')) > 0;
  }

  /** Sets the IOMMU driver; a group must be in the container. Left out: type1v2, or type1 where that is all. @throws VfioError */
  setIommu(id?: number): void {
    if (id !== undefined) whole(id, 'VFIO_SET_IOMMU', 'type');
    const driver = id ?? (this.hasExtension(VFIO_TYPE1v2_IOMMU) ? VFIO_TYPE1v2_IOMMU : VFIO_TYPE1_IOMMU);
    const result = this.kernel.ioctl(this.fd, VFIO_SET_IOMMU, driver);
    check(this.kernel, result, 'VFIO_SET_IOMMU', (code) => this.#explainSetIommu(code));
    this.#iommu = driver;
  }

  /** Page sizes, allowed IOVAs and limits. Valid once the IOMMU is set; it changes with groups and doorbells. @throws VfioError */
  info(): IommuInfo {
    this.assertOpen('VFIO_IOMMU_GET_INFO');
    return parseIommuInfo(
      askInfo(this.kernel, this.fd, VFIO_IOMMU_GET_INFO, 'VFIO_IOMMU_GET_INFO', vfio_iommu_type1_info, () => {}),
    );
  }

  ranges(): readonly IovaRange[] {
    return this.info().iovaRanges;
  }

  pageSizes(): readonly number[] {
    return this.info().pageSizes;
  }

  mapDma(options: MapDmaOptions): DmaBuffer {
    this.assertOpen('VFIO_IOMMU_MAP_DMA');
    const page = options.iova === undefined ? this.#smallestPage() : this.kernel.pageSize;
    const undo = (iova: number, length: number): void => this.#unmapQuietly(iova, length);
    return this.adopt(mapMemory(this, options, page, 'VFIO_IOMMU_MAP_DMA', undo));
  }

  /** With null the library chooses the lowest place of those that it did not map itself: the kernel does not choose. */
  map(iova: number | bigint | null, address: number, length: number, access: DmaAccess = 'rw'): Iova {
    const name = 'VFIO_IOMMU_MAP_DMA';
    this.assertOpen(name);
    whole(address, name, 'vaddr');
    whole(length, name, 'size');
    oneOf(access, DMA_ACCESSES, name, 'access');
    const at = iova === null ? this.#choose(length, this.#smallestPage()) : wholeIova(iova, name);
    const flags = (access !== 'w' ? VFIO_DMA_MAP_FLAG_READ : 0) | (access !== 'r' ? VFIO_DMA_MAP_FLAG_WRITE : 0);
    const argsz = vfio_iommu_type1_dma_map.size;
    const bytes = vfio_iommu_type1_dma_map.bytes({ argsz, flags, vaddr: address, iova: at, size: length });
    const result = this.kernel.ioctl(this.fd, VFIO_IOMMU_MAP_DMA, bytes);
    check(this.kernel, result, name, (code) =>
      this.kernel.refusal() === null ? explainMap(code, this, { iova: at, address, length }) : null,
    );
    this.#mappings.set(at, length);
    return at;
  }

  /** Unmaps what lies in [iova, iova + length). @returns bytes unmapped, 0 when nothing was there @throws VfioError */
  unmap(from: number | bigint, length: number): number {
    const name = 'VFIO_IOMMU_UNMAP_DMA';
    this.assertOpen(name);
    const iova = wholeIova(from, name);
    whole(length, name, 'size');
    const bytes = this.#unmapRequest(iova, length, 0);
    const result = this.kernel.ioctl(this.fd, VFIO_IOMMU_UNMAP_DMA, bytes);
    check(this.kernel, result, name, (code) => this.#explainUnmap(code, iova, length));
    this.#forget(iova, length);
    return Number(vfio_iommu_type1_dma_unmap.get(bytes, 'size'));
  }

  /** Unmaps everything. @returns bytes unmapped @throws VfioError where the kernel lacks VFIO_UNMAP_ALL */
  unmapAll(): number {
    if (!this.hasExtension(VFIO_UNMAP_ALL)) {
      throw new VfioError({ code: 'ENOTTY', request: 'VFIO_IOMMU_UNMAP_DMA', why: 'this kernel lacks VFIO_UNMAP_ALL' });
    }
    const bytes = this.#unmapRequest(0, 0, VFIO_DMA_UNMAP_FLAG_ALL);
    this.#call(VFIO_IOMMU_UNMAP_DMA, 'VFIO_IOMMU_UNMAP_DMA', bytes);
    this.#mappings.clear();
    return Number(vfio_iommu_type1_dma_unmap.get(bytes, 'size'));
  }

  /** Called by {@link Group.setContainer}. */
  groupAttached(group: Group): void {
    this.#groups.add(this.adopt(group));
  }

  /** Called when a group left: with the last one the kernel drops the IOMMU and every mapping. */
  groupLeft(group: Group): void {
    this.#groups.delete(group);
    this.abandon(group);
    if (this.#groups.size > 0) return;
    this.#iommu = null;
    this.#mappings.clear();
  }

  /** Devices first, so that none of them does DMA into what is unmapped next. */
  protected override closeChildren(): void {
    for (const group of [...this.#groups].reverse()) group.closeDevices();
    super.closeChildren();
  }

  protected override release(): void {
    this.kernel.close(this.fd);
  }

  /** The usual unmap of one whole mapping costs the same however many there are. */
  #forget(iova: number, length: number): void {
    if (this.#mappings.get(iova) === length) this.#mappings.delete(iova);
    else
      for (const start of this.#mappings.keys())
        if (start >= iova && start < iova + length) this.#mappings.delete(start);
  }

  #call(request: number, name: string, argument: Uint8Array | number): number {
    this.assertOpen(name);
    return check(this.kernel, this.kernel.ioctl(this.fd, request, argument), name);
  }

  #smallestPage(): number {
    return Math.max(this.info().pageSizes[0] ?? 0, this.kernel.pageSize);
  }

  #choose(length: number, alignment: number): Iova {
    const { iovaRanges } = this.info();
    const taken = [...this.#mappings].map(([start, size]) => ({ start, end: start + size - 1 }));
    const chosen = chooseIova(length, alignment, iovaRanges.length === 0 ? ANYWHERE : iovaRanges, taken);
    if (chosen !== null) return chosen;
    const why = `no free IOVA for ${hex(length)} bytes in ${iovaRanges.length} allowed ranges`;
    throw new VfioError({ code: 'ENOSPC', request: 'VFIO_IOMMU_MAP_DMA', why, field: 'iova' });
  }

  #unmapRequest(iova: number, size: number, flags: number): Uint8Array {
    return vfio_iommu_type1_dma_unmap.bytes({ argsz: vfio_iommu_type1_dma_unmap.size, flags, iova, size });
  }

  /** For closing: the mapping may be gone already. */
  #unmapQuietly(iova: number, length: number): void {
    if (!this.#mappings.delete(iova)) return;
    this.kernel.ioctl(this.fd, VFIO_IOMMU_UNMAP_DMA, this.#unmapRequest(iova, length, 0));
  }

  #explainSetIommu(code: string): { why: string; hint?: string } | null {
    // vfio_iommu_type1.c `vfio_iommu_type1_attach_group`: nothing else there is EPERM.
    if (code === 'EPERM') {
      const why = 'the host’s MSIs are not isolated: a device could raise the interrupts of others';
      return { why, hint: 'the parameter allow_unsafe_interrupts=1 of vfio_iommu_type1 accepts that' };
    }
    if (code !== 'EINVAL') return null;
    const why = this.#groups.size === 0 ? 'no group is in the container yet' : 'the container has its IOMMU already';
    return { why };
  }

  #explainUnmap(code: string, iova: number, length: number): { why: string; field: string } | null {
    if (code !== 'EINVAL') return null;
    return {
      why: `${hex(iova)} + ${hex(length)} cuts a mapping in two, or is not a multiple of the page`,
      field: 'iova',
    };
  }
}
