/** Why a mapping was refused, found out afterwards, for a kernel that only says EINVAL. */
import { hex } from '../ports/address.ts';
import type { Container } from './container.ts';
import { VfioError } from './error.ts';
import type { IommuInfo } from './iommu-info.ts';
import { reservedRegions } from './reserved-regions.ts';

interface Wanted {
  readonly iova: number;
  readonly address: number;
  readonly length: number;
}
type Explanation = { readonly why: string; readonly field: string; readonly hint?: string };

export function explainMap(code: string, container: Container, wanted: Wanted): Explanation | null {
  if (code === 'EEXIST') return { why: `${span(wanted)} overlaps an earlier mapping`, field: 'iova' };
  if (code === 'EFAULT') return { why: `memory at ${hex(wanted.address)} cannot be pinned`, field: 'vaddr' };
  if (code === 'ENOMEM')
    return { why: `RLIMIT_MEMLOCK does not allow ${hex(wanted.length)} bytes more`, field: 'size' };
  if (code !== 'EINVAL') return null;
  const info = infoOf(container);
  return (info === null ? noIommu() : misaligned(wanted, info)) ?? reserved(container, wanted) ?? outside(wanted, info);
}

const span = ({ iova, length }: Wanted): string => `iova ${hex(iova)} + ${hex(length, 1)}`;

function infoOf(container: Container): IommuInfo | null {
  try {
    return container.info();
  } catch (error) {
    if (error instanceof VfioError) return null;
    throw error;
  }
}

const noIommu = (): Explanation => ({
  why: 'the container has no IOMMU yet',
  field: 'fd',
  hint: 'put a group into it and set the IOMMU first',
});

function misaligned({ iova, address, length }: Wanted, info: IommuInfo): Explanation | null {
  const page = info.pageSizes[0] ?? 4096;
  if (length === 0) return { why: 'size is 0', field: 'size' };
  for (const [field, value] of Object.entries({ iova, vaddr: address, size: length })) {
    if (value % page !== 0)
      return { why: `${field} ${hex(value)} is not a multiple of the page, ${hex(page, 1)}`, field };
  }
  return null;
}

function reserved(container: Container, wanted: Wanted): Explanation | null {
  const end = wanted.iova + wanted.length - 1;
  for (const { number } of container.groups) {
    for (const region of reservedRegions(container.kernel, number) ?? []) {
      if (region.type === 'direct-relaxable' || region.start > end || region.end < wanted.iova) continue;
      return { why: `${span(wanted)} overlaps reserved region ${region.type} of group ${number}`, field: 'iova' };
    }
  }
  return null;
}

function outside(wanted: Wanted, info: IommuInfo | null): Explanation | null {
  if (info === null || info.iovaRanges.length === 0) return null;
  const end = wanted.iova + wanted.length - 1;
  if (info.iovaRanges.some((range) => range.start <= wanted.iova && end <= range.end)) return null;
  const allowed = info.iovaRanges.map(({ start, end }) => `${hex(start)}-${hex(end)}`).join(', ');
  return { why: `${span(wanted)} is not inside one allowed range`, field: 'iova', hint: `allowed are ${allowed}` };
}
