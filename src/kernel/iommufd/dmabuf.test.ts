/** IOAS_MAP_FILE of a dma-buf: its checks, and one device's DMA into the BAR of another, through its IOMMU, until the owner revokes it (iommufd/pages.c). */
import { describe, expect, it } from 'vitest';
import { Prot } from '../../ports/iommu.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import * as vfio from '../../uapi/vfio.ts';
import { DmaBufFile, type PhysVec } from '../dma-buf.ts';
import { fileCount } from '../files.ts';
import { userLockedPages } from './account.ts';
import { attachedHost, FIXED, type Iommufd, READ, WRITE } from './testing.ts';
import { CdevLab } from './testing-machine.ts';

const PAGE = 4096;
const U64_MAX = 0xffff_ffff_ffff_ffffn;
const COMMAND = 7 * 2 ** 40 + 4;
const MEMORY_BAR = 4;

function mapFile(iommufd: Iommufd, fields: Init<typeof uapi.iommu_ioas_map_file>) {
  const answer = iommufd.call(uapi.IOMMU_IOAS_MAP_FILE, uapi.iommu_ioas_map_file, fields);
  return answer.result === 0 ? answer.iova : answer.result;
}

/** An attached device whose page table is a Map, and a dma-buf of four pages. */
function setUp(physical: PhysVec | number | null = { pa: 0x6000_0000, length: 4 * PAGE }) {
  const host = attachedHost();
  const state = { released: 0, attach: 0, physical };
  const file: DmaBufFile = new DmaBufFile(host.context.refusals, {
    size: 4 * PAGE,
    openFlags: 2,
    exporter: {
      attach: () => state.attach,
      ...(physical === null ? {} : { iommufdMap: () => state.physical ?? 0 }),
      release: () => {
        state.released += 1;
      },
    },
  });
  const fd = host.client.process.install(file);
  const map = (fields: Init<typeof uapi.iommu_ioas_map_file> = {}) =>
    mapFile(host.iommufd, { ioas_id: host.id, flags: READ | WRITE, fd, length: PAGE, ...fields });
  return { ...host, file, fd, map, state, domain: host.groups[0]!.made.at(-1)! };
}

describe('checks of MAP_FILE, in their order', () => {
  it('flags, sizes, access, IOAS, length, wrap, descriptor, end of the dma-buf, attach, exporter, IOVA', () => {
    const { map, state, file } = setUp();
    expect(map({ flags: 8, iova: U64_MAX })).toBe('EOPNOTSUPP');
    expect(map({ flags: 0, length: U64_MAX })).toBe('EOVERFLOW');
    expect(map({ flags: FIXED, ioas_id: 99 })).toBe('EINVAL');
    expect(map({ ioas_id: 99, length: 0 })).toBe('ENOENT');
    expect(map({ length: 0, fd: 77 })).toBe('EINVAL');
    expect(map({ start: U64_MAX, length: 2, fd: 77 })).toBe('EOVERFLOW');
    expect(map({ fd: 77 })).toBe('EBADF');
    state.attach = -19;
    expect(map({ start: 4 * PAGE })).toBe('EINVAL');
    expect(map({ start: 3 * PAGE, length: PAGE + 1 })).toBe('EINVAL');
    expect(map()).toBe('ENODEV');
    state.attach = 0;
    state.physical = -95;
    expect(map({ flags: FIXED | READ, iova: 1 })).toBe('EOPNOTSUPP');
    state.physical = { pa: 0x6000_0000, length: 4 * PAGE };
    expect(map({ flags: FIXED | READ, iova: 1 })).toBe('EINVAL');
    expect([fileCount(file), file.attachments]).toEqual([1, 0]);
  });

  it('EOPNOTSUPP for an exporter that has no understanding with iommufd', () => {
    const { map, client } = setUp(null);
    expect(map()).toBe('EOPNOTSUPP');
    expect(client.refusal()?.why).toMatch(/a driver that iommufd does not know/);
  });
});

describe('what is mapped', () => {
  it('device memory: MMIO and not cached, the range of the dma-buf, nothing pinned or charged', () => {
    const { map, domain, iommufd, id, client, context, fd, file, state } = setUp();
    client.process.credentials.capabilities.delete('CAP_IPC_LOCK');
    client.process.limits.memlock = 0;
    expect(map({ start: PAGE, length: 2 * PAGE })).toBe(0x1000n);
    expect([0x1000, 0x2000, 0x3000].map((iova) => domain.lookup(iova))).toEqual([0x6000_1000, 0x6000_2000, -1]);
    expect(domain.pages.get(0x1000)?.prot).toBe(Prot.READ | Prot.WRITE | Prot.MMIO);
    expect(userLockedPages(context, 0)).toBe(0);
    expect(client.close(fd)).toBe(0);
    expect([state.released, fileCount(file), file.attachments]).toEqual([0, 1, 1]);
    expect(iommufd.unmap(id, 0x1000, 2 * PAGE)).toBe(8192n);
    expect([domain.pages.size, state.released, file.attachments]).toEqual([0, 1, 0]);
  });

  it('is copied, cannot be cut, and is no file for CHANGE_PROCESS', () => {
    const { map, domain, iommufd, id, file } = setUp();
    expect(map({ length: 4 * PAGE })).toBe(0x4000n);
    expect(iommufd.copy(id, 0x5000, 2 * PAGE, id, 0x10_0000, READ)).toBe(0x10_0000n);
    expect(domain.lookup(0x10_1000)).toBe(0x6000_2000);
    expect(iommufd.unmap(id, 0x4000, PAGE)).toBe('ENOENT');
    const ask = iommufd.call(uapi.IOMMU_IOAS_CHANGE_PROCESS, uapi.iommu_ioas_change_process, {});
    expect(ask.result).toBe('EINVAL');
    file.invalidateMappings();
    expect(domain.pages.size).toBe(0);
  });

  it('VFIO type1 v1 cannot cut it: EOPNOTSUPP', () => {
    const { map, iommufd, id, client } = setUp();
    iommufd.call(uapi.IOMMU_OPTION, uapi.iommu_option, { option_id: 1, op: 0, object_id: id, val64: 0 });
    expect(iommufd.call(uapi.IOMMU_VFIO_IOAS, uapi.iommu_vfio_ioas, { op: 1, ioas_id: id }).result).toBe(0);
    expect(client.ioctl(iommufd.fd, vfio.VFIO_SET_IOMMU, vfio.VFIO_TYPE1_IOMMU)).toBe(0);
    expect(map({ length: 4 * PAGE })).toBe(0x4000n);
    const layout = vfio.vfio_iommu_type1_dma_unmap;
    const bytes = layout.bytes({ argsz: layout.size, iova: 0x5000, size: PAGE });
    expect(client.ioctl(iommufd.fd, vfio.VFIO_IOMMU_UNMAP_DMA, bytes)).toBe(-95);
  });

  it('taken away it leaves every domain, and its areas stay: a new domain gets nothing, a copy maps nothing', () => {
    const { map, domain, iommufd, id, file, groups, devices } = setUp();
    expect(map({ length: 2 * PAGE })).toBe(0x2000n);
    const hwpt = iommufd.hwpt(2, id);
    if (typeof hwpt !== 'number') throw new Error(`${hwpt}`);
    const second = groups[0]!.made.at(-1)!;
    expect([domain.lookup(0x2000), second.lookup(0x3000)]).toEqual([0x6000_0000, 0x6000_1000]);
    file.invalidateMappings();
    expect([domain, second].map((each) => [each.pages.size, each.stale])).toEqual([
      [0, 0],
      [0, 0],
    ]);
    expect(iommufd.mapAt(id, 0x2000, 0x1000, PAGE)).toBe('EEXIST');
    expect(iommufd.copy(id, 0x2000, PAGE, id, 0x9000)).toBe(0x9000n);
    expect(iommufd.hwpt(2, id)).toBe(hwpt + 1);
    expect(groups[0]!.made.at(-1)!.pages.size).toBe(0);
    expect(iommufd.destroy(hwpt + 1)).toBe(0);
    expect(iommufd.detach(devices[0]!)).toBe(0);
    expect([iommufd.unmap(id, 0x9000, PAGE), iommufd.unmap(id, 0x2000, 2 * PAGE)]).toEqual([4096n, 8192n]);
    expect(file.attachments).toBe(0);
  });

  it('mapped without a domain it is filled by the first, and not when it was taken away before', () => {
    const { iommufd, fd, file, groups } = setUp();
    const [early, late] = [iommufd.ioas(), iommufd.ioas()];
    for (const ioas_id of [early, late])
      expect(mapFile(iommufd, { ioas_id, flags: READ, fd, length: PAGE })).toBe(0x1000n);
    expect(typeof iommufd.hwpt(2, early)).toBe('number');
    const first = groups[0]!.made.at(-1)!;
    expect(first.lookup(0x1000)).toBe(0x6000_0000);
    file.invalidateMappings();
    expect(typeof iommufd.hwpt(2, late)).toBe('number');
    expect([first.pages.size, groups[0]!.made.at(-1)!.pages.size]).toEqual([0, 0]);
  });

  it('release by the last holder, whoever that is', () => {
    const { map, client, iommufd, fd, file, state } = setUp();
    expect(map()).toBe(0x1000n);
    client.close(fd);
    iommufd.close();
    client.kernel.exit(client.process);
    expect([state.released, fileCount(file), file.attachments]).toEqual([1, 0, 0]);
  });
});

/** Two bells in one IOAS, of which the second lends its memory. */
function peers() {
  const lab = new CdevLab();
  const { iommufd, client, devices } = lab;
  expect([lab.bind(0), lab.bind(1)]).toEqual([1, 2]);
  const ioas = iommufd.ioas();
  expect(iommufd.attach(devices[0]!, ioas)).toBe(4);
  const bar = lab.bells[1]!.resources[MEMORY_BAR]!;
  const layout = vfio.vfio_device_feature_dma_buf;
  const lend = (offset = 0, length = bar.size): number => {
    const bytes = new Uint8Array(8 + layout.size + 16);
    vfio.vfio_device_feature.patch(bytes, {
      argsz: 8 + layout.size,
      flags: vfio.VFIO_DEVICE_FEATURE_GET | vfio.VFIO_DEVICE_FEATURE_DMA_BUF,
    });
    layout.patch(bytes, { region_index: MEMORY_BAR, open_flags: 2, nr_ranges: 1 }, 8);
    vfio.vfio_region_dma_range.write(bytes, { offset, length }, 8 + layout.size);
    const fd = client.ioctl(devices[1]!, vfio.VFIO_DEVICE_FEATURE, bytes);
    if (fd < 0) throw new Error(client.refusal()?.why);
    return fd;
  };
  const word = (offset: number): number => {
    const bytes = new Uint8Array(4);
    client.pread(devices[1]!, bytes, MEMORY_BAR * 2 ** 40 + offset);
    return new DataView(bytes.buffer).getUint32(0, true);
  };
  return { lab, iommufd, client, device: devices[1]!, ioas, bar, lend, word };
}

describe('from device to device', () => {
  it('DMA of one reaches the memory of the other, and no other IOVA does', () => {
    const { lab, iommufd, client, ioas, bar, lend, word } = peers();
    const fd = lend();
    const iova = Number(mapFile(iommufd, { ioas_id: ioas, flags: READ | WRITE, fd, length: bar.size }));
    expect(lab.lookup(0, iova)).toBe(bar.base);
    lab.dma(0, iova + 0x40, 0xc0ffee);
    expect([word(0x40), word(0), lab.faults]).toEqual([0xc0ffee, 0, 0]);
    lab.dma(0, iova + bar.size, 1);
    expect(lab.faults).toBe(1);
    expect(client.close(fd)).toBe(0);
    lab.dma(0, iova, 0x1234);
    expect([word(0), lab.faults]).toEqual([0x1234, 1]);
  });

  it('decoding off takes the mapping away: a fault and no write; on brings the dma-buf back, and not the mapping', () => {
    const { lab, iommufd, client, device, ioas, lend, word } = peers();
    const fd = lend();
    const map = () => mapFile(iommufd, { ioas_id: ioas, flags: READ | WRITE, fd, length: PAGE });
    const iova = Number(map());
    client.pwrite(device, Uint8Array.of(4, 0), COMMAND);
    expect(lab.lookup(0, iova)).toBe(-1);
    lab.dma(0, iova, 5);
    expect([lab.faults, map()]).toEqual([1, 'ENODEV']);
    expect(client.refusal()?.why).toMatch(/is revoked/);
    client.pwrite(device, Uint8Array.of(6, 0), COMMAND);
    lab.dma(0, iova, 6);
    expect([lab.faults, word(0)]).toEqual([2, 0]);
    const again = Number(map());
    expect(again).not.toBe(iova);
    lab.dma(0, again, 7);
    expect([lab.faults, word(0)]).toEqual([2, 7]);
  });

  it('the close of the owner ends it, and the mapper finds no trace', () => {
    const { lab, iommufd, client, device, ioas, lend } = peers();
    const fd = lend(0, PAGE);
    const iova = Number(mapFile(iommufd, { ioas_id: ioas, flags: READ | WRITE, fd, length: PAGE }));
    client.close(device);
    expect(lab.lookup(0, iova)).toBe(-1);
    lab.dma(0, iova, 5);
    expect(lab.faults).toBe(1);
    expect(mapFile(iommufd, { ioas_id: ioas, flags: READ, fd, length: PAGE })).toBe('ENODEV');
    expect(iommufd.unmap(ioas, iova, PAGE)).toBe(4096n);
    expect(client.close(fd)).toBe(0);
  });
});
