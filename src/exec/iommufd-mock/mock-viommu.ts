/** A vIOMMU of the mock: devices' caches that it invalidates, two queues that depend on each other, and two pages that programs map. */
import {
  type HwptPaging,
  type HwQueue,
  type Invalidated,
  type IommufdContext,
  type UserArray,
  type UserData,
  Viommu,
} from '../../kernel/iommufd/index.ts';
import { hex } from '../../ports/address.ts';
import type { DriverPages, PagePlacer } from './driver-pages.ts';
import { mockOf } from './mock-device.ts';
import { checkNestedFlags, MockNested } from './mock-nested.ts';
import {
  CACHE_ENTRIES,
  HW_QUEUE_TYPE,
  HW_QUEUES,
  INVALIDATE_ALL,
  INVALIDATE_TYPE,
  iommu_viommu_invalidate_selftest,
  iommu_viommu_selftest,
  VIOMMU_TYPE,
} from './structs.ts';

const PAGES = 2;

export class MockViommu extends Viommu {
  private readonly hwQueues: (HwQueue | null)[] = new Array<HwQueue | null>(HW_QUEUES).fill(null);
  private mapped: { readonly offset: number; readonly pages: DriverPages } | null = null;

  /** With data, programs can map two pages of it, and find `in_data` in the first word of them. */
  static init(
    ctx: IommufdContext,
    iommu: object,
    parent: HwptPaging,
    data: UserData | null,
    placer: PagePlacer,
  ): MockViommu | number {
    const viommu = new MockViommu(ctx, iommu, parent);
    const error = data === null ? 0 : viommu.fill(data, placer);
    if (error === 0) return viommu;
    ctx.objects.abort(viommu);
    viommu.destroy();
    return error;
  }

  allocNested(flags: number, data: UserData): MockNested | number {
    const refused = checkNestedFlags(this.ctx.context.refusals, flags);
    return refused < 0 ? refused : MockNested.from(this.ctx.context.refusals, data, this);
  }

  /** The whole array is read before anything is done; an empty one of the right type is in order. */
  invalidate(array: UserArray): Invalidated {
    if (array.count === 0 && array.type === INVALIDATE_TYPE) return { done: 0, error: 0 };
    const entries = array.all(iommu_viommu_invalidate_selftest, INVALIDATE_TYPE);
    if (typeof entries === 'number') return { done: 0, error: entries };
    for (const [done, { flags, vdev_id, cache_id }] of entries.entries()) {
      const error = this.invalidateCache(flags, BigInt(vdev_id), cache_id);
      if (error < 0) return { done, error };
    }
    return { done: entries.length, error: 0 };
  }

  override hasHwQueue(type: number): boolean {
    return type === HW_QUEUE_TYPE;
  }

  /** Queue 1 depends on queue 0. */
  override startHwQueue(queue: HwQueue, index: number, pa: number): number {
    const { refusals } = this.ctx.context;
    if (index >= HW_QUEUES) return refusals.refuse('EINVAL', `the mock has no queue ${index}`, 'index');
    if (this.hwQueues[index] !== null) return refusals.refuse('EEXIST', `queue ${index} is in use`, 'index');
    const before = index === 0 ? null : (this.hwQueues[index - 1] ?? null);
    if (index > 0 && before === null) return refusals.refuse('EIO', `there is no queue ${index - 1} yet`, 'index');
    if (this.parent.domain.lookup(Number(queue.base)) !== pa) {
      return refusals.refuse('EFAULT', `iova ${hex(queue.base)} does not lead to ${hex(pa)}`, 'nesting_parent_iova');
    }
    if (before !== null) queue.depend(before);
    this.hwQueues[index] = queue;
    queue.onStop = () => {
      this.hwQueues[index] = null;
      if (before !== null) queue.undepend(before);
    };
    return 0;
  }

  protected override release(): void {
    if (this.mapped === null) return;
    this.ctx.mmaps.free(this.mapped.offset);
    this.mapped.pages.release();
    this.mapped = null;
  }

  private fill(data: UserData, placer: PagePlacer): number {
    const { context, mmaps } = this.ctx;
    const given = data.read(iommu_viommu_selftest, VIOMMU_TYPE, 'out_data');
    if (typeof given === 'number') return given;
    const length = PAGES * context.pageSize;
    const pages = placer.alloc(this.ctx.file, length);
    if (pages === null)
      return context.refusals.refuse('ENOMEM', `no ${length} bytes that programs can map`, 'data_uptr');
    const offset = mmaps.alloc(this, pages.pa, length);
    if (offset < 0 || !pages.placeAt(offset)) {
      pages.release();
      return offset < 0 ? offset : context.refusals.refuse('ENOMEM', `no room at offset ${offset}`, 'data_uptr');
    }
    this.mapped = { offset, pages };
    context.memory.write32(pages.pa, given.in_data);
    return data.write(iommu_viommu_selftest, VIOMMU_TYPE, 'out_data', {
      in_data: given.in_data,
      out_data: given.in_data,
      out_mmap_offset: BigInt(offset),
      out_mmap_length: BigInt(length),
    });
  }

  private invalidateCache(flags: number, virtualId: bigint, entry: number): number {
    const { refusals } = this.ctx.context;
    if ((flags & ~INVALIDATE_ALL) !== 0)
      return refusals.refuse('EOPNOTSUPP', `flags ${flags} has unknown bits`, 'flags');
    if (entry >= CACHE_ENTRIES) return refusals.refuse('EINVAL', `the cache has no entry ${entry}`, 'cache_id');
    const vdevice = this.vdevices.get(virtualId);
    const mock = vdevice === undefined ? null : mockOf(vdevice.device);
    if (mock === null) return refusals.refuse('EINVAL', `no device has the virtual id ${virtualId}`, 'vdev_id');
    if (flags === INVALIDATE_ALL) mock.cache.fill(0);
    else mock.cache[entry] = 0;
    return 0;
  }
}
