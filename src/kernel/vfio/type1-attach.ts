/** Groups come to and leave a type1 container: vfio_iommu_type1_attach_group and _detach_group, check for check. */
import { hex } from '../../ports/address.ts';
import type { IommuDomain, ReservedRegion } from '../../ports/iommu.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import { setMsiCookie } from '../irq/msi-cookie.ts';
import { createType1WindowCookie } from '../irq/type1-cookie.ts';
import { setDmaContext } from './doorbell-context.ts';
import { IovaList } from './iova-list.ts';
import type { VfioIommuType1 } from './type1.ts';
import { Type1Domain } from './type1-domain.ts';

export function attachGroup(iommu: VfioIommuType1, group: IommuGroup): number {
  const { refusals } = iommu.context;
  if (iommu.vaddrInvalidCount > 0) {
    const why = `${iommu.vaddrInvalidCount} mappings have no valid vaddr; attaching could have to pin them`;
    return refusals.refuse('EBUSY', why);
  }
  if (iommu.groups.includes(group)) return refusals.refuse('EINVAL', `group ${group.id} is in this container already`);
  const domain = group.allocateDomain();
  if (typeof domain === 'number') return explained(iommu, domain, `no domain for group ${group.id}`);
  const attached = group.attach(domain);
  if (attached < 0) {
    domain.free();
    return explained(iommu, attached, `group ${group.id} cannot be attached to a new domain`);
  }
  const error = settleGroup(iommu, group, domain);
  if (error < 0) {
    group.detach();
    setMsiCookie(domain, null);
    domain.free();
  }
  return error;
}

/** Everything behind the first attachment; on an error the caller detaches and frees. */
function settleGroup(iommu: VfioIommuType1, group: IommuGroup, domain: IommuDomain): number {
  const regions = group.reservedRegions();
  const iovas = allowedWith(iommu, group, domain, regions);
  if (typeof iovas === 'number') return iovas;
  if (!iommu.context.modules.vfio_iommu_type1.allow_unsafe_interrupts && !group.hasIsolatedMsi()) {
    iommu.context.log(
      `vfio_iommu_type1: group ${group.id}: interrupts are not isolated; allow_unsafe_interrupts is off`,
    );
    return iommu.context.refusals.refuse(
      'EPERM',
      `interrupts of group ${group.id} are not isolated: a device could raise those of others through the doorbell`,
      undefined,
      'set vfio_iommu_type1.allow_unsafe_interrupts to accept that',
    );
  }
  const entry = new Type1Domain(domain, domain.enforceCoherency());
  const shared = joinDomain(iommu, group, entry);
  if (typeof shared === 'number') return shared;
  if (!shared) {
    const error = addDomain(iommu, group, entry, regions);
    if (error < 0) return error;
  }
  iommu.iovas = iovas;
  return 0;
}

/** Aperture and reserved regions against what is mapped, then what stays allowed; -EINVAL. */
function allowedWith(
  iommu: VfioIommuType1,
  group: IommuGroup,
  domain: IommuDomain,
  regions: readonly ReservedRegion[],
): IovaList | number {
  const { refusals } = iommu.context;
  const { apertureStart: first, apertureEnd: last } = domain;
  const known = iommu.iovas.ranges;
  if (known.length > 0 && (first > known[known.length - 1].end || last < known[0].start)) {
    const why = `the aperture ${span(first, last)} of group ${group.id} has nothing in common with the container's`;
    return refusals.refuse('EINVAL', why);
  }
  const outside = iommu.dmas.all().find((dma) => dma.iova < first || dma.iova + dma.size - 1 > last);
  if (outside !== undefined) {
    const why = `the mapping at iova ${hex(outside.iova)} + ${hex(outside.size)} is outside of the aperture ${span(first, last)} of group ${group.id}`;
    return refusals.refuse('EINVAL', why);
  }
  const binding = regions.filter((region) => region.type !== 'direct-relaxable');
  for (const region of binding) {
    const dma = iommu.dmas.overlapping(region.start, region.end + 1);
    if (dma !== null) {
      const why = `the reserved region ${region.type} ${span(region.start, region.end)} of group ${group.id} overlaps the mapping at iova ${hex(dma.iova)} + ${hex(dma.size)}`;
      return refusals.refuse('EINVAL', why);
    }
  }
  const conflict = onGroupAttach(iommu, group);
  if (conflict < 0) return conflict;
  let iovas = iommu.iovas.within(first, last);
  for (const region of binding) iovas = iovas.without(region.start, region.end);
  for (const taken of iommu.reservations) iovas = iovas.without(taken.start, taken.end);
  if (iovas.empty)
    return refusals.refuse('EINVAL', `nothing between the reserved regions of group ${group.id} could be mapped`);
  return iovas;
}

/** A doorbell that user space reserved stands where this group has a region of its own (docs/doorbell.md, rule 11): 0 or -EINVAL. */
export function onGroupAttach(iommu: VfioIommuType1, group: IommuGroup): number {
  for (const region of group.reservedRegions()) {
    if (region.type === 'direct-relaxable' || region.type === 'sw-msi') continue;
    const taken = iommu.taken.overlapping(region.start, region.end);
    if (taken === null) continue;
    const why = `the reserved region ${region.type} ${span(region.start, region.end)} of group ${group.id} overlaps the doorbell reserved at ${span(taken.start, taken.end)}`;
    return iommu.context.refusals.refuse('EINVAL', why);
  }
  return 0;
}

/** Moves the group into a domain that the container has already: true when one took it, false when none fits, or -errno. */
function joinDomain(iommu: VfioIommuType1, group: IommuGroup, fresh: Type1Domain): boolean | number {
  for (const entry of iommu.domainList) {
    if (entry.enforcesCoherency !== fresh.enforcesCoherency || !group.canShare(entry.domain)) continue;
    group.detach();
    if (group.attach(entry.domain) === 0) {
      entry.groups.push(group);
      fresh.domain.free();
      return true;
    }
    const error = group.attach(fresh.domain);
    if (error < 0) return explained(iommu, error, `group ${group.id} fits no domain of the container`);
  }
  return false;
}

/** The container has one more domain: existing mappings are replayed into it, and MSIs get their window. */
function addDomain(
  iommu: VfioIommuType1,
  group: IommuGroup,
  entry: Type1Domain,
  regions: readonly ReservedRegion[],
): number {
  const replayed = replay(iommu, entry);
  if (replayed < 0) return replayed;
  const window = softwareMsi(regions);
  if (window !== null)
    setMsiCookie(entry.domain, createType1WindowCookie(iommu.context, entry.domain, window, iommu.taken));
  setDmaContext(entry.domain, iommu);
  entry.groups.push(group);
  iommu.domainList.push(entry);
  updatePageSizes(iommu);
  return 0;
}

function replay(iommu: VfioIommuType1, entry: Type1Domain): number {
  const done: ReturnType<typeof iommu.dmas.all> = [];
  for (const dma of iommu.dmas.all()) {
    const error = entry.map(dma);
    if (error < 0) {
      for (const mapped of done) entry.unmap(mapped);
      return explained(iommu, error, `the mapping at iova ${hex(dma.iova)} does not fit the group's IOMMU`);
    }
    done.push(dma);
  }
  return 0;
}

/** vfio_iommu_has_sw_msi: the base of the window; a hardware MSI region wins over it. */
function softwareMsi(regions: readonly ReservedRegion[]): number | null {
  if (regions.some((region) => region.type === 'msi')) return null;
  return regions.find((region) => region.type === 'sw-msi')?.start ?? null;
}

/** The group leaves; the last one of a domain takes the domain along, and the last domain all mappings. */
export function detachGroup(iommu: VfioIommuType1, group: IommuGroup): void {
  const entry = iommu.domainList.find((candidate) => candidate.groups.includes(group));
  if (entry === undefined) return;
  group.detach();
  entry.groups.splice(entry.groups.indexOf(group), 1);
  if (entry.groups.length === 0) {
    if (iommu.domainList.length === 1) for (const dma of iommu.dmas.all()) iommu.removeDma(dma);
    entry.free();
    iommu.domainList.splice(iommu.domainList.indexOf(entry), 1);
    updatePageSizes(iommu);
  }
  refreshIovaList(iommu);
}

/** vfio_iommu_aper_expand and _resv_refresh: the list from the beginning, out of what is attached now. */
export function refreshIovaList(iommu: VfioIommuType1): void {
  if (iommu.domainList.length === 0) return;
  let iovas = new IovaList();
  for (const { domain } of iommu.domainList) iovas = iovas.within(domain.apertureStart, domain.apertureEnd);
  for (const group of iommu.groups) {
    for (const region of group.reservedRegions()) {
      if (region.type !== 'direct-relaxable') iovas = iovas.without(region.start, region.end);
    }
  }
  for (const taken of iommu.reservations) iovas = iovas.without(taken.start, taken.end);
  iommu.iovas = iovas;
}

/** vfio_update_pgsize_bitmap. */
function updatePageSizes(iommu: VfioIommuType1): void {
  let bitmap = 0xffff_ffff_ffff_ffffn;
  for (const { domain } of iommu.domainList) bitmap &= domain.pageSizes.reduce((bits, size) => bits | BigInt(size), 0n);
  const page = BigInt(iommu.context.pageSize);
  const small = bitmap & (page - 1n);
  iommu.pageSizeBitmap = small === 0n ? bitmap : (bitmap & ~(page - 1n)) | page;
}

const span = (start: number, end: number): string => `${hex(start)} to ${hex(end)}`;

/** An -errno of the IOMMU's side, with a reason where it gave none. */
function explained(iommu: VfioIommuType1, error: number, what: string): number {
  return iommu.context.refusals.passOn(error, `${what}: the IOMMU driver refused`);
}
