import { describe, expect, it } from 'vitest';
import { errnoName } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { TestHostOptions } from '../vfio/test-host.ts';
import { getDevice, groupStatus, iovaRanges, mapDma, setContainer, unmapDma } from '../vfio/test-requests.ts';
import { iommufdHost, named } from './testing.ts';

const NAME = '0000:01:00.0';
const PAGE = 4096;
const WINDOW = 0x800_0000;
const READ_WRITE = uapi.VFIO_DMA_MAP_FLAG_READ | uapi.VFIO_DMA_MAP_FLAG_WRITE;

/** A program of VFIO's groups, whose container is an iommufd. */
function program(options: TestHostOptions & { readonly v1?: boolean } = {}) {
  const host = iommufdHost(options);
  const { client, iommufd } = host;
  const { fd } = iommufd;
  const group = client.open('/dev/vfio/0');
  const set = setContainer(client, group, fd);
  const type = client.ioctl(fd, uapi.VFIO_SET_IOMMU, options.v1 ? uapi.VFIO_TYPE1_IOMMU : uapi.VFIO_TYPE1v2_IOMMU);
  const device = getDevice(client, group, NAME);
  if (set < 0 || type < 0 || device < 0) throw new Error([set, type, device].map(errnoName).join());
  return { ...host, fd, group, device, va: host.memory.address };
}

describe('an iommufd as a container', () => {
  it('knows the version and the extensions', () => {
    const { client, iommufd } = iommufdHost();
    const { fd } = iommufd;
    expect(client.ioctl(fd, uapi.VFIO_GET_API_VERSION)).toBe(0);
    const extension = (id: number) => named(client.ioctl(fd, uapi.VFIO_CHECK_EXTENSION, id));
    expect([1, 3, 8, 9, 6, 10, 2, 77].map(extension)).toEqual([1, 1, 1, 1, 0, 0, 0, 0]);
    expect(extension(uapi.VFIO_DMA_CC_IOMMU)).toBe('ENODEV');
  });

  it('without an IOAS refuses what needs one, after what is wrong in itself', () => {
    const { client, iommufd } = iommufdHost();
    const { fd } = iommufd;
    expect(errnoName(client.ioctl(fd, uapi.VFIO_SET_IOMMU, 2))).toBe('EINVAL');
    expect(errnoName(client.ioctl(fd, uapi.VFIO_SET_IOMMU, 3))).toBe('ENODEV');
    expect(errnoName(mapDma(client, fd, 0, 0, 0, uapi.VFIO_DMA_MAP_FLAG_VADDR))).toBe('EINVAL');
    expect(errnoName(mapDma(client, fd, 0, 0, 0))).toBe('ENODEV');
    expect(errnoName(unmapDma(client, fd, 0, 0, uapi.VFIO_DMA_UNMAP_FLAG_VADDR))).toBe('EINVAL');
    expect(errnoName(unmapDma(client, fd, 0, 0, uapi.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP))).toBe('EINVAL');
    expect(errnoName(unmapDma(client, fd, 0, 0))).toBe('ENODEV');
    const info = uapi.vfio_iommu_type1_info;
    expect(errnoName(client.ioctl(fd, uapi.VFIO_IOMMU_GET_INFO, info.bytes({ argsz: 15 })))).toBe('EINVAL');
    expect(errnoName(client.ioctl(fd, uapi.VFIO_IOMMU_GET_INFO, info.bytes({ argsz: 16 })))).toBe('ENODEV');
    expect(errnoName(client.ioctl(fd, uapi.VFIO_IOMMU_DIRTY_PAGES, new Uint8Array(8)))).toBe('ENOTTY');
    expect(errnoName(client.ioctl(fd, 0x3bff))).toBe('ENOTTY');
  });

  it('SET_CONTAINER makes the IOAS; the device is attached when it is opened, and a new one has the id of a page table', () => {
    const { client, iommufd, groups } = iommufdHost();
    const group = client.open('/dev/vfio/0');
    expect(errnoName(getDevice(client, group, NAME))).toBe('EINVAL');
    expect(groupStatus(client, group)).toBe(uapi.VFIO_GROUP_FLAGS_VIABLE);
    expect(setContainer(client, group, iommufd.fd)).toBe(0);
    expect(groupStatus(client, group)).toBe(uapi.VFIO_GROUP_FLAGS_VIABLE | uapi.VFIO_GROUP_FLAGS_CONTAINER_SET);
    expect(errnoName(setContainer(client, group, iommufd.fd))).toBe('EINVAL');
    expect(iommufd.ctx.vfioIoas?.id).toBe(1);
    expect(groups[0]!.dmaOwner).toBe(null);
    expect(client.ioctl(iommufd.fd, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)).toBe(0);
    expect(client.ioctl(iommufd.fd, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_DMA_CC_IOMMU)).toBe(1);
    expect(getDevice(client, group, NAME)).toBeGreaterThan(0);
    expect(groups[0]!.dmaOwner).toBe(iommufd.ctx);
    expect(iommufd.destroy(3)).toBe('EBUSY');
    expect(iommufd.ranges(1).list).toEqual([
      [0n, 0x7ff_ffffn],
      [0x810_0000n, 0xffff_ffff_ffffn],
    ]);
  });

  it('refuses what is no container and no iommufd', () => {
    const { client, devices } = iommufdHost();
    const group = client.open('/dev/vfio/0');
    expect(errnoName(setContainer(client, group, 99))).toBe('EBADF');
    expect(errnoName(setContainer(client, group, devices[0]!))).toBe('EBADFD');
    expect(errnoName(client.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER))).toBe('EINVAL');
  });

  it('open fails as BIND and ATTACH do, and leaves nothing', () => {
    const { client, iommufd, groups, context, memory } = iommufdHost();
    const group = client.open('/dev/vfio/0');
    setContainer(client, group, iommufd.fd);
    groups[0]!.isolated = false;
    expect(errnoName(getDevice(client, group, NAME))).toBe('EPERM');
    context.modules.iommufd.allow_unsafe_interrupts = true;
    expect(mapDma(client, iommufd.fd, WINDOW, memory.address, PAGE)).toBe(0);
    expect(errnoName(getDevice(client, group, NAME))).toBe('EADDRINUSE');
    expect(iommufd.destroy(1)).toBe(0);
    expect(errnoName(getDevice(client, group, NAME))).toBe('ENODEV');
    expect([groups[0]!.dmaOwner, iommufd.ctx.objects.size]).toEqual([null, 0]);
  });

  it('lives as long as the group and its devices need it', () => {
    const { client, iommufd, group, device, groups, events, va } = program();
    expect(mapDma(client, iommufd.fd, 0x1000, va, PAGE)).toBe(0);
    const { ctx } = iommufd;
    iommufd.close();
    client.close(group);
    expect(groups[0]!.dmaOwner).toBe(ctx);
    events.length = 0;
    client.close(device);
    expect(events).toEqual([`close ${NAME}`, 'detach 0']);
    expect([groups[0]!.dmaOwner, ctx.objects.size]).toEqual([null, 0]);
    expect(client.open('/dev/vfio/0')).toBe(iommufd.fd);
  });

  it('may be taken from the group while a device is open, which keeps it', () => {
    const { client, group, device, groups } = program();
    expect(client.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER)).toBe(0);
    expect(groups[0]!.domain).not.toBe(groups[0]!.blockingDomain);
    expect(groupStatus(client, group)).toBe(0);
    client.close(device);
    expect(groupStatus(client, group)).toBe(uapi.VFIO_GROUP_FLAGS_VIABLE);
  });
});

describe('MAP_DMA and UNMAP_DMA', () => {
  it('answer as IOAS_MAP does', () => {
    const { client, fd, va } = program();
    expect(mapDma(client, fd, 0x1000, va, PAGE, READ_WRITE)).toBe(0);
    expect(errnoName(mapDma(client, fd, 0x1000, va, PAGE))).toBe('EEXIST');
    expect(errnoName(mapDma(client, fd, WINDOW, va, PAGE))).toBe('EINVAL');
    expect(errnoName(mapDma(client, fd, 0x3000, 0x1000, PAGE))).toBe('EFAULT');
    expect(errnoName(mapDma(client, fd, 0x3001, va, PAGE))).toBe('EINVAL');
  });

  it('an empty range is no error, unlike IOAS_UNMAP; the second version never cuts', () => {
    const { client, fd, va, iommufd } = program();
    expect(unmapDma(client, fd, 0x1000, PAGE)).toBe(0);
    expect(iommufd.unmap(1, 0x1000, PAGE)).toBe('ENOENT');
    expect(errnoName(unmapDma(client, fd, 0x1000, 0))).toBe('EINVAL');
    expect(errnoName(unmapDma(client, fd, 0xffff_ffff_ffff_f000n, 0x2000))).toBe('EOVERFLOW');
    mapDma(client, fd, 0x1000, va, 4 * PAGE);
    expect(errnoName(unmapDma(client, fd, 0x2000, PAGE))).toBe('ENOENT');
    expect(unmapDma(client, fd, 0, 0x10_0000)).toBe(4 * PAGE);
    mapDma(client, fd, 0x1000, va, PAGE);
    expect(errnoName(unmapDma(client, fd, 0, PAGE, uapi.VFIO_DMA_UNMAP_FLAG_ALL))).toBe('EINVAL');
    expect(unmapDma(client, fd, 0, 0, uapi.VFIO_DMA_UNMAP_FLAG_ALL)).toBe(PAGE);
    expect(unmapDma(client, fd, 0, 0, uapi.VFIO_DMA_UNMAP_FLAG_ALL)).toBe(0);
  });

  it('the size is written on an error too', () => {
    const { client, fd, va } = program();
    for (const iova of [0x1000, 0x3000]) mapDma(client, fd, iova, va, 2 * PAGE);
    const layout = uapi.vfio_iommu_type1_dma_unmap;
    const bytes = layout.bytes({ argsz: layout.size, iova: 0x1000, size: 3 * PAGE });
    expect(errnoName(client.ioctl(fd, uapi.VFIO_IOMMU_UNMAP_DMA, bytes))).toBe('ENOENT');
    expect(layout.read(bytes).size).toBe(8192n);
  });

  it('the first version cuts, page by page', () => {
    const { client, fd, va, groups } = program({ v1: true });
    const domain = groups[0]!.made.at(-1)!;
    expect(mapDma(client, fd, 0x1000, va, 5 * PAGE)).toBe(0);
    const frame = domain.lookup(0x1000);
    expect(unmapDma(client, fd, 0x2000, PAGE)).toBe(PAGE);
    expect([...domain.pages.keys()]).toEqual([0x1000, 0x3000, 0x4000, 0x5000]);
    expect(errnoName(unmapDma(client, fd, 0x3800, PAGE))).toBe('EINVAL');
    expect(unmapDma(client, fd, 0x4000, 8 * PAGE)).toBe(2 * PAGE);
    expect(domain.lookup(0x3000)).toBe(frame + 2 * PAGE);
    expect(unmapDma(client, fd, 0, 0x10_0000)).toBe(2 * PAGE);
    expect(domain.pages.size).toBe(0);
  });

  it('what a cut leaves is what is charged', () => {
    const limits = { memlock: 5 * PAGE };
    const options = { process: { capabilities: ['CAP_DAC_OVERRIDE'], limits }, v1: true };
    const { client, fd, va } = program(options);
    expect(mapDma(client, fd, 0x1000, va, 5 * PAGE)).toBe(0);
    expect(errnoName(mapDma(client, fd, 0x10_0000, va, PAGE))).toBe('ENOMEM');
    expect(unmapDma(client, fd, 0x2000, 2 * PAGE)).toBe(2 * PAGE);
    expect(mapDma(client, fd, 0x10_0000, va, 2 * PAGE)).toBe(0);
    expect(errnoName(mapDma(client, fd, 0x20_0000, va, PAGE))).toBe('ENOMEM');
  });
});

describe('GET_INFO', () => {
  const layout = uapi.vfio_iommu_type1_info;

  it('has DMA_AVAIL without a limit, then the ranges; no MIGRATION', () => {
    const { client, fd } = program();
    const bytes = new Uint8Array(256);
    layout.patch(bytes, { argsz: bytes.length });
    expect(client.ioctl(fd, uapi.VFIO_IOMMU_GET_INFO, bytes)).toBe(0);
    const info = layout.read(bytes);
    expect(info).toMatchObject({ flags: 3, iova_pgsizes: 0x4020_1000n, cap_offset: 24, argsz: 24 + 16 + 16 + 32 });
    const first = uapi.vfio_iommu_type1_info_dma_avail.read(bytes, 24);
    expect(first).toEqual({ header: { id: 3, version: 1, next: 40 }, avail: 0xffff_ffff });
    expect(uapi.vfio_info_cap_header.read(bytes, 40)).toEqual({ id: 1, version: 1, next: 0 });
    expect(iovaRanges(client, fd)).toEqual([
      [0, 0x7ff_ffff],
      [0x810_0000, 2 ** 48 - 1],
    ]);
  });

  it('writes the capabilities that fit, and offset 0 when not all do', () => {
    const { client, fd } = program();
    const bytes = new Uint8Array(256).fill(0xaa);
    layout.patch(bytes, { argsz: 40 });
    expect(client.ioctl(fd, uapi.VFIO_IOMMU_GET_INFO, bytes)).toBe(0);
    expect(layout.read(bytes)).toMatchObject({ argsz: 88, cap_offset: 0 });
    expect(uapi.vfio_iommu_type1_info_dma_avail.read(bytes, 24).header.id).toBe(3);
    expect(bytes[40]).toBe(0xaa);
    const short = new Uint8Array(24).fill(0xaa);
    layout.patch(short, { argsz: 16 });
    expect(client.ioctl(fd, uapi.VFIO_IOMMU_GET_INFO, short)).toBe(0);
    expect([layout.read(short).argsz, short[16]]).toEqual([88, 0xaa]);
  });
});
