/** Reserved regions: how the iommu core merges them and how sysfs shows them (drivers/iommu/iommu.c). */
import type { ReservedRegion, ReservedType } from '../../ports/iommu.ts';

/** Order of types at equal starts: enum iommu_resv_type. */
const ORDER: readonly ReservedType[] = ['direct', 'direct-relaxable', 'reserved', 'msi', 'sw-msi'];

export function sortRegions(regions: readonly ReservedRegion[]): ReservedRegion[] {
  return [...regions].sort((a, b) => a.start - b.start || ORDER.indexOf(a.type) - ORDER.indexOf(b.type));
}

/** Sorted by start; regions of one type that overlap or touch are one (iommu_insert_resv_region). */
export function mergeRegions(regions: readonly ReservedRegion[]): ReservedRegion[] {
  const merged: ReservedRegion[] = [];
  for (const region of sortRegions(regions)) {
    const at = merged.findLastIndex((other) => other.type === region.type);
    const last = merged[at];
    if (last !== undefined && region.start <= last.end + 1) {
      merged[at] = { ...last, end: Math.max(last.end, region.end) };
    } else {
      merged.push(region);
    }
  }
  return merged;
}

/** A line of /sys/kernel/iommu_groups/N/reserved_regions, without its end: a software MSI window shows as `msi`. */
export function resvRegionText(region: ReservedRegion): string {
  const hex = (value: number): string => `0x${value.toString(16).padStart(16, '0')}`;
  return `${hex(region.start)} ${hex(region.end)} ${region.type === 'sw-msi' ? 'msi' : region.type}`;
}
