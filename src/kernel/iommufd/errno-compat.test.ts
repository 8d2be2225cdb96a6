/** VFIO's container requests on /dev/iommu: each errno by name, in the order of Linux (iommufd/vfio_compat.c). */
import { describe, expect, it } from 'vitest';
import * as iommufdUapi from '../../uapi/iommufd.ts';
import * as uapi from '../../uapi/vfio.ts';
import { testUnit } from '../vfio/test-host.ts';
import { mapDma, setContainer, unmapDma } from '../vfio/test-requests.ts';
import { allocate, iommufdHost } from './testing.ts';
import { blamedCall, ioctlAt, PAGE, readOnlyPage, U64_MAX, WINDOW } from './testing-errno.ts';
import { CdevLab } from './testing-machine.ts';

const TOP = U64_MAX - 0xfffn;

/** An iommufd whose IOAS 1 stands for a container, with a device attached when `units` says so or not at all. */
function program({ attach = true, pageSizes = [PAGE] }: { attach?: boolean; pageSizes?: number[] } = {}) {
  const host = iommufdHost({ units: [testUnit({ pageSizes })] });
  const { client, iommufd, devices } = host;
  const group = client.open('/dev/vfio/0');
  setContainer(client, group, iommufd.fd);
  client.close(group);
  if (attach) {
    iommufd.bind(devices[0]!);
    iommufd.attach(devices[0]!, 1);
  }
  return { ...host, fd: iommufd.fd, va: host.memory.address };
}

const ask = ({ client, iommufd }: ReturnType<typeof iommufdHost>, request: number, argument: number | bigint) =>
  ioctlAt(client, iommufd.fd, request, argument);

describe('errno of CHECK_EXTENSION and SET_IOMMU on an iommufd', () => {
  const bare = iommufdHost();
  const extension = (id: number | bigint) => ask(bare, uapi.VFIO_CHECK_EXTENSION, id);

  it('VFIO_GET_API_VERSION: 0, without an IOAS', () => {
    expect(ask(bare, uapi.VFIO_GET_API_VERSION, 0)).toBe(0);
  });

  it('VFIO_CHECK_EXTENSION: 1 for type1, its second version, UNMAP_ALL, and no-IOMMU as configured', () => {
    expect([1, 3, 9, 8].map(extension)).toEqual([1, 1, 1, 1]);
  });

  it('VFIO_CHECK_EXTENSION: 0 for nesting, UPDATE_VADDR and what nobody knows', () => {
    expect([6, 10, 2, 5, 7, 11, 999].map(extension)).toEqual([0, 0, 0, 0, 0, 0, 0]);
  });

  it('VFIO_CHECK_EXTENSION: ENODEV DMA_CC without an IOAS', () => {
    expect(extension(uapi.VFIO_DMA_CC_IOMMU)).toBe('ENODEV fd');
  });

  it('VFIO_CHECK_EXTENSION: DMA_CC is 0 when a page table does not enforce coherency, and 1 when there is none', () => {
    const host = iommufdHost({ groups: 2, units: [testUnit(), testUnit({ coherent: false })] });
    const group = host.client.open('/dev/vfio/0');
    setContainer(host.client, group, host.iommufd.fd);
    host.client.close(group);
    const cc = () => ask(host, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_DMA_CC_IOMMU);
    expect(cc()).toBe(1);
    for (const device of host.devices) host.iommufd.bind(device);
    host.iommufd.hwpt(2, 1);
    expect(cc()).toBe(1);
    host.iommufd.hwpt(3, 1);
    expect(cc()).toBe(0);
  });

  it('VFIO_CHECK_EXTENSION: the whole of the 64-bit argument is compared', () => {
    expect(extension(0x1_0000_0001n)).toBe(0);
  });

  it('VFIO_SET_IOMMU: EINVAL another type, before ENODEV', () => {
    expect([2, 8, 0x1_0000_0003n].map((type) => ask(bare, uapi.VFIO_SET_IOMMU, type))).toEqual(
      Array.from({ length: 3 }, () => 'EINVAL argument'),
    );
  });

  it('VFIO_SET_IOMMU: ENODEV no IOAS stands for the container', () => {
    expect([1, 3].map((type) => ask(bare, uapi.VFIO_SET_IOMMU, type))).toEqual(['ENODEV fd', 'ENODEV fd']);
  });

  it('VFIO_SET_IOMMU: EINVAL the first version, once page tables have mappings, before EADDRINUSE', () => {
    const host = program({ pageSizes: [512, PAGE] });
    host.iommufd.mapAt(1, 0x1000, host.va, 512);
    expect(ask(host, uapi.VFIO_SET_IOMMU, 3)).toBe(0);
    expect(ask(host, uapi.VFIO_SET_IOMMU, 1)).toBe('EINVAL val64');
  });

  it('VFIO_SET_IOMMU: EADDRINUSE the first version, with mappings that are no whole pages', () => {
    const host = program({ attach: false });
    host.iommufd.mapAt(1, 0x1000, host.va, 512);
    expect(ask(host, uapi.VFIO_SET_IOMMU, 1)).toMatch(/^EADDRINUSE/);
    host.iommufd.unmap(1, 0x1000, 512);
    expect([ask(host, uapi.VFIO_SET_IOMMU, 1), host.iommufd.ranges(1).alignment]).toEqual([0, 4096n]);
  });

  it('VFIO_IOMMU_DIRTY_PAGES: ENOTTY, as any request that is not known', () => {
    const host = program();
    expect([uapi.VFIO_IOMMU_DIRTY_PAGES, 0x3b6c, 0x3bff].map((request) => ask(host, request, 0))).toEqual(
      Array.from({ length: 3 }, () => 'ENOTTY request'),
    );
  });
});

describe('errno of MAP_DMA on an iommufd', () => {
  const bare = iommufdHost();
  const layout = uapi.vfio_iommu_type1_dma_map;
  const VADDR = uapi.VFIO_DMA_MAP_FLAG_VADDR;

  it('VFIO_IOMMU_MAP_DMA: EFAULT the argument, before EINVAL', () => {
    const end = bare.memory.address + bare.memory.length;
    layout.write(bare.memory.bytes, { argsz: 8 }, bare.memory.length - 32);
    expect(ask(bare, uapi.VFIO_IOMMU_MAP_DMA, end - 31)).toBe('EFAULT argument');
    expect(ask(bare, uapi.VFIO_IOMMU_MAP_DMA, end - 32)).toBe('EINVAL argsz');
  });

  it('VFIO_IOMMU_MAP_DMA: EINVAL argsz, before EINVAL flags', () => {
    layout.write(bare.memory.bytes, { argsz: 31, flags: VADDR });
    expect(ask(bare, uapi.VFIO_IOMMU_MAP_DMA, bare.memory.address)).toBe('EINVAL argsz');
  });

  it('VFIO_IOMMU_MAP_DMA: EINVAL VADDR and unknown flags, before ENODEV', () => {
    const { client, iommufd } = bare;
    for (const flags of [VADDR, 8]) {
      expect(blamedCall(client, mapDma(client, iommufd.fd, 0, 0, 0, flags))).toBe('EINVAL flags');
    }
  });

  it('VFIO_IOMMU_MAP_DMA: ENODEV no IOAS stands for the container, before EOVERFLOW', () => {
    const { client, iommufd } = bare;
    expect(blamedCall(client, mapDma(client, iommufd.fd, 0, U64_MAX, PAGE))).toBe('ENODEV fd');
  });

  it('VFIO_IOMMU_MAP_DMA: EOVERFLOW, EINVAL, EEXIST and EFAULT as IOAS_MAP with FIXED', () => {
    const { client, fd, va } = program();
    const map = (iova: number | bigint, vaddr: number | bigint, size: number) =>
      blamedCall(client, mapDma(client, fd, iova, vaddr, size));
    expect(map(WINDOW - PAGE, va, PAGE)).toBe(0);
    expect([
      map(1, TOP, 0x1001),
      map(1, va, 0),
      map(1, va, PAGE),
      map(TOP, va, 2 * PAGE),
      map(WINDOW - PAGE, va, 2 * PAGE),
      map(WINDOW - PAGE, 1, PAGE),
      map(0x1000, va + 1, PAGE),
      map(0x1000, PAGE, PAGE),
    ]).toEqual([
      'EOVERFLOW user_va',
      'EINVAL length',
      'EINVAL iova',
      'EOVERFLOW iova',
      'EINVAL iova',
      'EEXIST iova',
      'EINVAL user_va',
      'EFAULT user_va',
    ]);
  });
});

describe.each(['arm-its', 'x86'] as const)('the page tables of %s', (preset) => {
  it('VFIO_IOMMU_MAP_DMA: EINVAL neither READ nor WRITE, once a page table is there', () => {
    const { client, iommufd, devices } = new CdevLab(preset);
    const { fd } = iommufd;
    const op = iommufdUapi.IOMMU_VFIO_IOAS_SET;
    const request = { op, ioas_id: iommufd.ioas() };
    expect(iommufd.call(iommufdUapi.IOMMU_VFIO_IOAS, iommufdUapi.iommu_vfio_ioas, request).result).toBe(0);
    const { address } = allocate(client, PAGE);
    expect(mapDma(client, fd, 0x1000, address, PAGE, 0)).toBe(0);
    expect(unmapDma(client, fd, 0x1000, PAGE)).toBe(PAGE);
    expect([iommufd.bind(devices[0]!), iommufd.attach(devices[0]!, 1)]).toEqual([2, 3]);
    expect(blamedCall(client, mapDma(client, fd, 0x1000, address, PAGE, 0))).toMatch(/^EINVAL/);
    expect(iommufd.unmap(1, 0, U64_MAX)).toBe(0n);
  });
});

describe('errno of UNMAP_DMA on an iommufd', () => {
  const bare = iommufdHost();
  const layout = uapi.vfio_iommu_type1_dma_unmap;
  const ALL = uapi.VFIO_DMA_UNMAP_FLAG_ALL;

  it('VFIO_IOMMU_UNMAP_DMA: EFAULT the argument, before EINVAL', () => {
    const end = bare.memory.address + bare.memory.length;
    expect(ask(bare, uapi.VFIO_IOMMU_UNMAP_DMA, end - 23)).toBe('EFAULT argument');
  });

  it('VFIO_IOMMU_UNMAP_DMA: EINVAL argsz, before EINVAL flags', () => {
    layout.write(bare.memory.bytes, { argsz: 23, flags: 8 });
    expect(ask(bare, uapi.VFIO_IOMMU_UNMAP_DMA, bare.memory.address)).toBe('EINVAL argsz');
  });

  it('VFIO_IOMMU_UNMAP_DMA: EINVAL GET_DIRTY_BITMAP, VADDR and unknown flags, before ENODEV', () => {
    const { client, iommufd } = bare;
    const flags = [uapi.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, uapi.VFIO_DMA_UNMAP_FLAG_VADDR, 8];
    for (const flag of flags) {
      expect(blamedCall(client, unmapDma(client, iommufd.fd, 0, 1, flag | ALL))).toBe('EINVAL flags');
    }
  });

  it('VFIO_IOMMU_UNMAP_DMA: ENODEV no IOAS stands for the container, before EINVAL of ALL', () => {
    const { client, iommufd } = bare;
    expect(blamedCall(client, unmapDma(client, iommufd.fd, 0, 1, ALL))).toBe('ENODEV fd');
  });

  it('VFIO_IOMMU_UNMAP_DMA: EINVAL ALL with an iova or a size, and the struct is not written', () => {
    const { client, fd } = program();
    const bytes = layout.bytes({ argsz: layout.size, flags: ALL, size: PAGE });
    expect(blamedCall(client, client.ioctl(fd, uapi.VFIO_IOMMU_UNMAP_DMA, bytes))).toBe('EINVAL size');
    expect(layout.read(bytes).size).toBe(4096n);
    expect(blamedCall(client, unmapDma(client, fd, 1, 0, ALL))).toBe('EINVAL size');
  });

  it('VFIO_IOMMU_UNMAP_DMA: EINVAL the first version, a cut inside a page, and the struct is not written', () => {
    const { client, fd, va } = program();
    ioctlAt(client, fd, uapi.VFIO_SET_IOMMU, 1);
    mapDma(client, fd, 0x1000, va, 2 * PAGE);
    const bytes = layout.bytes({ argsz: layout.size, iova: 0x1000, size: PAGE / 2 });
    expect(blamedCall(client, client.ioctl(fd, uapi.VFIO_IOMMU_UNMAP_DMA, bytes))).toBe('EINVAL iova');
    expect(layout.read(bytes).size).toBe(2048n);
  });

  it('VFIO_IOMMU_UNMAP_DMA: EINVAL size 0, before EOVERFLOW, and size is written as 0', () => {
    const { client, fd } = program();
    const unmap = (iova: bigint, size: bigint) => {
      const bytes = layout.bytes({ argsz: layout.size, iova, size });
      return [blamedCall(client, client.ioctl(fd, uapi.VFIO_IOMMU_UNMAP_DMA, bytes)), layout.read(bytes).size];
    };
    expect(unmap(TOP, 0n)).toEqual(['EINVAL size', 0n]);
    expect(unmap(TOP, 0x2000n)).toEqual(['EOVERFLOW iova', 0n]);
  });

  it('VFIO_IOMMU_UNMAP_DMA: EOVERFLOW iova + size wraps, before what is mapped there', () => {
    const { client, fd, va } = program({ attach: false });
    mapDma(client, fd, TOP, va, PAGE - 1);
    expect(blamedCall(client, unmapDma(client, fd, TOP, 2 * PAGE))).toBe('EOVERFLOW iova');
  });

  it('VFIO_IOMMU_UNMAP_DMA: 0 with size 0 where nothing is mapped', () => {
    const { client, fd } = program();
    expect([unmapDma(client, fd, 0x1000, PAGE), unmapDma(client, fd, 0, 0, ALL)]).toEqual([0, 0]);
  });

  it('VFIO_IOMMU_UNMAP_DMA: ENOENT the second version does not cut; size says what was done before', () => {
    const { client, fd, va } = program();
    for (const iova of [0x1000, 0x2000]) mapDma(client, fd, iova, va, iova);
    const bytes = layout.bytes({ argsz: layout.size, iova: 0x1000, size: 2 * PAGE });
    expect(blamedCall(client, client.ioctl(fd, uapi.VFIO_IOMMU_UNMAP_DMA, bytes))).toBe('ENOENT iova');
    expect(layout.read(bytes).size).toBe(4096n);
  });

  it('VFIO_IOMMU_UNMAP_DMA: EFAULT the struct cannot be written, and it is unmapped all the same', () => {
    const { client, fd, va } = program();
    mapDma(client, fd, 0x1000, va, PAGE);
    const address = readOnlyPage(client, layout.bytes({ argsz: layout.size, iova: 0x1000, size: PAGE }));
    expect(ioctlAt(client, fd, uapi.VFIO_IOMMU_UNMAP_DMA, address)).toBe('EFAULT argument');
    expect(unmapDma(client, fd, 0x1000, PAGE)).toBe(0);
  });
});

describe('errno of IOMMU_GET_INFO on an iommufd', () => {
  const layout = uapi.vfio_iommu_type1_info;
  const info = (host: ReturnType<typeof iommufdHost>, argsz: number) => {
    const buffer = allocate(host.client, PAGE);
    buffer.bytes.fill(0xee);
    layout.patch(buffer.bytes, { argsz });
    const result = ask(host, uapi.VFIO_IOMMU_GET_INFO, buffer.address);
    return { result, bytes: buffer.bytes };
  };

  it('VFIO_IOMMU_GET_INFO: EFAULT the first 16 bytes, before EINVAL', () => {
    const { memory, ...host } = iommufdHost();
    expect(ioctlAt(host.client, host.iommufd.fd, uapi.VFIO_IOMMU_GET_INFO, memory.address + memory.length - 15)).toBe(
      'EFAULT argument',
    );
  });

  it('VFIO_IOMMU_GET_INFO: EINVAL argsz, before ENODEV', () => {
    expect(info(iommufdHost(), 15).result).toBe('EINVAL argsz');
  });

  it('VFIO_IOMMU_GET_INFO: ENODEV no IOAS stands for the container', () => {
    expect(info(iommufdHost(), 16).result).toBe('ENODEV fd');
  });

  it('VFIO_IOMMU_GET_INFO: EFAULT the struct cannot be written', () => {
    const host = program();
    const address = readOnlyPage(host.client, layout.bytes({ argsz: 24 }));
    expect(ask(host, uapi.VFIO_IOMMU_GET_INFO, address)).toBe('EFAULT argument');
  });

  it('VFIO_IOMMU_GET_INFO: DMA_AVAIL of all ones, then IOVA_RANGE at the next multiple of 8; no MIGRATION', () => {
    const { result, bytes } = info(program(), 4096);
    expect(result).toBe(0);
    expect(layout.read(bytes)).toMatchObject({ argsz: 88, flags: 3, cap_offset: 24 });
    expect(uapi.vfio_iommu_type1_info_dma_avail.read(bytes, 24)).toEqual({
      header: { id: uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1, next: 40 },
      avail: 0xffff_ffff,
    });
    expect(uapi.vfio_info_cap_header.read(bytes, 40)).toEqual({
      id: uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
      version: 1,
      next: 0,
    });
  });

  it('VFIO_IOMMU_GET_INFO: capabilities as far as they fit, argsz of all, cap_offset 0 unless all did', () => {
    const host = program();
    const seen = (argsz: number) => {
      const { result, bytes } = info(host, argsz);
      const { argsz: total, cap_offset } = layout.read(bytes);
      const header = uapi.vfio_info_cap_header.read(bytes, 24);
      return [result, total, cap_offset, header.id === 3 ? header.next : null];
    };
    // DMA_AVAIL has 12 bytes, and names the next one only where that would begin.
    expect([35, 36, 39, 40, 87, 88].map(seen)).toEqual([
      [0, 88, 0, null],
      [0, 88, 0, 0],
      [0, 88, 0, 0],
      [0, 88, 0, 40],
      [0, 88, 0, 40],
      [0, 88, 24, 40],
    ]);
  });

  it('VFIO_IOMMU_GET_INFO: page sizes that all page tables have, none below the page', () => {
    const { bytes } = info(program({ pageSizes: [512, 2 ** 21] }), 24);
    expect(layout.read(bytes).iova_pgsizes).toBe(0x20_1000n);
  });
});
