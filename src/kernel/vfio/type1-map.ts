/** VFIO_IOMMU_MAP_DMA: vfio_iommu_type1_map_dma and vfio_dma_do_map, check for check. */
import { ADDRESS_LIMIT, fromU64, hex } from '../../ports/address.ts';
import { Prot } from '../../ports/iommu.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { copyFromUser, userPointer } from '../user-copy.ts';
import type { VfioDma } from './dma-list.ts';
import type { VfioIommuType1 } from './type1.ts';
import { checkTrackable } from './type1-dirty.ts';

const U64_MAX = 0xffff_ffff_ffff_ffffn;
const KNOWN = uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE | uapi.VFIO_DMA_MAP_FLAG_VADDR;

interface MapRequest {
  readonly flags: number;
  readonly vaddr: bigint;
  readonly iova: bigint;
  readonly size: bigint;
}

export function mapDma(iommu: VfioIommuType1, process: Process, argument: bigint): number {
  const { refusals } = iommu.context;
  const layout = uapi.vfio_iommu_type1_dma_map;
  const bytes = copyFromUser(process, argument, layout.size);
  if (bytes === null)
    return refusals.refuse('EFAULT', `the ${layout.size} bytes of the argument are not readable`, 'argument');
  const map = layout.read(bytes);
  if (map.argsz < layout.size)
    return refusals.refuse('EINVAL', `argsz ${map.argsz} is less than ${layout.size}`, 'argsz');
  if ((map.flags & ~KNOWN) !== 0) return refusals.refuse('EINVAL', `flags ${hex(map.flags)} has unknown bits`, 'flags');
  const error = checkRequest(iommu, map);
  if (error < 0) return error;
  // What the 53 bits of a number do not hold lies outside of every aperture: it can overlap nothing beyond, and is not allowed.
  const iova = fromU64(map.iova);
  const end = fromU64(map.iova + map.size);
  const found = iova === null ? null : iommu.dmas.overlapping(iova, end ?? ADDRESS_LIMIT);
  if ((map.flags & uapi.VFIO_DMA_MAP_FLAG_VADDR) !== 0) return setVaddr(iommu, process, map, found);
  if (found !== null) {
    const why = `iova ${range(map)} overlaps the mapping at ${hex(found.iova)} + ${hex(found.size)}`;
    return refusals.refuse('EEXIST', why, 'iova');
  }
  if (iommu.dmaAvail === 0) {
    const limit = iommu.context.modules.vfio_iommu_type1.dma_entry_limit;
    return refusals.refuse('ENOSPC', `all mappings that dma_entry_limit (${limit}) allows are made`);
  }
  if (iova === null || end === null || !iommu.iovas.allows(iova, end - 1)) {
    return refusals.refuse(
      'EINVAL',
      whyNotAllowed(iommu, map),
      'iova',
      'the IOVA_RANGE capability of VFIO_IOMMU_GET_INFO lists what may be mapped',
    );
  }
  return addMapping(iommu, process, map, iova, end - iova);
}

/** The checks that need no look at what is mapped. */
function checkRequest(iommu: VfioIommuType1, map: MapRequest): number {
  const { refusals } = iommu.context;
  if (map.size === 0n) return refusals.refuse('EINVAL', 'size is 0', 'size');
  if (map.iova + map.size - 1n > U64_MAX) return refusals.refuse('EOVERFLOW', `iova ${range(map)} wraps`, 'iova');
  if (map.vaddr + map.size - 1n > U64_MAX) {
    return refusals.refuse('EOVERFLOW', `vaddr ${hex(map.vaddr)} + ${hex(map.size)} wraps`, 'vaddr');
  }
  const access = (map.flags & (uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE)) !== 0;
  if (access === ((map.flags & uapi.VFIO_DMA_MAP_FLAG_VADDR) !== 0)) {
    return refusals.refuse('EINVAL', 'flags must say either READ and/or WRITE, or VADDR alone', 'flags');
  }
  const page = BigInt(iommu.smallestPage);
  for (const field of ['size', 'iova', 'vaddr'] as const) {
    if (map[field] % page !== 0n) {
      return refusals.refuse(
        'EINVAL',
        `${field} ${hex(map[field])} is not a multiple of the smallest page, ${hex(page)}`,
        field,
      );
    }
  }
  return 0;
}

/** VADDR: a mapping that lost its vaddr gets the one of the new process image. */
function setVaddr(iommu: VfioIommuType1, process: Process, map: MapRequest, dma: VfioDma | null): number {
  const { refusals } = iommu.context;
  if (dma === null) return refusals.refuse('ENOENT', `no mapping at iova ${range(map)}`, 'iova');
  if (!dma.vaddrInvalid || BigInt(dma.iova) !== map.iova || BigInt(dma.size) !== map.size) {
    const state = dma.vaddrInvalid ? '' : ' with a valid vaddr';
    return refusals.refuse(
      'EINVAL',
      `iova ${range(map)} meets the mapping ${hex(dma.iova)} + ${hex(dma.size)}${state}`,
      'iova',
    );
  }
  const moved = changeOwner(iommu, process, dma);
  if (moved < 0) return moved;
  dma.vaddr = userPointer(map.vaddr);
  dma.vaddrInvalid = false;
  iommu.vaddrInvalidCount -= 1;
  return 0;
}

/** vfio_change_dma_owner: the pages are charged to the process that has them now. */
function changeOwner(iommu: VfioIommuType1, process: Process, dma: VfioDma): number {
  if (dma.process === process) return 0;
  const pages = dma.pinned?.accountedPages ?? 0;
  const lockCap = process.credentials.capabilities.has('CAP_IPC_LOCK');
  if (!lockCap && pages > pagesLeft(iommu, process)) return overLimit(iommu, process, pages);
  dma.process.lockedPages -= pages;
  process.lockedPages += pages;
  dma.process = process;
  dma.lockCap = lockCap;
  return 0;
}

function addMapping(iommu: VfioIommuType1, process: Process, map: MapRequest, iova: number, size: number): number {
  const read = (map.flags & uapi.VFIO_DMA_MAP_FLAG_READ) !== 0 ? Prot.READ : 0;
  const write = (map.flags & uapi.VFIO_DMA_MAP_FLAG_WRITE) !== 0 ? Prot.WRITE : 0;
  const lockCap = process.credentials.capabilities.has('CAP_IPC_LOCK');
  const vaddr = userPointer(map.vaddr);
  const dma: VfioDma = {
    iova,
    size,
    prot: read | write,
    vaddr,
    vaddrInvalid: false,
    process,
    lockCap,
    pinned: null,
    dirty: null,
  };
  const pinned = pin(iommu, dma);
  if (pinned < 0) return pinned;
  for (const [i, entry] of iommu.domainList.entries()) {
    const error = entry.map(dma);
    if (error < 0) {
      for (const earlier of iommu.domainList.slice(0, i)) earlier.unmap(dma);
      iommu.unpin(dma);
      return iommu.context.refusals.passOn(error, `the IOMMU driver could not map iova ${range(map)}`);
    }
  }
  iommu.dmas.add(dma);
  iommu.dmaAvail -= 1;
  const tracked = iommu.dirtyTracking ? checkTrackable(iommu, dma) : 0;
  if (tracked < 0) iommu.removeDma(dma);
  return tracked;
}

/**
 * Pins and charges the pages. Linux does both page by page, so that the limit can come before a fault further on: what is
 * beyond the limit is not even looked at here.
 */
function pin(iommu: VfioIommuType1, dma: VfioDma): number {
  const { refusals, pageSize } = iommu.context;
  const write = (dma.prot & Prot.WRITE) !== 0;
  const left = dma.lockCap ? Infinity : pagesLeft(iommu, dma.process);
  const looked = Math.min(dma.size, (left + 1) * pageSize);
  let pages = dma.process.memory.pin(dma.vaddr, looked, write);
  if (typeof pages !== 'number' && looked < dma.size && pages.accountedPages <= left) {
    pages.release();
    pages = dma.process.memory.pin(dma.vaddr, dma.size, write);
  }
  if (typeof pages === 'number') {
    const rights = write ? 'and writable' : '';
    return refusals.refuse(
      'EFAULT',
      `vaddr ${hex(dma.vaddr)} + ${hex(dma.size)} is not all mapped ${rights}`.trim(),
      'vaddr',
    );
  }
  if (pages.accountedPages > left) {
    pages.release();
    return overLimit(iommu, dma.process, dma.size / pageSize);
  }
  dma.pinned = pages;
  dma.process.lockedPages += pages.accountedPages;
  return 0;
}

function pagesLeft(iommu: VfioIommuType1, process: Process): number {
  return Math.max(0, Math.floor(process.limits.memlock / iommu.context.pageSize) - process.lockedPages);
}

function overLimit(iommu: VfioIommuType1, process: Process, pages: number): number {
  const why = `${process.lockedPages} locked pages and ${pages} more exceed RLIMIT_MEMLOCK, ${process.limits.memlock} bytes`;
  return iommu.context.refusals.refuse('ENOMEM', why, 'size', 'raise the limit, or give the process CAP_IPC_LOCK');
}

/** Names what stands in the way of an IOVA that no allowed range holds. */
function whyNotAllowed(iommu: VfioIommuType1, map: MapRequest): string {
  const start = fromU64(map.iova) ?? Infinity;
  const last = (fromU64(map.iova + map.size) ?? Infinity) - 1;
  for (const group of iommu.groups) {
    for (const region of group.reservedRegions()) {
      if (region.type !== 'direct-relaxable' && region.start <= last && start <= region.end) {
        const where = `${region.type} ${hex(region.start)} to ${hex(region.end)}`;
        return `iova ${range(map)} overlaps the reserved region ${where} of group ${group.id}`;
      }
    }
  }
  const taken = iommu.taken.overlapping(start, last);
  if (taken !== null)
    return `iova ${range(map)} overlaps the doorbell reserved at ${hex(taken.start)} to ${hex(taken.end)}`;
  const { ranges } = iommu.iovas;
  const end = ranges[ranges.length - 1]?.end ?? 0;
  return `iova ${range(map)} is outside of what the IOMMU can translate, ${hex(ranges[0]?.start ?? 0)} to ${hex(end)}`;
}

const range = (map: MapRequest): string => `${hex(map.iova)} + ${hex(map.size)}`;
