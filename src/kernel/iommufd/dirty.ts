/** Dirty tracking of one domain of an IOAS (iommufd/io_pagetable.c iopt_set_dirty_tracking, iopt_read_and_clear_dirty_data). */
import { hex } from '../../ports/address.ts';
import type { DirtyOps, IommuDomain } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import type { Process } from '../process.ts';
import type { IoPagetable } from './io-pagetable.ts';
import { type BitmapRange, IovaBitmap } from './iova-bitmap.ts';
import { lower, U64_MAX } from './span.ts';

/** Tracking begins with everything clean. 0; -EOPNOTSUPP: the domain was not made for it; or the driver's -errno. */
export function setDirtyTrackingOf(
  context: KernelContext,
  iopt: IoPagetable,
  domain: IommuDomain,
  enable: boolean,
): number {
  const ops = opsOf(context, domain);
  if (typeof ops === 'number') return ops;
  if (enable) {
    for (const area of iopt.areas.all()) {
      const error = ops.readAndClearDirty(Number(area.start), Number(area.length), false, () => {});
      if (error < 0)
        return context.refusals.passOn(error, `the tables do not hold the mapping at iova ${hex(area.start)}`);
    }
  }
  return ops.setDirtyTracking(enable);
}

/**
 * Tells what is dirty in a range, and makes it clean unless `noClear`: -EOVERFLOW, -EINVAL and -EOPNOTSUPP in this order. What lies behind the first hole of
 * the range is not looked at, and a bitmap that cannot be written is not told of: Linux answers 0 to both.
 */
export function readAndClearDirtyData(
  context: KernelContext,
  process: Process,
  iopt: IoPagetable,
  domain: IommuDomain,
  range: BitmapRange,
  noClear: boolean,
): number {
  const error = checkRange(context, iopt, range);
  if (error < 0) return error;
  const ops = opsOf(context, domain);
  if (typeof ops === 'number') return ops;
  const bitmap = new IovaBitmap(context, process, range);
  const record = (iova: number, length: number): void => bitmap.set(iova, length);
  const last = BigInt.asUintN(64, range.iova + range.length - 1n);
  let at = range.iova;
  // Areas that touch each other, from one that holds the first IOVA.
  for (let area = iopt.areas.first(at, at); area !== null && area.start <= at; ) {
    const end = lower(last, area.last);
    if (ops.readAndClearDirty(Number(at), Number(end - at + 1n), noClear, record) < 0) break;
    if (end === last) break;
    at = end + 1n;
    area = iopt.areas.first(at, at);
  }
  bitmap.release();
  return 0;
}

/** iommufd_check_iova_range. */
function checkRange({ refusals }: KernelContext, iopt: IoPagetable, { iova, length, pageSize }: BitmapRange): number {
  const last = iova + BigInt.asUintN(64, length - 1n);
  const where = `${hex(iova)} + ${hex(length)}`;
  if (last > U64_MAX) return refusals.refuse('EOVERFLOW', `${where} wraps`, 'length');
  const misfits = (size: bigint): boolean => (iova & (size - 1n)) !== 0n || ((last + 1n) & (size - 1n)) !== 0n;
  if (misfits(iopt.alignment)) {
    return refusals.refuse('EINVAL', `${where} is not made of the domain's pages of ${iopt.alignment} bytes`, 'iova');
  }
  if (pageSize === 0n) return refusals.refuse('EINVAL', 'page_size is 0', 'page_size');
  if (misfits(pageSize)) {
    return refusals.refuse('EINVAL', `${where} is not made of pages of page_size ${hex(pageSize)}`, 'page_size');
  }
  return 0;
}

function opsOf({ refusals }: KernelContext, { dirtyOps }: IommuDomain): DirtyOps | number {
  if (dirtyOps !== undefined) return dirtyOps;
  const why = 'the page table does not track dirty pages';
  return refusals.refuse(
    'EOPNOTSUPP',
    why,
    'hwpt_id',
    'HWPT_ALLOC with IOMMU_HWPT_ALLOC_DIRTY_TRACKING makes one that does',
  );
}
