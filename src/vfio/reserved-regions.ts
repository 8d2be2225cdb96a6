/** Ranges of IOVAs that a group's devices cannot use for DMA, as sysfs tells them. */
import type { Kernel } from '../ports/kernel.ts';

export interface GroupReservedRegion {
  readonly start: number;
  /** Inclusive; a range that ends beyond 2^53 ends at 2^53 - 1 here. */
  readonly end: number;
  /** `msi` is both the platform's own doorbell range and the window that the kernel chose. */
  readonly type: 'direct' | 'direct-relaxable' | 'reserved' | 'msi' | 'unknown';
}

const TYPES: ReadonlySet<string> = new Set(['direct', 'direct-relaxable', 'reserved', 'msi']);

/**
 * Reads `/sys/kernel/iommu_groups/<number>/reserved_regions`; null when there is no such group.
 *
 * @example
 * const [window] = reservedRegions(kernel, 3)!; // { start: 0x0800_0000, end: 0x080f_ffff, type: 'msi' }
 */
export function reservedRegions(kernel: Kernel, group: number): readonly GroupReservedRegion[] | null {
  const text = kernel.readText(`/sys/kernel/iommu_groups/${group}/reserved_regions`);
  return text === null ? null : parseReservedRegions(text);
}

/** Lines of `0x<start> 0x<inclusive end> <type>` (iommu.c `iommu_group_show_resv_regions`); others are skipped. */
export function parseReservedRegions(text: string): readonly GroupReservedRegion[] {
  return text.split('\n').flatMap((line) => {
    const match = /^(0x[0-9a-f]+) (0x[0-9a-f]+) ([\w-]+)/.exec(line.trim());
    if (match === null) return [];
    const type = TYPES.has(match[3]!) ? (match[3] as GroupReservedRegion['type']) : 'unknown';
    return [{ start: exact(match[1]!), end: exact(match[2]!), type }];
  });
}

const exact = (text: string): number => Math.min(Number(BigInt(text)), Number.MAX_SAFE_INTEGER);
