/** What an errno of iommufd and of a device's own file means, for a kernel that does not say (drivers/iommu/iommufd, vfio device_cdev.c). */
import { hex } from '../ports/address.ts';
import type { Ioas } from './ioas.ts';
import type { IovaRange } from './iommu-info.ts';
import { reservedRegions } from './reserved-regions.ts';

interface Explanation {
  readonly why: string;
  readonly field?: string;
  readonly hint?: string;
}

interface Wanted {
  /** null: the kernel was to choose. */
  readonly iova: number | null;
  /** null: the memory of another mapping. */
  readonly address: number | null;
  readonly length: number;
}

export function explainOpenIommu(code: string): Explanation | null {
  if (code === 'ENOENT') return { why: 'this kernel has no iommufd', hint: 'use a container: { via: "container" }' };
  if (code === 'EACCES') return { why: 'this process may not open it', hint: 'give it to the user with chown' };
  return null;
}

export function explainOpenCdev(code: string, name: string): Explanation | null {
  if (code === 'EACCES') return { why: `this process may not open ${name}`, hint: 'give it to the user with chown' };
  return code === 'ENOENT' ? { why: `${name} has left vfio-pci meanwhile` } : null;
}

export function explainBind(code: string, group: number): Explanation | null {
  switch (code) {
    case 'EPERM':
      return {
        why: `interrupts of group ${group} are not isolated, or a host driver has one of its devices`,
        hint: 'iommufd.allow_unsafe_interrupts=1 accepts the first; vfio-pci for all its devices ends the second',
      };
    case 'EBUSY':
      return { why: `group ${group} is open through /dev/vfio/${group}, or another owner has its DMA`, field: 'fd' };
    case 'EINVAL':
      return { why: 'the device is bound already, here or elsewhere, or its IOMMU is not cache coherent', field: 'fd' };
    case 'ENODEV':
      return { why: 'no IOMMU translates for the device' };
    default:
      return null;
  }
}

export function explainAttachPasid(code: string, group: number, pasid: number): Explanation | null {
  switch (code) {
    case 'EINVAL': {
      const why = `the page table, or that of requests without a PASID, was not made for PASIDs, or ${pasid} is more than device and IOMMU have`;
      return { why, field: 'pt_id', hint: 'Hwpt.create(device, ioas, { pasid: true }) for both' };
    }
    case 'EBUSY':
      return {
        why: `PASID ${pasid} of group ${group} is attached already, or the device is being reset`,
        field: 'pasid',
      };
    case 'EOPNOTSUPP':
      return { why: `the IOMMU of group ${group} has no PASIDs for such a page table`, field: 'pasid' };
    default:
      return null;
  }
}

/** A mapping that lies where the new device's group reserves is found by comparing the two lists. */
export function explainAttach(code: string, group: number, ioas: Ioas): Explanation | null {
  if (code === 'EINVAL') {
    const why = `another device of group ${group} is attached to another page table, or this IOMMU cannot use it`;
    return { why, field: 'pt_id' };
  }
  if (code !== 'EADDRINUSE') return null;
  for (const region of reservedRegions(ioas.kernel, group) ?? []) {
    const hit = ioas.mappings.find((mapping) => region.type !== 'direct-relaxable' && meets(mapping, region));
    if (hit === undefined) continue;
    const why = `the mapping ${span(hit)} lies in reserved region ${region.type} ${span(region)} of group ${group}`;
    return { why, field: 'pt_id', hint: 'unmap it, or attach the device before memory is mapped' };
  }
  return { why: `a mapping, or an allowed range, lies in what group ${group} reserves`, field: 'pt_id' };
}

export function explainHwptAlloc(code: string): Explanation | null {
  if (code === 'EOPNOTSUPP') return { why: 'this IOMMU has no such page tables', field: 'flags' };
  if (code === 'ENOENT') return { why: 'the device is not bound to this iommufd', field: 'dev_id' };
  return null;
}

export function explainIoasMap(code: string, ioas: Ioas, wanted: Wanted): Explanation | null {
  const { iova, address, length } = wanted;
  const where = iova === null ? `${hex(length, 1)} bytes` : `iova ${hex(iova)} + ${hex(length, 1)}`;
  switch (code) {
    case 'EEXIST':
      return { why: `${where} overlaps an earlier mapping`, field: 'iova' };
    case 'ENOSPC':
      return { why: `no free IOVA for ${where}`, field: 'iova' };
    case 'EFAULT':
      return { why: `memory at ${hex(address ?? 0)} cannot be pinned`, field: 'user_va' };
    case 'ENOMEM':
      return { why: `RLIMIT_MEMLOCK does not allow ${hex(length)} bytes more`, field: 'length' };
    case 'EINVAL':
      return misaligned(ioas, wanted) ?? outside(ioas, where, wanted);
    default:
      return null;
  }
}

export function explainIoasUnmap(code: string, iova: number, length: number): Explanation | null {
  if (code === 'ENOENT') {
    return { why: `${hex(iova)} + ${hex(length)} cuts a mapping in two, or nothing is there`, field: 'iova' };
  }
  return code === 'EBUSY' ? { why: 'a mapping in the range is in use', field: 'iova' } : null;
}

function misaligned(ioas: Ioas, { iova, address, length }: Wanted): Explanation | null {
  const [page = 1] = ioas.pageSizes();
  if (length === 0) return { why: 'length is 0', field: 'length' };
  for (const [field, value] of Object.entries({ iova, user_va: address, length })) {
    if (value !== null && value % page !== 0) {
      return { why: `${field} ${hex(value)} is not a multiple of the page, ${hex(page, 1)}`, field };
    }
  }
  return null;
}

function outside(ioas: Ioas, where: string, { iova, length }: Wanted): Explanation | null {
  const ranges = ioas.ranges();
  if (iova === null || ranges.some(({ start, end }) => start <= iova && iova + length - 1 <= end)) return null;
  return {
    why: `${where} is not inside one allowed range`,
    field: 'iova',
    hint: `allowed are ${ranges.map(span).join(', ')}`,
  };
}

const meets = (a: IovaRange, b: IovaRange): boolean => a.start <= b.end && b.start <= a.end;
const span = ({ start, end }: IovaRange): string => `${hex(start)}-${hex(end)}`;
