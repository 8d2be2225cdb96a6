/** IOMMU_IOAS_MAP, COPY and UNMAP: each errno by name, in the order of Linux (iommufd/ioas.c, io_pagetable.c, pages.c). */
import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { attachedHost, FIXED, ioasHost, READ, WRITE } from './testing.ts';
import { blamed, ioctlAt, PAGE, readOnlyPage, U64_MAX, WINDOW } from './testing-errno.ts';

const BOTH = READ | WRITE;
const TOP = U64_MAX - 0xfffn;

describe('errno of IOAS_MAP', () => {
  /** Mapped already: a page before the window. IOAS 4 has no page table. */
  const host = attachedHost();
  host.iommufd.ioas();
  host.iommufd.mapAt(host.id, WINDOW - PAGE, host.va, PAGE);
  const map = (fields: Init<typeof uapi.iommu_ioas_map>) => {
    const base = { ioas_id: host.id, flags: BOTH | FIXED, user_va: host.va, length: PAGE, iova: 0x10_0000 };
    const { result } = host.iommufd.call(uapi.IOMMU_IOAS_MAP, uapi.iommu_ioas_map, { ...base, ...fields });
    return blamed(host.client, result);
  };

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_ioas_map>]>([
    ['IOMMU_IOAS_MAP: EOPNOTSUPP an unknown flag', 'EOPNOTSUPP flags', { flags: 8 | BOTH | FIXED, iova: U64_MAX }],
    ['IOMMU_IOAS_MAP: EOPNOTSUPP __reserved', 'EOPNOTSUPP __reserved', { __reserved: 1, iova: U64_MAX }],
    ['IOMMU_IOAS_MAP: EOVERFLOW iova is all ones', 'EOVERFLOW iova', { flags: FIXED, iova: U64_MAX }],
    ['IOMMU_IOAS_MAP: EOVERFLOW length is all ones', 'EOVERFLOW length', { flags: FIXED, length: U64_MAX }],
    ['IOMMU_IOAS_MAP: EINVAL neither READABLE nor WRITEABLE', 'EINVAL flags', { flags: FIXED, ioas_id: 99 }],
    ['IOMMU_IOAS_MAP: ENOENT ioas_id is no object', 'ENOENT ioas_id', { ioas_id: 99, user_va: U64_MAX }],
    ['IOMMU_IOAS_MAP: ENOENT ioas_id is a device', 'ENOENT ioas_id', { ioas_id: 2, user_va: U64_MAX }],
    ['IOMMU_IOAS_MAP: EOVERFLOW user_va + length wraps', 'EOVERFLOW user_va', { user_va: TOP, length: 0x1001 }],
    ['IOMMU_IOAS_MAP: EINVAL length 0', 'EINVAL length', { length: 0, iova: 1 }],
    [
      'IOMMU_IOAS_MAP: EINVAL length is almost everything',
      'EINVAL length',
      { ioas_id: 4, flags: BOTH, length: U64_MAX - 1n, user_va: 0 },
    ],
    ['IOMMU_IOAS_MAP: EINVAL length is no multiple of iova_alignment', 'EINVAL length', { length: 0x801, iova: 1 }],
    ['IOMMU_IOAS_MAP: FIXED: EINVAL iova is unaligned', 'EINVAL iova', { iova: TOP + 1n, length: 0x2000 }],
    ['IOMMU_IOAS_MAP: FIXED: EOVERFLOW iova + length wraps', 'EOVERFLOW iova', { iova: TOP, length: 0x2000 }],
    ['IOMMU_IOAS_MAP: FIXED: EINVAL the MSI window', 'EINVAL iova', { iova: WINDOW - PAGE, length: 0x2000 }],
    ['IOMMU_IOAS_MAP: FIXED: EINVAL beyond the aperture', 'EINVAL iova', { iova: 2 ** 48, user_va: 1 }],
    ['IOMMU_IOAS_MAP: FIXED: EEXIST a mapping', 'EEXIST iova', { iova: WINDOW - PAGE, user_va: 1 }],
    ['IOMMU_IOAS_MAP: EINVAL user_va is less aligned than iova_alignment', 'EINVAL user_va', { user_va: 1 }],
    [
      'IOMMU_IOAS_MAP: auto: EOVERFLOW half of all IOVAs',
      'EOVERFLOW length',
      { flags: BOTH, length: 2n ** 63n, user_va: 1 },
    ],
    ['IOMMU_IOAS_MAP: EFAULT nothing at user_va', 'EFAULT user_va', { user_va: PAGE }],
  ])('%s', (_name, expected, fields) => {
    expect(map(fields)).toBe(expected);
  });

  it('IOMMU_IOAS_MAP: auto: EINVAL user_va is less aligned than iova_alignment, before ENOSPC', () => {
    const { iommufd, id, client, va } = attachedHost();
    expect(iommufd.allow(id, [[0x1000, 0x1fff]])).toBe(0);
    expect([iommufd.map(id, va, PAGE), iommufd.map(id, va, PAGE)]).toEqual([0x1000n, 'ENOSPC']);
    expect(blamed(client, iommufd.map(id, va + 1, PAGE))).toBe('EINVAL user_va');
  });

  it('IOMMU_IOAS_MAP: auto: ENOSPC no hole that fits, before EFAULT', () => {
    const { iommufd, id, client, va } = attachedHost();
    expect(iommufd.allow(id, [[0x1000, 0x3fff]])).toBe(0);
    expect(iommufd.map(id, va, PAGE)).toBe(0x1000n);
    expect(blamed(client, iommufd.map(id, 0x10_0000, 4 * PAGE))).toBe('ENOSPC length');
  });

  it('IOMMU_IOAS_MAP: EFAULT memory that the process may only read, with WRITEABLE', () => {
    const { iommufd, id, client } = attachedHost();
    const va = client.process.memory.allocate(PAGE, PAGE, false);
    expect(blamed(client, iommufd.mapAt(id, 0x1000, va, PAGE, BOTH))).toBe('EFAULT user_va');
    expect(iommufd.mapAt(id, 0x1000, va, PAGE, READ)).toBe(0);
  });

  it('IOMMU_IOAS_MAP: ENOMEM RLIMIT_MEMLOCK, behind EFAULT', () => {
    const { iommufd, id, client, va } = attachedHost({ process: { capabilities: [], limits: { memlock: PAGE } } });
    expect(iommufd.mapAt(id, 0x1000, 0x10_0000, 2 * PAGE)).toBe('EFAULT');
    expect(blamed(client, iommufd.mapAt(id, 0x1000, va, 2 * PAGE))).toBe('ENOMEM length');
    expect(iommufd.mapAt(id, 0x1000, va, PAGE)).toBe(0);
  });

  it('IOMMU_IOAS_MAP: EFAULT the struct cannot be written, and the mapping stays', () => {
    const { iommufd, id, client, va } = attachedHost();
    const fields = { size: 40, ioas_id: id, flags: BOTH, user_va: va, length: PAGE };
    const address = readOnlyPage(client, uapi.iommu_ioas_map.bytes(fields));
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_IOAS_MAP, address)).toBe('EFAULT argument');
    expect(iommufd.unmap(id, 0x1000, PAGE)).toBe(4096n);
  });

  it('IOMMU_IOAS_MAP: READABLE alone and WRITEABLE alone', () => {
    const { iommufd, id, va, groups } = attachedHost();
    expect([iommufd.mapAt(id, 0x1000, va, PAGE, READ), iommufd.mapAt(id, 0x2000, va, PAGE, WRITE)]).toEqual([0, 0]);
    // Prot: READ 1, WRITE 2, CACHE 4.
    const prots = [...groups[0]!.made.at(-1)!.pages.values()].map(({ prot }) => prot);
    expect(prots).toEqual([1 | 4, 2 | 4]);
  });
});

describe('errno of IOAS_COPY', () => {
  /** 0x1000 to 0x4fff are mapped for reading, in the IOAS and in one without a domain there at an odd address. */
  const host = attachedHost();
  const { iommufd, id, va, client } = host;
  iommufd.mapAt(id, 0x1000, va, 4 * PAGE, READ);
  const loose = iommufd.ioas();
  iommufd.mapAt(loose, 0x1000, va + 8, PAGE, READ);
  const copy = (fields: Init<typeof uapi.iommu_ioas_copy>) => {
    const base = { flags: READ, src_ioas_id: id, dst_ioas_id: id, length: PAGE, src_iova: 0x1000 };
    const { result } = iommufd.call(uapi.IOMMU_IOAS_COPY, uapi.iommu_ioas_copy, { ...base, ...fields });
    return blamed(client, result);
  };
  const at = (dst_iova: number | bigint) => ({ flags: BOTH | FIXED, dst_iova });

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_ioas_copy>]>([
    ['IOMMU_IOAS_COPY: EOPNOTSUPP an unknown flag', 'EOPNOTSUPP flags', { flags: 8, length: U64_MAX }],
    ['IOMMU_IOAS_COPY: EOVERFLOW length is all ones', 'EOVERFLOW length', { flags: 0, length: U64_MAX }],
    ['IOMMU_IOAS_COPY: EOVERFLOW src_iova is all ones', 'EOVERFLOW src_iova', { flags: 0, src_iova: U64_MAX }],
    ['IOMMU_IOAS_COPY: EOVERFLOW dst_iova is all ones', 'EOVERFLOW dst_iova', { flags: 0, dst_iova: U64_MAX }],
    ['IOMMU_IOAS_COPY: EINVAL neither READABLE nor WRITEABLE', 'EINVAL flags', { flags: FIXED, src_ioas_id: 99 }],
    ['IOMMU_IOAS_COPY: ENOENT src_ioas_id is no IOAS', 'ENOENT src_ioas_id', { src_ioas_id: 2, length: 0 }],
    ['IOMMU_IOAS_COPY: EINVAL length 0', 'EINVAL length', { length: 0, src_iova: 0x9000 }],
    ['IOMMU_IOAS_COPY: EOVERFLOW src_iova + length wraps', 'EOVERFLOW src_iova', { src_iova: TOP, length: 0x1001 }],
    ['IOMMU_IOAS_COPY: ENOENT the source is not mapped', 'ENOENT src_iova', { src_iova: 0x9000, dst_ioas_id: 99 }],
    [
      'IOMMU_IOAS_COPY: ENOENT the source is not fully mapped',
      'ENOENT src_iova',
      { src_iova: 0x4000, length: 0x1001, dst_ioas_id: 99 },
    ],
    ['IOMMU_IOAS_COPY: ENOENT dst_ioas_id is no IOAS', 'ENOENT dst_ioas_id', { dst_ioas_id: 99, length: 8 }],
    ['IOMMU_IOAS_COPY: EINVAL length is no multiple of iova_alignment', 'EINVAL length', { length: 8, ...at(1) }],
    ['IOMMU_IOAS_COPY: FIXED: EINVAL dst_iova is unaligned', 'EINVAL iova', { ...at(TOP + 1n), length: 0x2000 }],
    ['IOMMU_IOAS_COPY: FIXED: EOVERFLOW dst_iova + length wraps', 'EOVERFLOW iova', { ...at(TOP), length: 0x2000 }],
    ['IOMMU_IOAS_COPY: FIXED: EINVAL a reserved range', 'EINVAL iova', at(WINDOW)],
    ['IOMMU_IOAS_COPY: FIXED: EEXIST a mapping', 'EEXIST iova', at(0x1000)],
    [
      'IOMMU_IOAS_COPY: EPERM WRITEABLE of a source that is READABLE alone',
      'EPERM flags',
      { ...at(0x9000), src_ioas_id: loose },
    ],
    [
      'IOMMU_IOAS_COPY: EINVAL the source is less aligned than iova_alignment',
      'EINVAL user_va',
      { flags: READ | FIXED, dst_iova: 0x9000, src_ioas_id: loose },
    ],
  ])('%s', (_name, expected, fields) => {
    expect(copy(fields)).toBe(expected);
  });

  it('IOMMU_IOAS_COPY: EFAULT what the source never pinned is not there any more', () => {
    const { client, iommufd, id, memory } = attachedHost();
    const other = iommufd.ioas();
    iommufd.mapAt(other, 0x1000, memory.address, PAGE);
    memory.free();
    expect(blamed(client, iommufd.copy(other, 0x1000, PAGE, id))).toBe('EFAULT user_va');
  });

  it('IOMMU_IOAS_COPY: EFAULT the struct cannot be written, and the mapping stays', () => {
    const fields = { size: 40, flags: READ | FIXED, src_ioas_id: id, dst_ioas_id: id, length: PAGE, src_iova: 0x1000 };
    const address = readOnlyPage(client, uapi.iommu_ioas_copy.bytes({ ...fields, dst_iova: 0x70_0000 }));
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_IOAS_COPY, address)).toBe('EFAULT argument');
    expect(iommufd.unmap(id, 0x70_0000, PAGE)).toBe(4096n);
  });
});

describe('errno of IOAS_UNMAP', () => {
  const { iommufd, id, va, client } = ioasHost();
  for (const iova of [0x1_0000, 0x1_4000]) iommufd.mapAt(id, iova, va, 4 * PAGE);
  const unmap = (ioas_id: number, iova: number | bigint, length: number | bigint) => {
    const { result } = iommufd.call(uapi.IOMMU_IOAS_UNMAP, uapi.iommu_ioas_unmap, { ioas_id, iova, length });
    return blamed(client, result);
  };

  it.each<[name: string, expected: string, ioas: number, iova: number | bigint, length: number | bigint]>([
    ['IOMMU_IOAS_UNMAP: ENOENT ioas_id is no IOAS', 'ENOENT ioas_id', 99, U64_MAX, 1],
    ['IOMMU_IOAS_UNMAP: EOVERFLOW iova is all ones', 'EOVERFLOW iova', id, U64_MAX, 0],
    ['IOMMU_IOAS_UNMAP: EOVERFLOW length is all ones, from another iova than 0', 'EOVERFLOW length', id, 1, U64_MAX],
    ['IOMMU_IOAS_UNMAP: EINVAL length 0', 'EINVAL length', id, 0x1_0000, 0],
    ['IOMMU_IOAS_UNMAP: EOVERFLOW iova + length wraps', 'EOVERFLOW length', id, 0x1_0000, U64_MAX - 1n],
    ['IOMMU_IOAS_UNMAP: ENOENT nothing is mapped', 'ENOENT iova', id, 0x2_0000, PAGE],
    ['IOMMU_IOAS_UNMAP: ENOENT a mapping would be split at its front', 'ENOENT iova', id, 0x1_1000, 0x3000],
    ['IOMMU_IOAS_UNMAP: ENOENT a mapping would be split at its back', 'ENOENT iova', id, 0x1_0000, 0x3000],
    ['IOMMU_IOAS_UNMAP: ENOENT a mapping would be split in its middle', 'ENOENT iova', id, 0x1_1000, 0x1000],
  ])('%s', (_name, expected, ioas, iova, length) => {
    expect(unmap(ioas, iova, length)).toBe(expected);
  });

  it('IOMMU_IOAS_UNMAP: what was done before an ENOENT stays done, and length as it was', () => {
    const { iommufd, id, va } = ioasHost();
    for (const iova of [0x1000, 0x3000]) iommufd.mapAt(id, iova, va, 2 * PAGE);
    const fields = { ioas_id: id, iova: 0x1000, length: 0x3000 };
    const answer = iommufd.call(uapi.IOMMU_IOAS_UNMAP, uapi.iommu_ioas_unmap, fields);
    expect([answer.result, answer.length]).toEqual(['ENOENT', 0x3000n]);
    expect([iommufd.unmap(id, 0x1000, 0x2000), iommufd.unmap(id, 0x3000, 0x2000)]).toEqual(['ENOENT', 0x2000n]);
  });

  it('IOMMU_IOAS_UNMAP: length becomes the bytes that were unmapped', () => {
    const { iommufd, id, va } = ioasHost();
    for (const iova of [0x1000, 0x5000]) iommufd.mapAt(id, iova, va, PAGE);
    expect(iommufd.unmap(id, 0, 0x10_0000)).toBe(0x2000n);
  });

  it('IOMMU_IOAS_UNMAP: iova 0 with length all ones is everything, and 0 when that is nothing', () => {
    const { iommufd, id, va } = ioasHost();
    iommufd.mapAt(id, 0x1000, va, PAGE);
    iommufd.mapAt(id, TOP, va, PAGE - 1);
    expect([iommufd.unmap(id, 0, U64_MAX), iommufd.unmap(id, 0, U64_MAX)]).toEqual([0x1fffn, 0n]);
  });

  it('IOMMU_IOAS_UNMAP: EFAULT the struct cannot be written, and nothing is mapped any more', () => {
    const { iommufd, id, va, client } = ioasHost();
    iommufd.mapAt(id, 0x1000, va, PAGE);
    const fields = { size: 24, ioas_id: id, iova: 0x1000, length: PAGE };
    const address = readOnlyPage(client, uapi.iommu_ioas_unmap.bytes(fields));
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_IOAS_UNMAP, address)).toBe('EFAULT argument');
    expect(iommufd.unmap(id, 0x1000, PAGE)).toBe('ENOENT');
  });
});
