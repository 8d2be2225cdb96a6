/** IOAS_MAP_FILE, and CHANGE_PROCESS of what it maps: each errno by name, in the order of Linux (iommufd/ioas.c, io_pagetable.c, pages.c). */
import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import type { File } from '../files.ts';
import { attachedHost, FIXED, READ, WRITE } from './testing.ts';
import { blamed, ioctlAt, PAGE, readOnlyPage, U64_MAX, WINDOW } from './testing-errno.ts';

const BOTH = READ | WRITE;
const TOP = U64_MAX - 0xfffn;
const layout = uapi.iommu_ioas_map_file;

/** A device attached, and four pages of a memory file as a descriptor. */
function fileHost(process: Parameters<typeof attachedHost>[0] = {}) {
  const host = attachedHost(process);
  const { context, client, iommufd } = host;
  const pa = context.memory.allocate(4 * PAGE) ?? 0;
  const file: File = {
    name: '/memfd:errno (deleted)',
    pin(offset, length) {
      if (offset + length > 4 * PAGE) return -ERRNO.EINVAL;
      return { runs: [{ pa: pa + offset, length }], accountedPages: length / PAGE, deviceMemory: false, release() {} };
    },
    release() {},
  };
  const fd = client.process.install(file);
  const map = (fields: Init<typeof layout>) => {
    const base = { ioas_id: 1, flags: BOTH | FIXED, fd, length: PAGE, iova: 0x10_0000 };
    const answer = iommufd.call(uapi.IOMMU_IOAS_MAP_FILE, layout, { ...base, ...fields });
    return blamed(client, answer.result);
  };
  return { ...host, fd, map };
}

describe('errno of IOAS_MAP_FILE', () => {
  const host = fileHost();
  // IOAS 4, without a page table.
  host.iommufd.ioas();
  host.map({ iova: WINDOW - PAGE });

  it.each<[name: string, expected: string, fields: Init<typeof layout>]>([
    ['IOMMU_IOAS_MAP_FILE: EOPNOTSUPP an unknown flag', 'EOPNOTSUPP flags', { flags: 8, iova: U64_MAX }],
    ['IOMMU_IOAS_MAP_FILE: EOVERFLOW iova is all ones', 'EOVERFLOW iova', { flags: FIXED, iova: U64_MAX }],
    ['IOMMU_IOAS_MAP_FILE: EOVERFLOW length is all ones', 'EOVERFLOW length', { flags: FIXED, length: U64_MAX }],
    ['IOMMU_IOAS_MAP_FILE: EINVAL neither READABLE nor WRITEABLE', 'EINVAL flags', { flags: FIXED, ioas_id: 99 }],
    ['IOMMU_IOAS_MAP_FILE: ENOENT ioas_id is no IOAS', 'ENOENT ioas_id', { ioas_id: 2, length: 0 }],
    ['IOMMU_IOAS_MAP_FILE: EINVAL length 0', 'EINVAL length', { length: 0, fd: 99 }],
    ['IOMMU_IOAS_MAP_FILE: EOVERFLOW start + length wraps', 'EOVERFLOW start', { start: U64_MAX, length: 2, fd: 99 }],
    ['IOMMU_IOAS_MAP_FILE: EBADF no such descriptor', 'EBADF fd', { fd: 99, length: 1 }],
    [
      'IOMMU_IOAS_MAP_FILE: EINVAL length is almost everything',
      'EINVAL length',
      { ioas_id: 4, flags: BOTH, length: U64_MAX - 1n },
    ],
    ['IOMMU_IOAS_MAP_FILE: EINVAL length is no multiple of iova_alignment', 'EINVAL length', { length: 8, iova: 1 }],
    ['IOMMU_IOAS_MAP_FILE: FIXED: EINVAL iova is unaligned', 'EINVAL iova', { iova: TOP + 1n, length: 0x2000 }],
    ['IOMMU_IOAS_MAP_FILE: FIXED: EOVERFLOW iova + length wraps', 'EOVERFLOW iova', { iova: TOP, length: 0x2000 }],
    ['IOMMU_IOAS_MAP_FILE: FIXED: EINVAL a reserved range', 'EINVAL iova', { iova: WINDOW - PAGE, length: 0x2000 }],
    ['IOMMU_IOAS_MAP_FILE: FIXED: EEXIST a mapping', 'EEXIST iova', { iova: WINDOW - PAGE, start: 1 }],
    ['IOMMU_IOAS_MAP_FILE: EINVAL start is less aligned than iova_alignment', 'EINVAL user_va', { start: 0x8001 }],
    ['IOMMU_IOAS_MAP_FILE: EINVAL beyond the end of the file', 'EINVAL', { start: 3 * PAGE, length: 2 * PAGE }],
    ['IOMMU_IOAS_MAP_FILE: EINVAL a file that has no pages to pin', 'EINVAL fd', { fd: host.iommufd.fd }],
  ])('%s', (_name, expected, fields) => {
    expect(host.map(fields)).toBe(expected);
  });

  it('IOMMU_IOAS_MAP_FILE: ENOMEM RLIMIT_MEMLOCK, behind EINVAL of the file', () => {
    const { map } = fileHost({ process: { capabilities: [], limits: { memlock: PAGE } } });
    expect([map({ start: 3 * PAGE, length: 2 * PAGE }), map({ length: 2 * PAGE })]).toEqual([
      'EINVAL',
      'ENOMEM length',
    ]);
    expect(map({})).toBe(0);
  });

  it('IOMMU_IOAS_MAP_FILE: EFAULT the struct cannot be written, and the mapping stays', () => {
    const { client, iommufd, fd } = fileHost();
    const fields = { size: 40, ioas_id: 1, flags: READ | FIXED, fd, length: PAGE, iova: 0x10_0000 };
    const address = readOnlyPage(client, layout.bytes(fields));
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_IOAS_MAP_FILE, address)).toBe('EFAULT argument');
    expect(iommufd.unmap(1, 0x10_0000, PAGE)).toBe(4096n);
  });

  it('IOMMU_IOAS_CHANGE_PROCESS: ENOMEM RLIMIT_MEMLOCK of the new process, and the charge stays where it was', () => {
    const { client, iommufd, kernel, map } = fileHost({ process: { capabilities: [], limits: { memlock: 4 * PAGE } } });
    expect(map({ length: 4 * PAGE })).toBe(0);
    const child = kernel.createProcess({ euid: 7, capabilities: [], limits: { memlock: PAGE } });
    client.process.send(iommufd.fd, child);
    const address = child.memory.allocate(PAGE);
    child.memory.copyOut(address, uapi.iommu_ioas_change_process.bytes({ size: 8 }));
    const change = () => kernel.syscalls.ioctl(child, 0, uapi.IOMMU_IOAS_CHANGE_PROCESS, BigInt(address));
    expect(change()).toBe(-ERRNO.ENOMEM);
    expect(map({ iova: 0x20_0000 })).toBe('ENOMEM length');
    child.limits.memlock = 4 * PAGE;
    expect([change(), map({ iova: 0x20_0000 })]).toEqual([0, 0]);
  });
});
