/** Requests about an IOAS as a whole: ALLOC, IOVA_RANGES, ALLOW_IOVAS, CHANGE_PROCESS, VFIO_IOAS (iommufd/ioas.c, vfio_compat.c). */
import { hex } from '../../ports/address.ts';
import {
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
  type iommu_ioas_alloc,
  type iommu_ioas_allow_iovas,
  type iommu_ioas_change_process,
  type iommu_ioas_iova_ranges,
  iommu_iova_range,
  type iommu_vfio_ioas,
} from '../../uapi/iommufd.ts';
import { copyFromUser, copyToUser } from '../user-copy.ts';
import type { Request } from './dispatch.ts';
import { Ioas } from './ioas.ts';
import type { IoptPages } from './pages.ts';
import { type IovaSpan64, overlaps, showSpan } from './span.ts';

export function ioasAlloc(ucmd: Request<typeof iommu_ioas_alloc>): number {
  const { cmd, ctx, refusals } = ucmd;
  if (cmd.flags !== 0) return refusals.refuse('EOPNOTSUPP', `flags ${hex(cmd.flags)}: there are none`, 'flags');
  const ioas = Ioas.alloc(ctx);
  const error = ucmd.respond({ out_ioas_id: ioas.id });
  if (error < 0) ctx.objects.abort(ioas);
  else ctx.objects.finalize(ioas);
  return error;
}

/** As many ranges as the user has room for, and the number of all: -EMSGSIZE when that is more, with the struct written all the same. */
export function ioasIovaRanges(ucmd: Request<typeof iommu_ioas_iova_ranges>): number {
  const { cmd, ctx, refusals } = ucmd;
  if (cmd.__reserved !== 0) return refusals.refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  const ioas = ctx.objects.get(cmd.ioas_id, Ioas, 'ioas_id');
  if (typeof ioas === 'number') return ioas;
  const ranges = ioas.iopt.usable();
  for (const [i, range] of ranges.slice(0, cmd.num_iovas).entries()) {
    const at = i * iommu_iova_range.size;
    if (!copyToUser(ucmd.process, cmd.allowed_iovas, iommu_iova_range.bytes({ ...range }), at)) {
      return refusals.refuse('EFAULT', `allowed_iovas + ${at} is not writable`, 'allowed_iovas');
    }
  }
  const error = ucmd.respond({ num_iovas: ranges.length, out_iova_alignment: ioas.iopt.alignment });
  if (error < 0 || ranges.length <= cmd.num_iovas) return error;
  const why = `there are ${ranges.length} ranges, and room for ${cmd.num_iovas}`;
  return refusals.refuse('EMSGSIZE', why, 'num_iovas', 'num_iovas now says how many; ask again with more room');
}

export function ioasAllowIovas(ucmd: Request<typeof iommu_ioas_allow_iovas>): number {
  const { cmd, ctx, refusals } = ucmd;
  if (cmd.__reserved !== 0) return refusals.refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  const ioas = ctx.objects.get(cmd.ioas_id, Ioas, 'ioas_id');
  if (typeof ioas === 'number') return ioas;
  const spans: IovaSpan64[] = [];
  for (let i = 0; i < cmd.num_iovas; i += 1) {
    const at = i * iommu_iova_range.size;
    const bytes = copyFromUser(ucmd.process, cmd.allowed_iovas, iommu_iova_range.size, at);
    if (bytes === null) return refusals.refuse('EFAULT', `allowed_iovas + ${at} is not readable`, 'allowed_iovas');
    const span = iommu_iova_range.read(bytes);
    if (span.start >= span.last) {
      return refusals.refuse('EINVAL', `range ${i}, ${showSpan(span)}: start is not below last`, 'allowed_iovas');
    }
    const other = spans.find((earlier) => overlaps(earlier, span));
    if (other !== undefined) {
      return refusals.refuse('EINVAL', `${showSpan(span)} overlaps ${showSpan(other)}`, 'allowed_iovas');
    }
    spans.push(span);
  }
  return ioas.iopt.allow(spans.sort((a, b) => (a.start < b.start ? -1 : 1)));
}

/** The pages of files are charged to the caller from now on; memory by address cannot follow a new process image. */
export function ioasChangeProcess(ucmd: Request<typeof iommu_ioas_change_process>): number {
  const { cmd, ctx, process, refusals } = ucmd;
  if (cmd.__reserved !== 0) return refusals.refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  const areas = ctx.ioases.flatMap((ioas) => ioas.iopt.areas.all());
  const anonymous = areas.find(({ pages }) => pages.file === null);
  if (anonymous !== undefined) {
    const why = `the mapping ${showSpan(anonymous)} is memory of a process or of a device, not of a file`;
    return refusals.refuse('EINVAL', why, undefined, 'map with IOAS_MAP_FILE what has to survive an exec');
  }
  const moved: IoptPages[] = [];
  for (const pages of new Set(areas.map((area) => area.pages))) {
    const before = pages.owner;
    const error = pages.changeProcess(process);
    if (error < 0) {
      for (const done of moved) done.changeProcess(before);
      return error;
    }
    moved.push(pages);
  }
  return 0;
}

/** Which IOAS stands for VFIO's container. */
export function vfioIoas(ucmd: Request<typeof iommu_vfio_ioas>): number {
  const { cmd, ctx, refusals } = ucmd;
  if (cmd.__reserved !== 0) return refusals.refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  switch (cmd.op) {
    case IOMMU_VFIO_IOAS_GET:
      if (ctx.vfioIoas === null) return refusals.refuse('ENODEV', 'no IOAS stands for a VFIO container', 'op');
      return ucmd.respond({ ioas_id: ctx.vfioIoas.id });
    case IOMMU_VFIO_IOAS_SET: {
      const ioas = ctx.objects.get(cmd.ioas_id, Ioas, 'ioas_id');
      if (typeof ioas === 'number') return ioas;
      ctx.vfioIoas = ioas;
      return 0;
    }
    case IOMMU_VFIO_IOAS_CLEAR:
      ctx.vfioIoas = null;
      return 0;
    default:
      return refusals.refuse('EOPNOTSUPP', `op ${cmd.op} is none of GET 0, SET 1, CLEAR 2`, 'op');
  }
}
