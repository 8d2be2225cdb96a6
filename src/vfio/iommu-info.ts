/** What VFIO_IOMMU_GET_INFO says: page sizes, the IOVAs that may be mapped, how many mappings are left. */
import { fromU64 } from '../ports/address.ts';
import {
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_cap_migration,
  vfio_iommu_type1_info_dma_avail,
} from '../uapi/vfio-type1.ts';
import { capabilityChain, type InfoCapability } from './request.ts';

export interface IovaRange {
  readonly start: number;
  /** Inclusive; a range that ends beyond 2^53 ends at 2^53 - 1 here. */
  readonly end: number;
}

export interface IommuInfo {
  /** Bytes, smallest first. Mappings are multiples of the first. Sizes of 2^53 and more are left out. */
  readonly pageSizes: readonly number[];
  /** What may be mapped, in ascending order; empty when the kernel does not say. */
  readonly iovaRanges: readonly IovaRange[];
  /** Mappings that this container can still make; null when the kernel does not say. */
  readonly dmaAvailable: number | null;
  /** Dirty page tracking, where there is any: its page sizes, and the longest bitmap in bytes. */
  readonly dirtyTracking: { readonly pageSizes: readonly number[]; readonly maxBitmapBytes: number } | null;
}

export function parseIommuInfo(answer: Uint8Array): IommuInfo {
  const info = vfio_iommu_type1_info.read(answer);
  const offset = (info.flags & VFIO_IOMMU_INFO_CAPS) === 0 ? 0 : info.cap_offset;
  const chain = capabilityChain(answer, offset, 'VFIO_IOMMU_GET_INFO');
  const find = (id: number): InfoCapability | undefined => chain.find((capability) => capability.id === id);
  const available = find(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL);
  const migration = find(VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION);
  return {
    pageSizes: sizesOf(info.iova_pgsizes),
    iovaRanges: rangesOf(find(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)),
    dmaAvailable: available === undefined ? null : vfio_iommu_type1_info_dma_avail.read(available.bytes).avail,
    dirtyTracking: migration === undefined ? null : dirtyTracking(migration.bytes),
  };
}

function rangesOf(capability: InfoCapability | undefined): IovaRange[] {
  if (capability === undefined) return [];
  const { nr_iovas, iova_ranges } = vfio_iommu_type1_info_cap_iova_range.read(capability.bytes);
  return iova_ranges.slice(0, nr_iovas).map(({ start, end }) => ({ start: clamp(start), end: clamp(end) }));
}

function dirtyTracking(bytes: Uint8Array): NonNullable<IommuInfo['dirtyTracking']> {
  const { pgsize_bitmap, max_dirty_bitmap_size } = vfio_iommu_type1_info_cap_migration.read(bytes);
  return { pageSizes: sizesOf(pgsize_bitmap), maxBitmapBytes: clamp(max_dirty_bitmap_size) };
}

const clamp = (value: bigint): number => fromU64(value) ?? Number.MAX_SAFE_INTEGER;

/** The set bits of a page size bitmap, below 2^53. */
function sizesOf(bitmap: bigint): number[] {
  return Array.from({ length: 53 }, (_, bit) => 2 ** bit).filter((size) => (bitmap & BigInt(size)) !== 0n);
}
