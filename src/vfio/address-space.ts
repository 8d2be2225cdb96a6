/** What user code needs of an IOMMU context, whichever of the kernel's two kinds stands behind it: a container's type1, or an IOAS of iommufd. */
import type { Iova } from '../ports/address.ts';
import type { Kernel, UserBuffer } from '../ports/kernel.ts';
import type { DmaBuffer } from './dma-buffer.ts';
import type { IovaRange } from './iommu-info.ts';

/** What the device may do: read, write, or both. */
export const DMA_ACCESSES = ['r', 'w', 'rw'] as const;
export type DmaAccess = (typeof DMA_ACCESSES)[number];

export interface MapDmaOptions {
  /** Bytes; rounded up to whole pages. Or hand over memory as `buffer`, which then belongs to the DMA buffer. */
  readonly length?: number;
  readonly buffer?: UserBuffer;
  /** Where the device finds it; a multiple of the smallest page. Left out: a free place (container: the library's choice, IOAS: the kernel's). */
  readonly iova?: number | bigint;
  readonly access?: DmaAccess;
}

/**
 * Implemented by `Container` and `Ioas`.
 *
 * @example
 * using device = openDevice(kernel, '0000:01:00.0', { via: 'iommufd' }); // or 'container': the rest is the same
 * const buffer = device.space.mapDma({ length: 4096 });
 */
export interface AddressSpace extends Disposable {
  readonly kernel: Kernel;
  /** For errors: `container`, `IOAS 2`. */
  readonly label: string;
  readonly isClosed: boolean;
  /** Allocates memory, or takes `buffer`, and maps it for the devices of this space. @throws VfioError */
  mapDma(options: MapDmaOptions): DmaBuffer;
  /**
   * Maps [address, address + length) of this process at `iova`, or where there is room for null. No hold is kept of the memory.
   * @param length bytes, as all three a multiple of the smallest page
   * @throws VfioError: EEXIST over a mapping, EINVAL over what is reserved, ENOSPC without room
   */
  map(iova: number | bigint | null, address: number, length: number, access?: DmaAccess): Iova;
  /** Unmaps what lies in [iova, iova + length). @returns bytes unmapped, 0 when nothing was there @throws VfioError when a mapping would be cut */
  unmap(iova: number | bigint, length: number): number;
  /** Unmaps everything. @returns bytes unmapped @throws VfioError */
  unmapAll(): number;
  /** What may be mapped, in ascending order; empty when the kernel does not say. It changes with devices and doorbells. @throws VfioError */
  ranges(): readonly IovaRange[];
  /** Bytes, smallest first; mappings are multiples of the first. iommufd tells of the smallest alone, 1 before the first device. @throws VfioError */
  pageSizes(): readonly number[];
  close(): void;
}
