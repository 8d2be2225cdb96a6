/** The requests of a VFIO container, answered by an IOAS (iommufd/vfio_compat.c). */
import { hex } from '../../ports/address.ts';
import { Prot } from '../../ports/iommu.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { copyFromUser, copyToUser } from '../user-copy.ts';
import { compatGetInfo } from './compat-info.ts';
import type { IommufdContext } from './context.ts';
import type { Unmapped } from './io-pagetable.ts';
import { Ioas } from './ioas.ts';
import { accountMode, mapSource } from './map-requests.ts';
import { U64_MAX } from './span.ts';

/** VFIO_NOIOMMU_IOMMU says that the kernel was configured with it, as distributions do; no group is without an IOMMU here. */
const PRESENT: ReadonlySet<number> = new Set([
  uapi.VFIO_TYPE1_IOMMU,
  uapi.VFIO_TYPE1v2_IOMMU,
  uapi.VFIO_NOIOMMU_IOMMU,
  uapi.VFIO_UNMAP_ALL,
]);

export function vfioCompat(ctx: IommufdContext, process: Process, request: number, argument: bigint): number {
  switch (request) {
    case uapi.VFIO_GET_API_VERSION:
      return uapi.VFIO_API_VERSION;
    case uapi.VFIO_CHECK_EXTENSION:
      return checkExtension(ctx, Number(argument));
    case uapi.VFIO_SET_IOMMU:
      return setIommu(ctx, Number(argument));
    case uapi.VFIO_IOMMU_GET_INFO:
      return getInfo(ctx, process, argument);
    case uapi.VFIO_IOMMU_MAP_DMA:
      return mapDma(ctx, process, argument);
    case uapi.VFIO_IOMMU_UNMAP_DMA:
      return unmapDma(ctx, process, argument);
    default:
      return ctx.context.refusals.refuse('ENOTTY', 'iommufd does not know this request', 'request');
  }
}

/** iommufd_vfio_compat_ioas_create: the one there is, or a new one. User space may destroy it like any other. */
export function compatIoas(ctx: IommufdContext): Ioas {
  if (ctx.vfioIoas !== null) return ctx.vfioIoas;
  const ioas = Ioas.alloc(ctx);
  ctx.objects.finalize(ioas);
  ctx.vfioIoas = ioas;
  return ioas;
}

function getCompatIoas({ context, vfioIoas }: IommufdContext): Ioas | number {
  if (vfioIoas !== null) return vfioIoas;
  const why = 'no IOAS stands for a VFIO container: no group was added, and VFIO_IOAS named none';
  return context.refusals.refuse('ENODEV', why, 'fd');
}

function checkExtension(ctx: IommufdContext, id: number): number {
  if (PRESENT.has(id)) return 1;
  if (id !== uapi.VFIO_DMA_CC_IOMMU) return 0;
  const ioas = getCompatIoas(ctx);
  if (typeof ioas === 'number') return ioas;
  return ioas.hwpts.every((hwpt) => hwpt.enforcesCoherency) ? 1 : 0;
}

/** Version 1 of type1 may cut mappings, so that they have to be in small pages. */
function setIommu(ctx: IommufdContext, id: number): number {
  if (id !== uapi.VFIO_TYPE1_IOMMU && id !== uapi.VFIO_TYPE1v2_IOMMU) {
    return ctx.context.refusals.refuse('EINVAL', `${id} is neither type1 (1) nor type1 v2 (3)`, 'argument');
  }
  const ioas = getCompatIoas(ctx);
  if (typeof ioas === 'number') return ioas;
  return id === uapi.VFIO_TYPE1_IOMMU ? ioas.iopt.disableLargePages() : 0;
}

function getInfo(ctx: IommufdContext, process: Process, argument: bigint): number {
  const { refusals, pageSize } = ctx.context;
  const layout = uapi.vfio_iommu_type1_info;
  const minimum = layout.endOf('iova_pgsizes');
  const head = copyFromUser(process, argument, minimum);
  if (head === null) return refusals.refuse('EFAULT', `the first ${minimum} bytes are not readable`, 'argument');
  const { argsz } = layout.readShort(head);
  if (argsz < minimum) return refusals.refuse('EINVAL', `argsz ${argsz} is less than ${minimum}`, 'argsz');
  const ioas = getCompatIoas(ctx);
  if (typeof ioas === 'number') return ioas;
  if (compatGetInfo(ioas, pageSize, process, argument, argsz)) return 0;
  return refusals.refuse('EFAULT', 'the argument is not writable', 'argument');
}

function mapDma(ctx: IommufdContext, process: Process, argument: bigint): number {
  const { refusals } = ctx.context;
  const layout = uapi.vfio_iommu_type1_dma_map;
  const bytes = copyFromUser(process, argument, layout.size);
  if (bytes === null) return refusals.refuse('EFAULT', `${layout.size} bytes are not readable`, 'argument');
  const map = layout.read(bytes);
  if (map.argsz < layout.size) {
    return refusals.refuse('EINVAL', `argsz ${map.argsz} is less than ${layout.size}`, 'argsz');
  }
  if ((map.flags & ~(uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE)) !== 0) {
    return refusals.refuse('EINVAL', `flags ${hex(map.flags)}: READ and WRITE are known here`, 'flags');
  }
  const ioas = getCompatIoas(ctx);
  if (typeof ioas === 'number') return ioas;
  const read = (map.flags & uapi.VFIO_DMA_MAP_FLAG_READ) !== 0 ? Prot.READ : 0;
  const write = (map.flags & uapi.VFIO_DMA_MAP_FLAG_WRITE) !== 0 ? Prot.WRITE : 0;
  const source = { process, start: map.vaddr, length: map.size };
  const mode = accountMode(process, ctx.accountMode);
  const iova = mapSource(ctx, ioas, source, map.iova, Prot.CACHE | read | write, mode);
  return typeof iova === 'number' ? iova : 0;
}

/** The struct comes back with the bytes that were unmapped, on an error as well. An empty range is none. */
function unmapDma(ctx: IommufdContext, process: Process, argument: bigint): number {
  const { refusals } = ctx.context;
  const layout = uapi.vfio_iommu_type1_dma_unmap;
  const bytes = copyFromUser(process, argument, layout.size);
  if (bytes === null) return refusals.refuse('EFAULT', `${layout.size} bytes are not readable`, 'argument');
  const unmap = layout.read(bytes);
  if (unmap.argsz < layout.size) {
    return refusals.refuse('EINVAL', `argsz ${unmap.argsz} is less than ${layout.size}`, 'argsz');
  }
  if ((unmap.flags & ~uapi.VFIO_DMA_UNMAP_FLAG_ALL) !== 0) {
    return refusals.refuse('EINVAL', `flags ${hex(unmap.flags)}: ALL alone is known here`, 'flags');
  }
  const ioas = getCompatIoas(ctx);
  if (typeof ioas === 'number') return ioas;
  const all = (unmap.flags & uapi.VFIO_DMA_UNMAP_FLAG_ALL) !== 0;
  if (all && (unmap.iova !== 0n || unmap.size !== 0n)) {
    return refusals.refuse('EINVAL', 'with ALL both iova and size are 0', 'size');
  }
  const cut = all || ioas.iopt.largePages ? 0 : cutAround(ioas, unmap.iova, unmap.size);
  if (cut < 0) return cut;
  const done = all ? ioas.iopt.unmapAll() : unmapRange(ctx, ioas, unmap.iova, unmap.size);
  layout.patch(bytes, { size: done.bytes });
  if (copyToUser(process, argument, bytes)) return done.error;
  return refusals.refuse('EFAULT', 'the argument is not writable', 'argument');
}

function cutAround(ioas: Ioas, iova: bigint, size: bigint): number {
  const last = BigInt.asUintN(64, iova + size - 1n);
  return ioas.iopt.cut(iova === 0n ? [last] : [last, iova - 1n]);
}

function unmapRange(ctx: IommufdContext, ioas: Ioas, iova: bigint, size: bigint): Unmapped {
  const { refusals } = ctx.context;
  if (size === 0n) return { error: refusals.refuse('EINVAL', 'size is 0', 'size'), bytes: 0n };
  const last = iova + size - 1n;
  if (last > U64_MAX) {
    return { error: refusals.refuse('EOVERFLOW', `iova ${hex(iova)} + ${hex(size)} wraps`, 'iova'), bytes: 0n };
  }
  // VFIO answers 0 for a range in which nothing is mapped; IOAS_UNMAP does not.
  if (ioas.iopt.areas.first(iova, last) === null) return { error: 0, bytes: 0n };
  return ioas.iopt.unmap(iova, last);
}
