/**
 * The seed's first half: the kernel maps memory that is no user's (a doorbell page, any physical page) into the IOMMU domains of a
 * device's context, and unmaps it. Nothing is pinned or accounted, and the user's mappings do not know of it: UNMAP, UNMAP_ALL and dirty tracking
 * never see it.
 */
import { hex } from '../../ports/address.ts';
import type { IommuDomain } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';

/** A range of IOVAs onto a physical range. `iova`, `pa` and `size` in bytes, multiples of every domain's smallest page. */
export interface DeviceMemory {
  readonly iova: number;
  readonly pa: number;
  readonly size: number;
  /** Bits of `Prot`. */
  readonly prot: number;
}

/**
 * Maps the memory into every domain, or into none. 0; EINVAL (size 0, unaligned, outside a domain's aperture), EEXIST (something is mapped
 * there), or what the page table says, as -errno.
 */
export function mapDeviceMemory(context: KernelContext, domains: readonly IommuDomain[], memory: DeviceMemory): number {
  for (const domain of domains) {
    const error = check(context, domain, memory);
    if (error < 0) return error;
  }
  for (const [done, domain] of domains.entries()) {
    const error = domain.map(memory.iova, memory.pa, memory.size, memory.prot);
    if (error < 0) {
      unmapDeviceMemory(domains.slice(0, done), memory.iova, memory.size);
      const what = `iova ${hex(memory.iova)} + ${hex(memory.size)} could not be mapped onto ${hex(memory.pa)}`;
      return context.refusals.passOn(error, `${what}: the page table refused`);
    }
  }
  return 0;
}

/** Unmaps it everywhere, and waits until no translation of it is cached. */
export function unmapDeviceMemory(domains: readonly IommuDomain[], iova: number, size: number): void {
  for (const domain of domains) {
    domain.unmap(iova, size);
    domain.sync();
  }
}

function check(context: KernelContext, domain: IommuDomain, memory: DeviceMemory): number {
  const { iova, pa, size } = memory;
  const page = domain.pageSizes[0] ?? context.pageSize;
  const { refusals } = context;
  if (size <= 0) return refusals.refuse('EINVAL', 'device memory of no size', 'size');
  for (const [field, value] of [
    ['iova', iova],
    ['pa', pa],
    ['size', size],
  ] as const) {
    if (value % page !== 0) {
      return refusals.refuse('EINVAL', `${field} ${hex(value)} is no multiple of the page ${hex(page)}`, field);
    }
  }
  if (iova < domain.apertureStart || iova + size - 1 > domain.apertureEnd) {
    return refusals.refuse(
      'EINVAL',
      `iova ${hex(iova)} + ${hex(size)} is outside the aperture ${hex(domain.apertureStart)} to ${hex(domain.apertureEnd)}`,
      'iova',
    );
  }
  for (let at = iova; at < iova + size; at += page) {
    if (domain.lookup(at) >= 0) return refusals.refuse('EEXIST', `iova ${hex(at)} is mapped already`, 'iova');
  }
  return 0;
}
