/** HWPT_ALLOC, GET_HW_INFO, HWPT_INVALIDATE and dirty tracking: each errno by name, in the order of Linux (iommufd/hw_pagetable.c, device.c, io_pagetable.c). */
import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { MapDomain, testUnit } from '../vfio/test-host.ts';
import { allocate, attachedHost } from './testing.ts';
import { blamed, ioctlAt, PAGE, readOnlyPage, U64_MAX, WINDOW } from './testing-errno.ts';
import { CdevLab } from './testing-machine.ts';

const FAULT = uapi.IOMMU_HWPT_FAULT_ID_VALID;
const NEST = uapi.IOMMU_HWPT_ALLOC_NEST_PARENT;
const DIRTY = uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
const SMMU = { type: 'smmuv3' as const, base: 0x5200_0000 };

describe('errno of HWPT_ALLOC', () => {
  /** Device 2, IOAS 1, page table 3. Its IOMMU neither nests nor tracks. */
  const host = attachedHost();
  const alloc = (fields: Init<typeof uapi.iommu_hwpt_alloc>) => {
    const request = { dev_id: 2, pt_id: 1, ...fields };
    return blamed(host.client, host.iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, request).result);
  };
  const data = { data_type: 2, data_len: 16 };

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_hwpt_alloc>]>([
    ['IOMMU_HWPT_ALLOC: EOPNOTSUPP __reserved', 'EOPNOTSUPP __reserved', { __reserved: 1, data_len: 1 }],
    ['IOMMU_HWPT_ALLOC: EINVAL data without a type', 'EINVAL data_len', { data_len: 1, dev_id: 99 }],
    ['IOMMU_HWPT_ALLOC: EINVAL a type without data', 'EINVAL data_len', { data_type: 2, dev_id: 99 }],
    ['IOMMU_HWPT_ALLOC: ENOENT dev_id is no device', 'ENOENT dev_id', { dev_id: 1, pt_id: 99 }],
    ['IOMMU_HWPT_ALLOC: EINVAL pt_id is no object', 'EINVAL pt_id', { pt_id: 99, flags: 0x10 }],
    ['IOMMU_HWPT_ALLOC: EINVAL pt_id is of another type', 'EINVAL pt_id', { pt_id: 2, flags: 0x10 }],
    ['IOMMU_HWPT_ALLOC: EOPNOTSUPP an unknown flag', 'EOPNOTSUPP flags', { flags: 0x10 | FAULT, fault_id: 99 }],
    [
      'IOMMU_HWPT_ALLOC: EOPNOTSUPP DIRTY_TRACKING of an IOMMU that does not',
      'EOPNOTSUPP flags',
      { flags: DIRTY | FAULT },
    ],
    ['IOMMU_HWPT_ALLOC: EOPNOTSUPP FAULT_ID_VALID with NEST_PARENT', 'EOPNOTSUPP flags', { flags: FAULT | NEST }],
    ['IOMMU_HWPT_ALLOC: EOPNOTSUPP NEST_PARENT of an IOMMU that cannot nest', 'EOPNOTSUPP flags', { flags: NEST }],
    ['IOMMU_HWPT_ALLOC: EOPNOTSUPP data over an IOAS', 'EOPNOTSUPP data_type', data],
    ['IOMMU_HWPT_ALLOC: nested: EOPNOTSUPP an unknown flag', 'EOPNOTSUPP flags', { pt_id: 3, ...data, flags: NEST }],
    ['IOMMU_HWPT_ALLOC: nested: EOPNOTSUPP without data', 'EOPNOTSUPP flags', { pt_id: 3 }],
    ['IOMMU_HWPT_ALLOC: nested: EINVAL the parent is no nest parent', 'EINVAL pt_id', { pt_id: 3, ...data }],
    ['IOMMU_HWPT_ALLOC: ENOENT fault_id is no fault queue', 'ENOENT fault_id', { flags: FAULT, fault_id: 1 }],
  ])('%s', (_name, expected, fields) => {
    expect(alloc(fields)).toBe(expected);
    expect(host.iommufd.ctx.objects.size).toBe(3);
  });

  it('IOMMU_HWPT_ALLOC: EADDRINUSE the mappings do not fit the page table, before ENOENT of the fault queue', () => {
    const { iommufd, id, client, devices } = attachedHost();
    iommufd.detach(devices[0]!);
    iommufd.mapAt(id, 0x1000, PAGE, 8);
    const request = { dev_id: 2, pt_id: id, flags: FAULT, fault_id: 99 };
    const { result } = iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, request);
    expect(blamed(client, result)).toBe('EADDRINUSE pt_id');
  });

  it('IOMMU_HWPT_ALLOC: EFAULT the mappings cannot be pinned, and the errno of the page table, before ENOENT of the fault queue', () => {
    const { iommufd, id, va, groups, devices } = attachedHost();
    iommufd.detach(devices[0]!);
    const request = { dev_id: 2, pt_id: id, flags: FAULT, fault_id: 99 };
    const alloc = () => iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, request).result;
    iommufd.mapAt(id, 0x1000, PAGE, PAGE);
    expect(alloc()).toBe('EFAULT');
    iommufd.unmap(id, 0x1000, PAGE);
    iommufd.mapAt(id, 0x1000, va, PAGE);
    groups[0]!.allocateDomain = () => {
      const domain = new MapDomain(testUnit());
      domain.refuseMaps = -ERRNO.ENOMEM;
      return domain;
    };
    expect(alloc()).toBe('ENOMEM');
    groups[0]!.allocateDomain = () => -ERRNO.ENOSPC;
    expect([alloc(), iommufd.ctx.objects.size]).toEqual(['ENOSPC', 2]);
  });

  it('IOMMU_HWPT_ALLOC: EFAULT the struct cannot be written, and no object stays', () => {
    const { iommufd, client } = attachedHost();
    const address = readOnlyPage(client, uapi.iommu_hwpt_alloc.bytes({ size: 48, dev_id: 2, pt_id: 1 }));
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_HWPT_ALLOC, address)).toBe('EFAULT argument');
    expect([iommufd.destroy(4), iommufd.hwpt(2, 1)]).toEqual(['ENOENT', 4]);
  });

  it('IOMMU_HWPT_ALLOC: EOPNOTSUPP PASID, NEST_PARENT and DIRTY_TRACKING as the SMMU has the stages', () => {
    const flagsTaken = (smmu: { stage1?: boolean; stage2?: boolean; httu?: 'dirty' }) => {
      const lab = new CdevLab('arm-its', { machine: { iommu: { ...SMMU, ...smmu } } });
      lab.bind(0);
      const ioas = lab.iommufd.ioas();
      const { IOMMU_HWPT_ALLOC_PASID: pasid } = uapi;
      const all = [0, NEST, DIRTY, pasid, DIRTY | pasid, NEST | pasid, NEST | DIRTY];
      return all.filter((flags) => typeof lab.iommufd.hwpt(1, ioas, flags) === 'number');
    };
    expect(flagsTaken({})).toEqual([0, NEST, 8]);
    expect(flagsTaken({ httu: 'dirty' })).toEqual([0, NEST, DIRTY, 8, DIRTY | 8]);
    expect(flagsTaken({ stage2: false })).toEqual([0, 8]);
    expect(flagsTaken({ stage1: false })).toEqual([0]);
  });
});

describe('errno of GET_HW_INFO', () => {
  const lab = new CdevLab('arm-its');
  lab.bind(0);
  const { iommufd, client } = lab;
  const ask = (fields: Init<typeof uapi.iommu_hw_info>) => {
    const answer = iommufd.call(uapi.IOMMU_GET_HW_INFO, uapi.iommu_hw_info, { dev_id: 1, ...fields });
    return { ...answer, result: blamed(client, answer.result) };
  };
  const TYPED = uapi.IOMMU_HW_INFO_FLAG_INPUT_TYPE;

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_hw_info>]>([
    ['IOMMU_GET_HW_INFO: EOPNOTSUPP an unknown flag', 'EOPNOTSUPP flags', { flags: 2, __reserved: [1, 0, 0] }],
    ['IOMMU_GET_HW_INFO: EOPNOTSUPP __reserved', 'EOPNOTSUPP __reserved', { dev_id: 99, __reserved: [0, 0, 1] }],
    ['IOMMU_GET_HW_INFO: ENOENT dev_id is no device', 'ENOENT dev_id', { dev_id: 99, flags: TYPED, in_data_type: 9 }],
    [
      'IOMMU_GET_HW_INFO: EOPNOTSUPP in_data_type is another than the IOMMU has',
      'EOPNOTSUPP in_data_type',
      { flags: TYPED, in_data_type: 1, data_len: 8, data_uptr: 8 },
    ],
    ['IOMMU_GET_HW_INFO: EFAULT the data', 'EFAULT data_uptr', { data_len: 8, data_uptr: 8 }],
  ])('%s', (_name, expected, fields) => {
    expect(ask(fields).result).toBe(expected);
  });

  it('IOMMU_GET_HW_INFO: in_data_type means nothing without its flag', () => {
    expect(ask({ in_data_type: 9 })).toMatchObject({ result: 0, out_data_type: 2, data_len: 40 });
  });

  it('IOMMU_GET_HW_INFO: EFAULT the room behind the data, after the data was written', () => {
    const page = allocate(client, PAGE);
    const data_uptr = page.address + PAGE - 64;
    for (const data_len of [65, 0xffff_ffff]) {
      page.bytes.fill(0xee);
      expect(ask({ data_len, data_uptr }).result).toBe('EFAULT data_uptr');
      const { aidr } = uapi.iommu_hw_info_arm_smmuv3.read(page.bytes, PAGE - 64);
      expect(aidr).toBe(1);
    }
  });

  it('IOMMU_GET_HW_INFO: room beyond the data is cleared, less room is filled, data_len says what there is', () => {
    const page = allocate(client, 2 * PAGE);
    page.bytes.fill(0xee);
    expect(ask({ data_len: PAGE + 1, data_uptr: page.address })).toMatchObject({ result: 0, data_len: 40 });
    expect([page.bytes[40], page.bytes[PAGE], page.bytes[PAGE + 1]]).toEqual([0, 0, 0xee]);
    page.bytes.fill(0xee);
    expect(ask({ data_len: 4, data_uptr: page.address })).toMatchObject({ result: 0, data_len: 40 });
    expect([...page.bytes.subarray(0, 5)]).toEqual([0, 0, 0, 0, 0xee]);
  });

  it('IOMMU_GET_HW_INFO: EFAULT the struct cannot be written', () => {
    const address = readOnlyPage(client, uapi.iommu_hw_info.bytes({ size: 40, dev_id: 1 }));
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_GET_HW_INFO, address)).toBe('EFAULT argument');
  });
});

describe('errno of HWPT_INVALIDATE', () => {
  const host = attachedHost();
  const call = (fields: Init<typeof uapi.iommu_hwpt_invalidate>) => {
    const { result, entry_num } = host.iommufd.call(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommu_hwpt_invalidate, fields);
    return [blamed(host.client, result), entry_num];
  };
  const some = { hwpt_id: 99, entry_num: 1, entry_len: 16, data_uptr: 8 };

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_hwpt_invalidate>]>([
    ['IOMMU_HWPT_INVALIDATE: EOPNOTSUPP __reserved', 'EOPNOTSUPP __reserved', { ...some, __reserved: 1, data_uptr: 0 }],
    ['IOMMU_HWPT_INVALIDATE: EINVAL entries without data_uptr', 'EINVAL entry_len', { ...some, data_uptr: 0 }],
    ['IOMMU_HWPT_INVALIDATE: EINVAL entries without entry_len', 'EINVAL entry_len', { ...some, entry_len: 0 }],
    [
      'IOMMU_HWPT_INVALIDATE: EINVAL entry_len is more than a page',
      'EINVAL entry_num',
      { ...some, entry_len: PAGE + 1 },
    ],
    ['IOMMU_HWPT_INVALIDATE: EINVAL more than 2^19 entries', 'EINVAL entry_num', { ...some, entry_num: 2 ** 19 + 1 }],
    ['IOMMU_HWPT_INVALIDATE: ENOENT hwpt_id is no object', 'ENOENT hwpt_id', { ...some, entry_len: PAGE }],
    [
      'IOMMU_HWPT_INVALIDATE: ENOENT without entries, whatever entry_len says',
      'ENOENT hwpt_id',
      { hwpt_id: 99, entry_len: PAGE + 1 },
    ],
    ['IOMMU_HWPT_INVALIDATE: EINVAL hwpt_id is a page table of the kernel', 'EINVAL hwpt_id', { ...some, hwpt_id: 3 }],
    ['IOMMU_HWPT_INVALIDATE: EINVAL hwpt_id is an IOAS', 'EINVAL hwpt_id', { ...some, hwpt_id: 1 }],
  ])('%s', (_name, expected, fields) => {
    // entry_num is written back: none was done.
    expect(call(fields)).toEqual([expected, 0]);
  });

  it('IOMMU_HWPT_INVALIDATE: EFAULT entry_num cannot be written, whatever else is wrong', () => {
    const { client, iommufd } = host;
    const address = readOnlyPage(client, uapi.iommu_hwpt_invalidate.bytes({ size: 32, __reserved: 1 }));
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_HWPT_INVALIDATE, address)).toMatch(/^EFAULT/);
  });
});

describe('errno of dirty tracking', () => {
  const lab = new CdevLab('arm-its', { machine: { iommu: { ...SMMU, httu: 'dirty' } } });
  const { iommufd, client } = lab;
  lab.bind(0);
  const ioas = iommufd.ioas();
  const [plain, tracked] = [Number(iommufd.hwpt(1, ioas)), Number(iommufd.hwpt(1, ioas, DIRTY))];
  const set = (fields: Init<typeof uapi.iommu_hwpt_set_dirty_tracking>) => {
    const layout = uapi.iommu_hwpt_set_dirty_tracking;
    return blamed(client, iommufd.call(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, layout, fields).result);
  };
  const get = (fields: Init<typeof uapi.iommu_hwpt_get_dirty_bitmap>) => {
    const request = { hwpt_id: tracked, length: PAGE, page_size: PAGE, ...fields };
    const layout = uapi.iommu_hwpt_get_dirty_bitmap;
    return blamed(client, iommufd.call(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, layout, request).result);
  };

  it.each<[name: string, expected: string | number, fields: Init<typeof uapi.iommu_hwpt_set_dirty_tracking>]>([
    ['IOMMU_HWPT_SET_DIRTY_TRACKING: EOPNOTSUPP an unknown flag', 'EOPNOTSUPP flags', { flags: 2, hwpt_id: 99 }],
    [
      'IOMMU_HWPT_SET_DIRTY_TRACKING: ENOENT hwpt_id is no page table of the kernel',
      'ENOENT hwpt_id',
      { hwpt_id: ioas },
    ],
    [
      'IOMMU_HWPT_SET_DIRTY_TRACKING: EOPNOTSUPP a page table made without DIRTY_TRACKING',
      'EOPNOTSUPP hwpt_id',
      { hwpt_id: plain, flags: 1 },
    ],
    ['IOMMU_HWPT_SET_DIRTY_TRACKING: on', 0, { hwpt_id: tracked, flags: 1 }],
    ['IOMMU_HWPT_SET_DIRTY_TRACKING: off', 0, { hwpt_id: tracked, flags: 0 }],
  ])('%s', (_name, expected, fields) => {
    expect(set(fields)).toBe(expected);
  });

  it('IOMMU_HWPT_SET_DIRTY_TRACKING: __reserved is not looked at', () => {
    expect(set({ hwpt_id: tracked, __reserved: 1 })).toBe(0);
  });

  it.each<[name: string, expected: string | number, fields: Init<typeof uapi.iommu_hwpt_get_dirty_bitmap>]>([
    ['IOMMU_HWPT_GET_DIRTY_BITMAP: EOPNOTSUPP an unknown flag', 'EOPNOTSUPP flags', { flags: 2, hwpt_id: 99 }],
    ['IOMMU_HWPT_GET_DIRTY_BITMAP: EOPNOTSUPP __reserved', 'EOPNOTSUPP flags', { __reserved: 1, hwpt_id: 99 }],
    [
      'IOMMU_HWPT_GET_DIRTY_BITMAP: ENOENT hwpt_id is no page table of the kernel',
      'ENOENT hwpt_id',
      { hwpt_id: 1, iova: U64_MAX },
    ],
    ['IOMMU_HWPT_GET_DIRTY_BITMAP: EOVERFLOW iova + length wraps', 'EOVERFLOW length', { iova: U64_MAX, length: 2 }],
    [
      'IOMMU_HWPT_GET_DIRTY_BITMAP: EINVAL iova or its end is no page of the domain',
      'EINVAL iova',
      { iova: 1, page_size: 0 },
    ],
    ['IOMMU_HWPT_GET_DIRTY_BITMAP: EINVAL page_size 0', 'EINVAL page_size', { page_size: 0, hwpt_id: plain }],
    [
      'IOMMU_HWPT_GET_DIRTY_BITMAP: EINVAL iova or its end is no multiple of page_size',
      'EINVAL page_size',
      { page_size: 0x2000, hwpt_id: plain },
    ],
    [
      'IOMMU_HWPT_GET_DIRTY_BITMAP: EOPNOTSUPP a page table made without DIRTY_TRACKING',
      'EOPNOTSUPP hwpt_id',
      { hwpt_id: plain },
    ],
    [
      'IOMMU_HWPT_GET_DIRTY_BITMAP: 0 where nothing is mapped, and where the bitmap cannot be written',
      0,
      { iova: WINDOW, data: 8 },
    ],
  ])('%s', (_name, expected, fields) => {
    expect(get(fields)).toBe(expected);
  });
});
