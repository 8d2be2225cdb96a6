/** A queue in guest memory that the hardware reads by physical address: struct iommufd_hw_queue (iommufd/viommu.c). */
import { hex } from '../../ports/address.ts';
import type { Area } from './area.ts';
import type { IoPagetable } from './io-pagetable.ts';
import { IommufdObject } from './object.ts';
import { U64_MAX } from './span.ts';
import type { Viommu } from './viommu.ts';

/** Bytes of a pointer, and of what kvmalloc gives at most: INT_MAX. */
const POINTER = 8n;
const KVMALLOC_MAX = 0x7fff_ffffn;

/** A part of an area whose pages are pinned and that cannot be unmapped meanwhile. */
interface Locked {
  readonly area: Area;
  readonly startByte: bigint;
  readonly length: bigint;
}

export class HwQueue extends IommufdObject {
  readonly type = 'hw-queue';
  readonly viommu: Viommu;
  readonly queueType: number;
  /** In the IOVA space of the nest parent. */
  readonly base: bigint;
  readonly length: bigint;
  /** The driver stops it. */
  onStop: () => void = () => {};
  private readonly locked: readonly Locked[];

  /** Takes an id; the caller finalizes. */
  constructor(viommu: Viommu, queueType: number, base: bigint, length: bigint, locked: readonly Locked[]) {
    super();
    this.viommu = viommu;
    this.queueType = queueType;
    this.base = base;
    this.length = length;
    this.locked = locked;
    viommu.users += 1;
    viommu.ctx.objects.add(this);
  }

  /** iommufd_hw_queue_depend: this one cannot be destroyed while the other stands. */
  depend(on: HwQueue): void {
    on.users += 1;
  }

  undepend(on: HwQueue): void {
    on.users -= 1;
  }

  destroy(): void {
    this.onStop();
    unlock(this.locked);
    this.viommu.users -= 1;
  }
}

/**
 * iommufd_hw_queue_alloc_phys: pins the pages under the range and keeps them mapped. Where it lies, or -errno: -ERANGE (whole pages of it wrap), -ENOMEM
 * (Linux makes an array of its pages, which has an end), -ENOENT (not all of it is mapped),
 * -EINVAL (a byte is not where it is in its page), -EFAULT (the pages are not one behind the other).
 */
export function lockQueue(
  iopt: IoPagetable,
  base: bigint,
  length: bigint,
): { readonly pa: number; readonly locked: readonly Locked[] } | number {
  const { refusals, pageSize } = iopt.context;
  const page = BigInt(pageSize);
  const start = base - (base % page);
  const whole = base - start + length + page - 1n;
  if (whole > U64_MAX) return refusals.refuse('ERANGE', `whole pages of ${hex(length)} bytes wrap`, 'length');
  if ((whole / page) * POINTER > KVMALLOC_MAX) {
    return refusals.refuse('ENOMEM', `no array holds the ${whole / page} pages of the queue`, 'length');
  }
  const end = start + (whole / page) * page;
  const locked: Locked[] = [];
  const fail = (error: number): number => {
    unlock(locked);
    return error;
  };
  const runs: { pa: number; length: number }[] = [];
  for (let at = start; at < end; ) {
    const area = iopt.areas.first(at, at);
    if (area === null)
      return fail(refusals.refuse('ENOENT', `nothing is mapped at iova ${hex(at)}`, 'nesting_parent_iova'));
    const stop = area.last + 1n < end ? area.last + 1n : end;
    if (area.byteAt(at) % page !== 0n || (stop !== end && area.byteAt(stop) % page !== 0n)) {
      const why = `iova ${hex(at)} to ${hex(stop)} is not made of whole pages`;
      return fail(refusals.refuse('EINVAL', why, 'nesting_parent_iova'));
    }
    const piece = { area, startByte: area.byteAt(at), length: stop - at };
    const error = area.pages.pin(piece.startByte, piece.length);
    if (error < 0) return fail(error);
    area.pages.get();
    area.locks += 1;
    locked.push(piece);
    runs.push(...area.pages.runs(piece.startByte, piece.length));
    at = stop;
  }
  const [first] = runs;
  let next = first?.pa ?? 0;
  for (const run of runs) {
    if (run.pa !== next) {
      const why = `the pages under iova ${hex(start)} to ${hex(end)} are not one behind the other in memory`;
      return fail(refusals.refuse('EFAULT', why, 'length', 'give the queue memory of one huge page'));
    }
    next += run.length;
  }
  return { pa: (first?.pa ?? 0) + Number(base - start), locked };
}

function unlock(locked: readonly Locked[]): void {
  for (const { area, startByte, length } of locked) {
    area.locks -= 1;
    area.pages.unpin(startByte, length);
    area.pages.put();
  }
}
