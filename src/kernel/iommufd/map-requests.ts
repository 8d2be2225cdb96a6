/** IOAS_MAP, MAP_FILE, COPY and UNMAP (iommufd/ioas.c). */
import { hex } from '../../ports/address.ts';
import { Prot } from '../../ports/iommu.ts';
import {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  type iommu_ioas_copy,
  type iommu_ioas_map,
  type iommu_ioas_map_file,
  type iommu_ioas_unmap,
} from '../../uapi/iommufd.ts';
import { DmaBufFile } from '../dma-buf.ts';
import type { File } from '../files.ts';
import type { Process } from '../process.ts';
import type { AccountMode } from './account.ts';
import type { IommufdContext } from './context.ts';
import type { Request } from './dispatch.ts';
import { DmaBufPages } from './dmabuf-pages.ts';
import { Ioas } from './ioas.ts';
import { IoptPages } from './pages.ts';
import { U64_MAX } from './span.ts';

const KNOWN = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;

export function ioasMap(ucmd: Request<typeof iommu_ioas_map>): number {
  const { cmd, ctx, process, refusals } = ucmd;
  if ((cmd.flags & ~KNOWN) !== 0) return unknownFlags(ctx, cmd.flags);
  if (cmd.__reserved !== 0) return refusals.refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  const error = checkSizes(ctx, { iova: cmd.iova, length: cmd.length }) || checkAccess(ctx, cmd.flags);
  if (error < 0) return error;
  const ioas = ctx.objects.get(cmd.ioas_id, Ioas, 'ioas_id');
  if (typeof ioas === 'number') return ioas;
  const fixed = (cmd.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0;
  const source = { process, start: cmd.user_va, length: cmd.length };
  const mode = accountMode(process, ctx.accountMode);
  const iova = mapSource(ctx, ioas, source, fixed ? cmd.iova : null, protOf(cmd.flags), mode);
  return typeof iova === 'number' ? iova : ucmd.respond({ iova });
}

export function ioasMapFile(ucmd: Request<typeof iommu_ioas_map_file>): number {
  const { cmd, ctx, process, refusals } = ucmd;
  if ((cmd.flags & ~KNOWN) !== 0) return unknownFlags(ctx, cmd.flags);
  const error = checkSizes(ctx, { iova: cmd.iova, length: cmd.length }) || checkAccess(ctx, cmd.flags);
  if (error < 0) return error;
  const ioas = ctx.objects.get(cmd.ioas_id, Ioas, 'ioas_id');
  if (typeof ioas === 'number') return ioas;
  const { start, length } = cmd;
  if (length === 0n) return refusals.refuse('EINVAL', 'length is 0', 'length');
  if (start + length - 1n > U64_MAX)
    return refusals.refuse('EOVERFLOW', `start ${hex(start)} + ${hex(length)} wraps`, 'start');
  const file = process.file(cmd.fd);
  if (file === null) return refusals.refuse('EBADF', `file descriptor ${cmd.fd} is not open`, 'fd');
  const prot = protOf(cmd.flags);
  const pages = filePages(ctx, { process, file, start, length }, prot);
  if (typeof pages === 'number') return pages;
  const fixed = (cmd.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0;
  const iova = mapPages(ctx, ioas, pages, { start, length }, fixed ? cmd.iova : null, prot);
  return typeof iova === 'number' ? iova : ucmd.respond({ iova });
}

export function ioasCopy(ucmd: Request<typeof iommu_ioas_copy>): number {
  const { cmd, ctx } = ucmd;
  if ((cmd.flags & ~KNOWN) !== 0) return unknownFlags(ctx, cmd.flags);
  const { length, src_iova, dst_iova } = cmd;
  const error = checkSizes(ctx, { length, src_iova, dst_iova }) || checkAccess(ctx, cmd.flags);
  if (error < 0) return error;
  const source = ctx.objects.get(cmd.src_ioas_id, Ioas, 'src_ioas_id');
  if (typeof source === 'number') return source;
  const slices = source.iopt.slices(src_iova, length);
  if (typeof slices === 'number') return slices;
  const target = ctx.objects.get(cmd.dst_ioas_id, Ioas, 'dst_ioas_id');
  const fixed = (cmd.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0;
  const iova =
    typeof target === 'number' ? target : target.iopt.map(slices, length, fixed ? dst_iova : null, protOf(cmd.flags));
  if (typeof iova !== 'number') return ucmd.respond({ dst_iova: iova });
  for (const { pages } of slices) pages.put();
  return iova;
}

/** `length` becomes what was unmapped, only on success. */
export function ioasUnmap(ucmd: Request<typeof iommu_ioas_unmap>): number {
  const { cmd, ctx, refusals } = ucmd;
  const ioas = ctx.objects.get(cmd.ioas_id, Ioas, 'ioas_id');
  if (typeof ioas === 'number') return ioas;
  const { iova, length } = cmd;
  if (iova === 0n && length === U64_MAX) {
    const all = ioas.iopt.unmapAll();
    return all.error < 0 ? all.error : ucmd.respond({ length: all.bytes });
  }
  const error = checkSizes(ctx, { iova, length });
  if (error < 0) return error;
  if (length === 0n) return refusals.refuse('EINVAL', 'length is 0', 'length');
  const last = iova + length - 1n;
  if (last > U64_MAX) return refusals.refuse('EOVERFLOW', `iova ${hex(iova)} + ${hex(length)} wraps`, 'length');
  const done = ioas.iopt.unmap(iova, last);
  return done.error < 0 ? done.error : ucmd.respond({ length: done.bytes });
}

/** What a mapping is made of. */
export interface MapSource {
  readonly process: Process;
  /** User address, or offset in the file. */
  readonly start: bigint;
  readonly length: bigint;
}

/** iopt_map_user_pages: the IOVA, or -errno. */
export function mapSource(
  ctx: IommufdContext,
  ioas: Ioas,
  { process, start, length }: MapSource,
  iova: bigint | null,
  prot: number,
  account: AccountMode,
): bigint | number {
  if (start + length > U64_MAX) {
    return ctx.context.refusals.refuse('EOVERFLOW', `user_va ${hex(start)} + ${hex(length)} wraps`, 'user_va');
  }
  const error = checkLength(ctx, length);
  if (error < 0) return error;
  const base = start - (start % BigInt(ctx.context.pageSize));
  const writable = (prot & Prot.WRITE) !== 0;
  const pages = new IoptPages(ctx.context, { process, file: null, base, writable, account });
  return mapPages(ctx, ioas, pages, { start, length }, iova, prot);
}

/** iopt_alloc_dmabuf_pages or iopt_alloc_file_pages: of the latter it turns out when they are pinned whether the file has pages at all. */
function filePages(
  ctx: IommufdContext,
  { process, file, start, length }: MapSource & { readonly file: File },
  prot: number,
): IoptPages | number {
  const base = start - (start % BigInt(ctx.context.pageSize));
  const writable = (prot & Prot.WRITE) !== 0;
  if (file instanceof DmaBufFile) {
    return DmaBufPages.import(ctx.context, { process, dmabuf: file, base, writable }, start, length);
  }
  const error = checkLength(ctx, length);
  if (error < 0) return error;
  const account = accountMode(process, ctx.accountMode);
  return new IoptPages(ctx.context, { process, file, base, writable, account });
}

/** iopt_map_common: takes over the reference on the pages. */
function mapPages(
  ctx: IommufdContext,
  ioas: Ioas,
  pages: IoptPages,
  { start, length }: { readonly start: bigint; readonly length: bigint },
  iova: bigint | null,
  prot: number,
): bigint | number {
  const startByte = start % BigInt(ctx.context.pageSize);
  const mapped = ioas.iopt.map([{ pages, startByte, length }], length, iova, prot);
  if (typeof mapped === 'number') pages.put();
  return mapped;
}

/** iopt_alloc_pages. */
function checkLength(ctx: IommufdContext, length: bigint): number {
  const { refusals, pageSize } = ctx.context;
  if (length !== 0n && length <= U64_MAX - BigInt(pageSize)) return 0;
  return refusals.refuse('EINVAL', `length ${hex(length)} is 0, or almost everything`, 'length');
}

/** CAP_IPC_LOCK frees from the limit. */
export const accountMode = (process: Process, mode: Exclude<AccountMode, 'none'>): AccountMode =>
  process.credentials.capabilities.has('CAP_IPC_LOCK') ? 'none' : mode;

/** iommufd always maps coherently: the request has no way to say otherwise. */
function protOf(flags: number): number {
  const read = (flags & IOMMU_IOAS_MAP_READABLE) !== 0 ? Prot.READ : 0;
  const write = (flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0 ? Prot.WRITE : 0;
  return Prot.CACHE | read | write;
}

function unknownFlags(ctx: IommufdContext, flags: number): number {
  return ctx.context.refusals.refuse('EOPNOTSUPP', `flags ${hex(flags)} has unknown bits`, 'flags');
}

function checkSizes(ctx: IommufdContext, values: Readonly<Record<string, bigint>>): number {
  for (const [field, value] of Object.entries(values)) {
    if (value >= U64_MAX) return ctx.context.refusals.refuse('EOVERFLOW', `${field} is ${hex(value)}`, field);
  }
  return 0;
}

function checkAccess(ctx: IommufdContext, flags: number): number {
  if ((flags & (IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE)) !== 0) return 0;
  return ctx.context.refusals.refuse('EINVAL', 'flags has neither READABLE nor WRITEABLE', 'flags');
}
