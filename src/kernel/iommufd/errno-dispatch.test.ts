/** What every request to /dev/iommu goes through, DESTROY, and OPTION: each errno by name, in the order of Linux (iommufd/main.c, ioas.c). */
import { describe, expect, it } from 'vitest';
import { IOMMU_OPTION_SW_MSI_SIZE, IOMMU_OPTION_SW_MSI_START } from '../../uapi/belfry.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { testUnit } from '../vfio/test-host.ts';
import { allocate, attachedHost, ioasHost, iommufdHost } from './testing.ts';
import { blamed, ioctlAt, PAGE, readOnlyPage } from './testing-errno.ts';
import { Guest } from './testing-guest.ts';

const ALLOC = uapi.IOMMU_IOAS_ALLOC;

describe('errno of every request', () => {
  const { client, iommufd } = iommufdHost();
  const memory = allocate(client, 2 * PAGE);
  const end = memory.address + memory.length;
  const ask = (request: number, address: number) => ioctlAt(client, iommufd.fd, request, address);
  const size = (bytes: number, at = memory.address) => {
    client.process.memory.copyOut(at, new Uint8Array(Uint32Array.of(bytes).buffer));
    return at;
  };

  it('iommufd: EFAULT the size, before ENOTTY', () => {
    expect(ask(ALLOC | 0x4000_0000, end - 3)).toBe('EFAULT argument');
  });

  it('iommufd: ENOTTY a number with another direction or type, before EINVAL of the size', () => {
    expect(ask(ALLOC | 0x4000_0000, size(4))).toBe('ENOTTY request');
    expect(ask((0x3c << 8) | 0x81, size(4))).toBe('ENOTTY request');
  });

  it('iommufd: EINVAL the size is less than the first version of the struct, before EFAULT of the struct', () => {
    expect(ask(ALLOC, size(11, end - 8))).toBe('EINVAL size');
  });

  it('iommufd: EFAULT the struct is not all readable', () => {
    expect(ask(ALLOC, size(12, end - 8))).toBe('EFAULT argument');
  });

  it('iommufd: E2BIG something behind the known struct, before EOPNOTSUPP of what is in it', () => {
    memory.bytes.fill(0);
    memory.bytes[4] = 1;
    memory.bytes[16] = 1;
    expect(ask(ALLOC, size(20))).toBe('E2BIG size');
    memory.bytes[16] = 0;
    expect(ask(ALLOC, size(20))).toBe('EOPNOTSUPP flags');
    memory.bytes.fill(0);
  });

  const MINIMA: readonly (readonly [name: string, request: number, minimum: number])[] = [
    ['IOMMU_DESTROY', uapi.IOMMU_DESTROY, 8],
    ['IOMMU_IOAS_ALLOC', ALLOC, 12],
    ['IOMMU_IOAS_ALLOW_IOVAS', uapi.IOMMU_IOAS_ALLOW_IOVAS, 24],
    ['IOMMU_IOAS_COPY', uapi.IOMMU_IOAS_COPY, 40],
    ['IOMMU_IOAS_IOVA_RANGES', uapi.IOMMU_IOAS_IOVA_RANGES, 32],
    ['IOMMU_IOAS_MAP', uapi.IOMMU_IOAS_MAP, 40],
    ['IOMMU_IOAS_UNMAP', uapi.IOMMU_IOAS_UNMAP, 24],
    ['IOMMU_OPTION', uapi.IOMMU_OPTION, 24],
    ['IOMMU_VFIO_IOAS', uapi.IOMMU_VFIO_IOAS, 12],
    ['IOMMU_HWPT_ALLOC', uapi.IOMMU_HWPT_ALLOC, 24],
    ['IOMMU_GET_HW_INFO', uapi.IOMMU_GET_HW_INFO, 32],
    ['IOMMU_HWPT_SET_DIRTY_TRACKING', uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, 16],
    ['IOMMU_HWPT_GET_DIRTY_BITMAP', uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, 48],
    ['IOMMU_HWPT_INVALIDATE', uapi.IOMMU_HWPT_INVALIDATE, 32],
    ['IOMMU_FAULT_QUEUE_ALLOC', uapi.IOMMU_FAULT_QUEUE_ALLOC, 16],
    ['IOMMU_IOAS_MAP_FILE', uapi.IOMMU_IOAS_MAP_FILE, 40],
    ['IOMMU_VIOMMU_ALLOC', uapi.IOMMU_VIOMMU_ALLOC, 24],
    ['IOMMU_VDEVICE_ALLOC', uapi.IOMMU_VDEVICE_ALLOC, 24],
    ['IOMMU_IOAS_CHANGE_PROCESS', uapi.IOMMU_IOAS_CHANGE_PROCESS, 8],
    ['IOMMU_VEVENTQ_ALLOC', uapi.IOMMU_VEVENTQ_ALLOC, 28],
    ['IOMMU_HW_QUEUE_ALLOC', uapi.IOMMU_HW_QUEUE_ALLOC, 40],
  ];

  it('iommufd: the first version of each of the 21 structs is as long as in Linux', () => {
    expect(MINIMA.map(([, request]) => request)).toEqual(Array.from({ length: 21 }, (_, i) => 0x3b80 + i));
    for (const [name, request, minimum] of MINIMA) {
      memory.bytes.fill(0);
      expect([name, ask(request, size(minimum - 1))]).toEqual([name, 'EINVAL size']);
      expect([name, ask(request, size(minimum))]).not.toEqual([name, 'EINVAL size']);
    }
    iommufd.destroy(1);
  });

  it('iommufd: the answer is no longer than the user says', () => {
    const { iommufd: own } = attachedHost();
    const bytes = uapi.iommu_hw_info.bytes({ size: 32, dev_id: 2 }).fill(0xee, 32);
    expect(own.client.ioctl(own.fd, uapi.IOMMU_GET_HW_INFO, bytes)).toBe(0);
    expect([...bytes.subarray(32)]).toEqual(Array.from({ length: 8 }, () => 0xee));
  });
});

describe('errno of DESTROY and IOAS_ALLOC', () => {
  it('IOMMU_IOAS_ALLOC: EOPNOTSUPP flags, and no id is used', () => {
    const { iommufd, client } = iommufdHost();
    const { result } = iommufd.call(ALLOC, uapi.iommu_ioas_alloc, { flags: 1 });
    expect(blamed(client, result)).toBe('EOPNOTSUPP flags');
    expect(iommufd.ioas()).toBe(1);
  });

  it('IOMMU_IOAS_ALLOC: EFAULT the struct cannot be written, and no object stays', () => {
    const { iommufd, client } = iommufdHost();
    const address = readOnlyPage(client, uapi.iommu_ioas_alloc.bytes({ size: 12 }));
    expect(ioctlAt(client, iommufd.fd, ALLOC, address)).toBe('EFAULT argument');
    expect([iommufd.destroy(1), iommufd.ioas()]).toEqual(['ENOENT', 1]);
  });

  it('IOMMU_DESTROY: ENOENT id 0, an id that was never given, and one that is gone', () => {
    const { iommufd } = ioasHost();
    expect([iommufd.destroy(0), iommufd.destroy(9), iommufd.destroy(1), iommufd.destroy(1)]).toEqual([
      'ENOENT',
      'ENOENT',
      0,
      'ENOENT',
    ]);
  });

  it('IOMMU_DESTROY: EBUSY a device that is bound', () => {
    const { iommufd, client, devices } = iommufdHost();
    expect([iommufd.bind(devices[0]!), iommufd.destroy(1)]).toEqual([1, 'EBUSY']);
    client.close(devices[0]!);
    expect(iommufd.destroy(1)).toBe('ENOENT');
  });

  it('IOMMU_DESTROY: EBUSY an IOAS with page tables, and a page table with devices', () => {
    const { iommufd, id, devices } = attachedHost();
    expect([iommufd.destroy(id), iommufd.destroy(3)]).toEqual(['EBUSY', 'EBUSY']);
    expect(iommufd.hwpt(2, id)).toBe(4);
    iommufd.detach(devices[0]!);
    expect([iommufd.destroy(3), iommufd.destroy(id), iommufd.destroy(4), iommufd.destroy(id)]).toEqual([
      'ENOENT',
      'EBUSY',
      0,
      0,
    ]);
  });

  it('IOMMU_DESTROY: EBUSY a nest parent with a vIOMMU, and a vIOMMU with vDEVICE, page table or queue', () => {
    const guest = new Guest();
    const { iommufd, parent, viommu } = guest;
    expect(iommufd.destroy(parent)).toBe('EBUSY');
    expect([guest.vdevice(), guest.nested([0n, 0n])]).toEqual([5, 6]);
    const { out_veventq_id: queue, out_veventq_fd: fd } = guest.queue();
    for (const id of [5, 6]) expect([iommufd.destroy(viommu), iommufd.destroy(id)]).toEqual(['EBUSY', 0]);
    guest.lab.client.close(fd);
    expect([iommufd.destroy(viommu), iommufd.destroy(queue)]).toEqual(['EBUSY', 0]);
    expect([iommufd.destroy(viommu), iommufd.destroy(parent)]).toEqual([0, 0]);
  });
});

describe('errno of OPTION', () => {
  const set = (host: ReturnType<typeof iommufdHost>, fields: Init<typeof uapi.iommu_option>) => {
    const { result, val64 } = host.iommufd.call(uapi.IOMMU_OPTION, uapi.iommu_option, fields);
    return result === 0 ? val64 : blamed(host.client, result);
  };
  const bare = iommufdHost();
  bare.iommufd.ioas();
  bare.client.process.credentials.capabilities.delete('CAP_SYS_RESOURCE');
  const SET = uapi.IOMMU_OPTION_OP_SET;
  const GET = uapi.IOMMU_OPTION_OP_GET;
  const HUGE = uapi.IOMMU_OPTION_HUGE_PAGES;

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_option>]>([
    ['IOMMU_OPTION: EOPNOTSUPP __reserved', 'EOPNOTSUPP __reserved', { __reserved: 1, option_id: 9 }],
    ['IOMMU_OPTION: EOPNOTSUPP an unknown option', 'EOPNOTSUPP option_id', { option_id: 9, op: 9 }],
    [
      'IOMMU_OPTION: EOPNOTSUPP SW_MSI_START with abi linux-7.2',
      'EOPNOTSUPP option_id',
      { option_id: IOMMU_OPTION_SW_MSI_START, op: 9 },
    ],
    [
      'IOMMU_OPTION: EOPNOTSUPP SW_MSI_SIZE with abi linux-7.2',
      'EOPNOTSUPP option_id',
      { option_id: IOMMU_OPTION_SW_MSI_SIZE, op: 9 },
    ],
    ['IOMMU_OPTION: RLIMIT_MODE: EOPNOTSUPP object_id is not 0', 'EOPNOTSUPP object_id', { object_id: 1, op: 9 }],
    ['IOMMU_OPTION: RLIMIT_MODE: EOPNOTSUPP an unknown op', 'EOPNOTSUPP op', { op: 9 }],
    ['IOMMU_OPTION: RLIMIT_MODE: EPERM SET without CAP_SYS_RESOURCE, before EBUSY', 'EPERM op', { op: SET, val64: 2 }],
    [
      'IOMMU_OPTION: HUGE_PAGES: ENOENT object_id is no IOAS',
      'ENOENT object_id',
      { option_id: HUGE, object_id: 99, op: 9 },
    ],
    [
      'IOMMU_OPTION: HUGE_PAGES: EOPNOTSUPP an unknown op',
      'EOPNOTSUPP op',
      { option_id: HUGE, object_id: 1, op: 9, val64: 2 },
    ],
    [
      'IOMMU_OPTION: HUGE_PAGES: EINVAL val64 is neither 0 nor 1',
      'EINVAL val64',
      { option_id: HUGE, object_id: 1, op: SET, val64: 2 },
    ],
  ])('%s', (_name, expected, fields) => {
    expect(set(bare, fields)).toBe(expected);
  });

  it('IOMMU_OPTION: RLIMIT_MODE: GET takes no capability', () => {
    expect(set(bare, { op: GET })).toBe(0n);
  });

  it('IOMMU_OPTION: RLIMIT_MODE: EBUSY SET once there is an object, before EINVAL', () => {
    const host = ioasHost();
    expect(set(host, { op: SET, val64: 2 })).toBe('EBUSY op');
  });

  it('IOMMU_OPTION: RLIMIT_MODE: EINVAL val64 is neither 0 nor 1', () => {
    const host = iommufdHost();
    expect(set(host, { op: SET, val64: 2n ** 63n })).toBe('EINVAL val64');
    expect([set(host, { op: SET, val64: 1 }), set(host, { op: GET })]).toEqual([1n, 1n]);
    expect([set(host, { op: SET, val64: 0 }), set(host, { op: GET })]).toEqual([0n, 0n]);
  });

  it('IOMMU_OPTION: HUGE_PAGES: EINVAL off while page tables have mappings, before EADDRINUSE', () => {
    // Pages of 512 bytes: a mapping may be in a page table and yet be no whole page of the kernel's.
    const host = attachedHost({ units: [testUnit({ pageSizes: [512, PAGE] })] });
    const { iommufd, id, va } = host;
    const off = () => set(host, { option_id: HUGE, object_id: id, op: SET, val64: 0 });
    expect(iommufd.mapAt(id, 0x1000, va, 512)).toBe(0);
    expect(off()).toBe('EINVAL val64');
  });

  it('IOMMU_OPTION: HUGE_PAGES: EADDRINUSE off while mappings are no whole pages', () => {
    const host = ioasHost();
    const { iommufd, id, va } = host;
    iommufd.mapAt(id, 0x1000, va, 7);
    expect(set(host, { option_id: HUGE, object_id: id, op: SET, val64: 0 })).toMatch(/^EADDRINUSE/);
    expect(set(host, { option_id: HUGE, object_id: id, op: GET })).toBe(1n);
  });

  it('IOMMU_OPTION: EFAULT val64 alone is written, and cannot be', () => {
    const { client, iommufd } = ioasHost();
    const fields = { size: 24, option_id: HUGE, object_id: 1, op: GET };
    const address = readOnlyPage(client, uapi.iommu_option.bytes(fields));
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_OPTION, address)).toBe('EFAULT val64');
    // Not beyond it either: the struct may end where memory ends.
    const pages = allocate(client, PAGE);
    uapi.iommu_option.write(pages.bytes, fields, PAGE - 24);
    expect(ioctlAt(client, iommufd.fd, uapi.IOMMU_OPTION, pages.address + PAGE - 24)).toBe(0);
  });
});
