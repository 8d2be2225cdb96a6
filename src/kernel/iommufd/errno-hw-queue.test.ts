/** HW_QUEUE_ALLOC and mmap of an iommufd, with an IOMMU that has queues and pages for user space: each errno by name (iommufd/viommu.c, main.c). */
import { describe, expect, it } from 'vitest';
import { errnoName } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { MapDomain, type TestGroup } from '../vfio/test-host.ts';
import type { HwQueue } from './hw-queue.ts';
import type { IommuOps, NestedTable } from './iommu-ops.ts';
import { attachedHost } from './testing.ts';
import { blamed, ioctlAt, PAGE, readOnlyPage, U64_MAX } from './testing-errno.ts';
import { Guest } from './testing-guest.ts';
import type { UserData } from './user-data.ts';
import { Viommu } from './viommu.ts';

const TYPE = 7;
const MMIO = 0x7000_0000;

/** Queues of type 7, up to index 1; and a page to map. */
class QueueViommu extends Viommu {
  offset = 0;

  allocNested(_flags: number, _data: UserData): NestedTable | number {
    return this.ctx.context.refusals.refuse('EOPNOTSUPP', 'no nested tables', 'flags');
  }

  invalidate() {
    return { done: 0, error: 0 };
  }

  override hasHwQueue(type: number): boolean {
    return type === TYPE;
  }

  override startHwQueue(queue: HwQueue, index: number, pa: number): number {
    queue.onStop = () => {};
    return index < 2 && pa > 0 ? 0 : this.ctx.context.refusals.refuse('EINVAL', `no queue ${index}`, 'index');
  }

  protected override release(): void {
    this.ctx.mmaps.free(this.offset);
  }
}

const opsOf = (group: TestGroup): IommuOps => ({
  iommu: group.unit,
  hwInfo: () => ({ type: 0, data: new Uint8Array(0) }),
  dirtyTracking: () => false,
  maxPasidLog2: () => 0,
  userPasidTable: false,
  allocPaging: () => new MapDomain(group.unit),
  hasViommu: (_dev, type) => type === TYPE,
  initViommu: (ctx, parent) => {
    const viommu = new QueueViommu(ctx, group.unit, parent);
    viommu.offset = ctx.mmaps.alloc(viommu, MMIO, 2 * PAGE);
    return viommu;
  },
});

/** Device 2, IOAS 1, nest parent 4, vIOMMU 5; at 0x10_0000 four pages one behind the other, at 0x20_0000 two that are not. */
function queueHost() {
  const host = attachedHost();
  const { iommufd, client, groups, va } = host;
  Object.assign(groups[0]!, { ops: opsOf(groups[0]!) });
  const parent = iommufd.hwpt(2, 1, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
  const request = { type: TYPE, dev_id: 2, hwpt_id: Number(parent) };
  const { result, out_viommu_id } = iommufd.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, request);
  if (result !== 0 || out_viommu_id !== 5) throw new Error(`VIOMMU_ALLOC: ${result}`);
  iommufd.mapAt(1, 0x10_0000, va, 4 * PAGE);
  iommufd.mapAt(1, 0x20_0000, va + 8 * PAGE, PAGE);
  iommufd.mapAt(1, 0x20_1000, va, PAGE);
  const queue = (fields: Init<typeof uapi.iommu_hw_queue_alloc> = {}) => {
    const base = { viommu_id: 5, type: TYPE, index: 0, nesting_parent_iova: 0x10_0000, length: PAGE };
    const answer = iommufd.call(uapi.IOMMU_HW_QUEUE_ALLOC, uapi.iommu_hw_queue_alloc, { ...base, ...fields });
    return answer.result === 0 ? answer.out_hw_queue_id : blamed(client, answer.result);
  };
  return { ...host, queue };
}

describe('errno of HW_QUEUE_ALLOC', () => {
  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_hw_queue_alloc>]>([
    ['IOMMU_HW_QUEUE_ALLOC: EOPNOTSUPP flags', 'EOPNOTSUPP type', { flags: 1, length: 0 }],
    ['IOMMU_HW_QUEUE_ALLOC: EOPNOTSUPP type 0', 'EOPNOTSUPP type', { type: 0, length: 0 }],
    ['IOMMU_HW_QUEUE_ALLOC: EINVAL length 0', 'EINVAL length', { length: 0, viommu_id: 99 }],
    [
      'IOMMU_HW_QUEUE_ALLOC: EOVERFLOW nesting_parent_iova + length wraps',
      'EOVERFLOW length',
      { nesting_parent_iova: U64_MAX, length: 2, viommu_id: 99 },
    ],
    ['IOMMU_HW_QUEUE_ALLOC: ENOENT viommu_id is no vIOMMU', 'ENOENT viommu_id', { viommu_id: 1, type: 8 }],
    [
      'IOMMU_HW_QUEUE_ALLOC: EOPNOTSUPP a type that the hardware has not',
      'EOPNOTSUPP type',
      { type: 8, nesting_parent_iova: 0, length: U64_MAX },
    ],
    [
      'IOMMU_HW_QUEUE_ALLOC: ERANGE whole pages of almost everything',
      'ERANGE length',
      { nesting_parent_iova: 0, length: U64_MAX },
    ],
    [
      'IOMMU_HW_QUEUE_ALLOC: ENOMEM more pages than an array holds',
      'ENOMEM length',
      { nesting_parent_iova: 0x30_0000, length: 2n ** 40n },
    ],
    [
      'IOMMU_HW_QUEUE_ALLOC: ENOENT the queue is not all mapped',
      'ENOENT nesting_parent_iova',
      { nesting_parent_iova: 0x10_3000, length: 0x1001, index: 9 },
    ],
    [
      'IOMMU_HW_QUEUE_ALLOC: EFAULT the pages are not one behind the other',
      'EFAULT length',
      { nesting_parent_iova: 0x20_0000, length: 0x1001, index: 9 },
    ],
    ['IOMMU_HW_QUEUE_ALLOC: the errno of the hardware', 'EINVAL index', { index: 9 }],
  ])('%s', (_name, expected, fields) => {
    const { queue, iommufd } = queueHost();
    expect(queue(fields)).toBe(expected);
    // Nothing stays locked, and no object.
    expect([iommufd.destroy(5), iommufd.unmap(1, 0, U64_MAX)]).toEqual([0, BigInt(6 * PAGE)]);
  });

  it('IOMMU_HW_QUEUE_ALLOC: EOPNOTSUPP the SMMU has none', () => {
    const { iommufd, lab, viommu } = new Guest();
    const request = { viommu_id: viommu, type: 1, nesting_parent_iova: 0, length: 1 };
    const { result } = iommufd.call(uapi.IOMMU_HW_QUEUE_ALLOC, uapi.iommu_hw_queue_alloc, request);
    expect(blamed(lab.client, result)).toBe('EOPNOTSUPP type');
  });

  it('IOMMU_HW_QUEUE_ALLOC: EFAULT the struct cannot be written, and nothing stays locked', () => {
    const { client, iommufd } = queueHost();
    const fields = { size: 40, viommu_id: 5, type: TYPE, nesting_parent_iova: 0x10_0000, length: PAGE };
    const address = readOnlyPage(client, uapi.iommu_hw_queue_alloc.bytes(fields));
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_HW_QUEUE_ALLOC, address)).toBe('EFAULT argument');
    expect([iommufd.unmap(1, 0x10_0000, 4 * PAGE), iommufd.destroy(5)]).toEqual([BigInt(4 * PAGE), 0]);
  });

  it('IOMMU_IOAS_UNMAP: EBUSY a mapping that a hardware queue locks, before ENOENT of a split', () => {
    const { queue, iommufd, client } = queueHost();
    const id = Number(queue());
    expect(blamed(client, iommufd.unmap(1, 0x10_1000, PAGE))).toMatch(/^EBUSY/);
    expect(iommufd.unmap(1, 0, U64_MAX)).toBe('EBUSY');
    expect([iommufd.destroy(5), iommufd.destroy(id), iommufd.unmap(1, 0, U64_MAX)]).toEqual([
      'EBUSY',
      0,
      BigInt(6 * PAGE),
    ]);
  });
});

describe('errno of mmap on an iommufd', () => {
  const map = (
    { client, iommufd }: ReturnType<typeof queueHost>,
    offset: number,
    length: number,
    how?: { shared: boolean; prot: number },
  ) => {
    const made = client.kernel.syscalls.mapping(client.process, iommufd.fd, offset, length, true, how);
    return typeof made === 'number' ? errnoName(made) : made;
  };
  const PRIVATE = { shared: false, prot: 3 };

  it('mmap: EINVAL an offset or a length that is not whole pages, before EINVAL of a private mapping', () => {
    const host = queueHost();
    expect([map(host, 1, PAGE), map(host, PAGE, PAGE + 1, { shared: true, prot: 7 })]).toEqual(['EINVAL', 'EINVAL']);
  });

  it('mmap: EINVAL a private mapping, before EPERM', () => {
    expect(map(queueHost(), 0x10_0000, PAGE, { ...PRIVATE, prot: 7 })).toBe('EINVAL');
  });

  it('mmap: EPERM PROT_EXEC, before ENXIO', () => {
    expect(map(queueHost(), 0x10_0000, PAGE, { shared: true, prot: 5 })).toBe('EPERM');
  });

  it('mmap: ENXIO an offset that was not given, and another length than all of it', () => {
    const host = queueHost();
    const tried = [
      map(host, 0, 2 * PAGE),
      map(host, 0x10_0000, 2 * PAGE),
      map(host, PAGE, PAGE),
      map(host, 2 * PAGE, PAGE),
    ];
    expect(tried).toEqual(['ENXIO', 'ENXIO', 'ENXIO', 'ENXIO']);
  });

  it('mmap: the pages of the IOMMU, which keep their owner from being destroyed', () => {
    const host = queueHost();
    const made = map(host, PAGE, 2 * PAGE);
    if (typeof made === 'string') throw new Error(made);
    expect([made.pa, made.length, host.iommufd.destroy(5)]).toEqual([MMIO, 2 * PAGE, 'EBUSY']);
    made.close();
    expect([host.iommufd.destroy(5), map(host, PAGE, 2 * PAGE)]).toEqual([0, 'ENXIO']);
  });
});
