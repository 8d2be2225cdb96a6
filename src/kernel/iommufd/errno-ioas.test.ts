/** IOVA_RANGES, ALLOW_IOVAS, CHANGE_PROCESS, VFIO_IOAS: each errno by name, in the order of Linux (iommufd/ioas.c, vfio_compat.c). */
import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { allocate, attachedHost, ioasHost, iommufdHost } from './testing.ts';
import { blamed, ioctlAt, PAGE, readOnlyPage, WINDOW } from './testing-errno.ts';

describe('errno of IOVA_RANGES', () => {
  const { iommufd, id, client } = attachedHost();
  const list = allocate(client, PAGE);
  const ranges = (fields: Init<typeof uapi.iommu_ioas_iova_ranges>) => {
    const base = { ioas_id: id, num_iovas: 16, allowed_iovas: list.address };
    const answer = iommufd.call(uapi.IOMMU_IOAS_IOVA_RANGES, uapi.iommu_ioas_iova_ranges, { ...base, ...fields });
    return { ...answer, result: blamed(client, answer.result) };
  };

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_ioas_iova_ranges>]>([
    ['IOMMU_IOAS_IOVA_RANGES: EOPNOTSUPP __reserved', 'EOPNOTSUPP __reserved', { __reserved: 1, ioas_id: 99 }],
    ['IOMMU_IOAS_IOVA_RANGES: ENOENT ioas_id is no IOAS', 'ENOENT ioas_id', { ioas_id: 2, allowed_iovas: 8 }],
    [
      'IOMMU_IOAS_IOVA_RANGES: EFAULT the array, before EMSGSIZE',
      'EFAULT allowed_iovas',
      { num_iovas: 1, allowed_iovas: 8 },
    ],
  ])('%s', (_name, expected, fields) => {
    const answer = ranges(fields);
    // Nothing of the struct is written.
    expect([answer.result, answer.out_iova_alignment]).toEqual([expected, 0n]);
  });

  it('IOMMU_IOAS_IOVA_RANGES: EMSGSIZE too little room: what fits, the number of all and the alignment are written', () => {
    const answer = ranges({ num_iovas: 1 });
    expect([answer.result, answer.num_iovas, answer.out_iova_alignment]).toEqual(['EMSGSIZE num_iovas', 2, 4096n]);
    expect(uapi.iommu_iova_range.read(list.bytes)).toEqual({ start: 0n, last: BigInt(WINDOW - 1) });
    expect(ranges({ num_iovas: 0, allowed_iovas: 8 })).toMatchObject({ result: 'EMSGSIZE num_iovas', num_iovas: 2 });
  });

  it('IOMMU_IOAS_IOVA_RANGES: EFAULT the struct cannot be written, before EMSGSIZE', () => {
    const bytes = uapi.iommu_ioas_iova_ranges.bytes({ size: 32, ioas_id: id });
    const address = readOnlyPage(client, bytes);
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_IOAS_IOVA_RANGES, address)).toBe('EFAULT argument');
  });
});

describe('errno of ALLOW_IOVAS', () => {
  const { iommufd, id, client } = attachedHost();
  const pages = allocate(client, PAGE);
  /** The ranges stand at the end of the page, so that one more than given is not readable. */
  const allow = (
    list: readonly (readonly [number, number])[],
    fields: Init<typeof uapi.iommu_ioas_allow_iovas> = {},
  ) => {
    const at = PAGE - list.length * 16;
    for (const [i, [start, last]] of list.entries())
      uapi.iommu_iova_range.write(pages.bytes, { start, last }, at + i * 16);
    const base = { ioas_id: id, num_iovas: list.length, allowed_iovas: pages.address + at };
    const layout = uapi.iommu_ioas_allow_iovas;
    return blamed(client, iommufd.call(uapi.IOMMU_IOAS_ALLOW_IOVAS, layout, { ...base, ...fields }).result);
  };

  it('IOMMU_IOAS_ALLOW_IOVAS: EOPNOTSUPP __reserved, before ENOENT', () => {
    expect(allow([], { __reserved: 1, ioas_id: 99 })).toBe('EOPNOTSUPP __reserved');
  });

  it('IOMMU_IOAS_ALLOW_IOVAS: ENOENT ioas_id is no IOAS, before EFAULT', () => {
    expect(allow([], { ioas_id: 2, num_iovas: 1 })).toBe('ENOENT ioas_id');
  });

  it('IOMMU_IOAS_ALLOW_IOVAS: EFAULT a range, before EINVAL of those behind it and after EINVAL of those before it', () => {
    expect(allow([], { num_iovas: 1 })).toBe('EFAULT allowed_iovas');
    expect(allow([[0x1000, 0x1fff]], { num_iovas: 2 })).toBe('EFAULT allowed_iovas');
    expect(allow([[0x1000, 0x1000]], { num_iovas: 2 })).toBe('EINVAL allowed_iovas');
  });

  it('IOMMU_IOAS_ALLOW_IOVAS: EINVAL start is not below last, before an overlap', () => {
    expect(
      allow([
        [0x1000, 0x1fff],
        [0x1800, 0x1800],
      ]),
    ).toBe('EINVAL allowed_iovas');
    expect(client.kernel.context.refusals.last!.why).toContain('start is not below last');
  });

  it('IOMMU_IOAS_ALLOW_IOVAS: EINVAL two ranges overlap, before EADDRINUSE', () => {
    expect(
      allow([
        [WINDOW, WINDOW + 0xfff],
        [WINDOW + 0xfff, WINDOW + 0x1fff],
      ]),
    ).toBe('EINVAL allowed_iovas');
  });

  it('IOMMU_IOAS_ALLOW_IOVAS: EADDRINUSE a reserved range, and the set of before stays', () => {
    const { iommufd, id, va } = attachedHost();
    expect(iommufd.allow(id, [[0x5000, 0x6fff]])).toBe(0);
    expect(
      iommufd.allow(id, [
        [0x9000, 0x9fff],
        [WINDOW + 0xf_ffff, WINDOW + 0x10_ffff],
      ]),
    ).toBe('EADDRINUSE');
    expect(iommufd.map(id, va, PAGE)).toBe(0x5000n);
  });

  it('IOMMU_IOAS_ALLOW_IOVAS: replaces the set; none allows all again; FIXED may lie outside', () => {
    const { iommufd, id, va } = attachedHost();
    iommufd.allow(id, [[0x5000, 0x6fff]]);
    iommufd.allow(id, [[0x9000, 0x9fff]]);
    expect([iommufd.map(id, va, PAGE), iommufd.map(id, va, PAGE), iommufd.mapAt(id, 0x5000, va, PAGE)]).toEqual([
      0x9000n,
      'ENOSPC',
      0,
    ]);
    expect([iommufd.allow(id, []), iommufd.map(id, va, PAGE)]).toEqual([0, 0x1000n]);
  });
});

describe('errno of CHANGE_PROCESS', () => {
  it('IOMMU_IOAS_CHANGE_PROCESS: EOPNOTSUPP __reserved, before EINVAL', () => {
    const { iommufd, id, va, client } = ioasHost();
    iommufd.mapAt(id, 0x1000, va, PAGE);
    const change = (__reserved: number) =>
      blamed(
        client,
        iommufd.call(uapi.IOMMU_IOAS_CHANGE_PROCESS, uapi.iommu_ioas_change_process, { __reserved }).result,
      );
    expect(change(1)).toBe('EOPNOTSUPP __reserved');
    expect(change(0)).toBe('EINVAL');
  });

  it('IOMMU_IOAS_CHANGE_PROCESS: EINVAL a mapping of any IOAS that is no file', () => {
    const { iommufd, va } = ioasHost();
    const other = iommufd.ioas();
    const change = () => iommufd.call(uapi.IOMMU_IOAS_CHANGE_PROCESS, uapi.iommu_ioas_change_process, {}).result;
    expect(change()).toBe(0);
    iommufd.mapAt(other, 0x1000, va, PAGE);
    expect(change()).toBe('EINVAL');
  });
});

describe('errno of VFIO_IOAS', () => {
  const { iommufd, client } = iommufdHost();
  const ask = (fields: Init<typeof uapi.iommu_vfio_ioas>) =>
    blamed(client, iommufd.call(uapi.IOMMU_VFIO_IOAS, uapi.iommu_vfio_ioas, fields).result);

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_vfio_ioas>]>([
    ['IOMMU_VFIO_IOAS: EOPNOTSUPP __reserved', 'EOPNOTSUPP __reserved', { __reserved: 1, op: 9 }],
    ['IOMMU_VFIO_IOAS: EOPNOTSUPP an unknown op', 'EOPNOTSUPP op', { op: 3, ioas_id: 99 }],
    ['IOMMU_VFIO_IOAS: GET: ENODEV no IOAS stands for the container', 'ENODEV op', { op: uapi.IOMMU_VFIO_IOAS_GET }],
    [
      'IOMMU_VFIO_IOAS: SET: ENOENT ioas_id is no IOAS',
      'ENOENT ioas_id',
      { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: 99 },
    ],
  ])('%s', (_name, expected, fields) => {
    expect(ask(fields)).toBe(expected);
  });

  it('IOMMU_VFIO_IOAS: CLEAR without one is no error; what is destroyed stands for nothing', () => {
    const host = ioasHost();
    const call = (op: number, ioas_id = 0) =>
      host.iommufd.call(uapi.IOMMU_VFIO_IOAS, uapi.iommu_vfio_ioas, { op, ioas_id });
    expect([call(uapi.IOMMU_VFIO_IOAS_CLEAR).result, call(uapi.IOMMU_VFIO_IOAS_SET, host.id).result]).toEqual([0, 0]);
    expect(call(uapi.IOMMU_VFIO_IOAS_GET)).toMatchObject({ result: 0, ioas_id: host.id });
    expect(host.iommufd.destroy(host.id)).toBe(0);
    expect(call(uapi.IOMMU_VFIO_IOAS_GET).result).toBe('ENODEV');
  });

  it('IOMMU_VFIO_IOAS: GET: EFAULT the struct cannot be written', () => {
    const host = ioasHost();
    host.iommufd.call(uapi.IOMMU_VFIO_IOAS, uapi.iommu_vfio_ioas, { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: host.id });
    const address = readOnlyPage(host.client, uapi.iommu_vfio_ioas.bytes({ size: 12, op: uapi.IOMMU_VFIO_IOAS_GET }));
    expect(ioctlAt(host.client, host.iommufd.fd, uapi.IOMMU_VFIO_IOAS, address)).toBe('EFAULT argument');
  });
});
