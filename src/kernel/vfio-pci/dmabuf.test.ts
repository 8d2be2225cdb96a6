/** VFIO_DEVICE_FEATURE_DMA_BUF: checks in the order of vfio_pci_dmabuf.c, what the file is, and what revokes it (dma-buf.c, vfio_pci_config.c). */
import { describe, expect, it } from 'vitest';
import {
  DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
  DMA_BUF_IOCTL_SYNC,
  DMA_BUF_SET_NAME_A,
  DMA_BUF_SET_NAME_B,
  dma_buf_sync,
} from '../../uapi/dma-buf.ts';
import { O_CLOEXEC, O_RDWR, O_WRONLY } from '../../uapi/fcntl.ts';
import type { Init } from '../../uapi/struct.ts';
import { vfio_device_feature_dma_buf as layout, VFIO_DEVICE_RESET, vfio_region_dma_range } from '../../uapi/vfio.ts';
import { DmaBufFile, type DmaBufImporter } from '../dma-buf.ts';
import { SEEK_CUR, SEEK_END, SEEK_SET } from '../files.ts';
import { EDU, ENDPOINT, named, Rig } from './testing/rig.ts';

const PAGE = 4096;
const GET = 1 << 16;
const SET = 1 << 17;
const PROBE = 1 << 18;
const DMA_BUF = 11;
const COMMAND = 4;
const U64_MAX = 2n ** 64n - 1n;
/** BAR 0 of ENDPOINT: 64-bit, 0x4000 bytes, in the window of 64-bit BARs. */
const BAR0 = 0x60_0000_0000;

type Range = readonly [offset: number | bigint, length: number | bigint];

class Importer implements DmaBufImporter {
  lost = 0;
  invalidateMappings(): void {
    this.lost += 1;
  }
}

function setUp(spec: ConstructorParameters<typeof Rig>[0] = ENDPOINT) {
  const rig = new Rig(spec).open();
  rig.setConfig(COMMAND, 2, 6);
  const feature = (flags: number, address: number, size = layout.size) => {
    rig.context.refusals.last = null;
    return named(rig.core.feature(rig.process, flags | DMA_BUF, address, size));
  };
  const get = (ranges: readonly Range[], fields: Init<typeof layout> = {}, flags = GET, size = layout.size) => {
    const bytes = new Uint8Array(layout.size + ranges.length * vfio_region_dma_range.size);
    layout.patch(bytes, { nr_ranges: ranges.length, ...fields });
    for (const [i, [offset, length]] of ranges.entries()) {
      vfio_region_dma_range.write(bytes, { offset, length }, layout.size + 16 * i);
    }
    return feature(flags, rig.user(bytes), size);
  };
  const dmabuf = (fields: Init<typeof layout> = {}, ranges: readonly Range[] = [[0, PAGE]]) => {
    const fd = get(ranges, fields);
    const file = typeof fd === 'number' ? rig.process.file(fd) : null;
    if (!(file instanceof DmaBufFile) || typeof fd !== 'number') throw new Error(`${fd}: ${rig.why()}`);
    return { fd, file };
  };
  return { rig, feature, get, dmabuf };
}

describe('the request', () => {
  it('EINVAL operation, 0 for a probe, EINVAL size, EFAULT, EINVAL nr_ranges before flags before ENODEV', () => {
    const { rig, feature, get } = setUp();
    expect([get([[0, PAGE]], {}, SET), get([[0, PAGE]], {}, 0), get([], {}, GET | PROBE)]).toEqual([
      'EINVAL',
      'EINVAL',
      0,
    ]);
    expect(feature(GET, 8, 15)).toBe('EINVAL');
    expect(rig.why()).toMatch(/needs 16/);
    expect(feature(GET, 8, 16)).toBe('EFAULT');
    expect([get([], { flags: 1, region_index: 9 }), rig.why()]).toEqual(['EINVAL', 'nr_ranges is 0']);
    expect([get([[0, PAGE]], { flags: 1, region_index: 9 }), rig.why()]).toEqual(['EINVAL', 'flags 0x1 is not 0']);
  });

  it('ENODEV without such a BAR, before the list is read: the ROM, the upper half of a 64-bit BAR, one that is not there', () => {
    const { rig, get } = setUp();
    for (const region_index of [6, 7, 99, 1, 3]) {
      expect([region_index, get([], { region_index, nr_ranges: 2 ** 30 })]).toEqual([region_index, 'ENODEV']);
    }
    expect(rig.process.descriptors).toEqual([]);
  });

  it('ENOMEM for a list that no kmalloc holds, EFAULT for one that is not there', () => {
    const { rig, get } = setUp();
    expect([get([], { nr_ranges: 2 ** 18 + 1 }), rig.why()]).toEqual([
      'ENOMEM',
      '262145 ranges take 4194320 bytes, more than 4194304',
    ]);
    expect(get([], { nr_ranges: 2 ** 18 })).toBe('EFAULT');
  });

  it('EINVAL for what is not whole pages, then for the sum, then EOVERFLOW and EINVAL against the BAR', () => {
    const { rig, get } = setUp();
    const why = (...ranges: Range[]) => [get(ranges), rig.why().replace(/^range \d, |, which.*$/g, '')];
    expect(why([0, 0])).toEqual(['EINVAL', '0x0 + 0x0, is not made of whole pages of 4096 bytes']);
    expect(why([0, PAGE], [0x10, PAGE])[1]).toMatch(/^0x10 .* whole pages/);
    expect(why([2n ** 63n, 2n ** 63n], [0, 0x10])[1]).toMatch(/whole pages/);
    expect(why([0, 2n ** 63n], [0, 2n ** 63n])).toEqual(['EINVAL', 'the ranges up to 1 have 2^64 bytes or more']);
    expect(why([0, 2n ** 63n])).toEqual(['EINVAL', 'the ranges have 0x8000_0000_0000_0000 bytes, 2^63 or more']);
    expect(why([U64_MAX - 0xfffn, PAGE])).toEqual(['EOVERFLOW', '0xffff_ffff_ffff_f000 + 0x1000, wraps']);
    expect(why([0x4000, PAGE])).toEqual(['EINVAL', '0x4000 + 0x1000, is beyond BAR 0']);
    expect(why([0x3000, 2 * PAGE])[0]).toBe('EINVAL');
    expect(why([0, PAGE], [0x4000, PAGE])[0]).toBe('EINVAL');
    expect(rig.process.descriptors).toEqual([]);
  });

  it('EINVAL for I/O ports, which are a BAR all the same', () => {
    const { rig, get } = setUp({ ...EDU, bars: [{ type: 'io', size: 0x20 }, null, null, null, null, null] });
    expect([get([[0, PAGE]]), rig.why()]).toEqual(['EINVAL', 'BAR 0 has I/O ports, which no DMA reaches']);
  });

  it('EMFILE leaves nothing behind', () => {
    const { rig, get } = setUp();
    rig.process.limits.nofile = 1;
    expect([get([[0, PAGE]]), get([[0, PAGE]])]).toEqual([0, 'EMFILE']);
    rig.process.close(0);
    expect(get([[0, PAGE]])).toBe(0);
  });
});

describe('the file', () => {
  it('shows its size by lseek and fstat; it is neither read, written nor mapped', () => {
    const { rig, dmabuf } = setUp();
    const { file } = dmabuf({ open_flags: O_RDWR | O_CLOEXEC }, [
      [0x1000, PAGE],
      [0x3000, PAGE],
      [0x1000, 2 * PAGE],
    ]);
    expect([file.seek(0, SEEK_END), file.seek(0, SEEK_SET), file.stat()]).toEqual([
      0x4000,
      0,
      { mode: 0o600, size: 0x4000 },
    ]);
    expect(
      [file.seek(0, SEEK_CUR), file.seek(1, SEEK_END), file.read(), file.write()].map((each) => named(each)),
    ).toEqual(['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']);
    expect([file.mmap(rig.process, 0, PAGE, true), file.poll()]).toEqual([-22, 5]);
    const { file: readOnly } = dmabuf();
    const { file: writeOnly } = dmabuf({ open_flags: O_WRONLY });
    expect([readOnly.write(), writeOnly.read(), readOnly.read(), writeOnly.write()].map(named)).toEqual([
      'EBADF',
      'EBADF',
      'EINVAL',
      'EINVAL',
    ]);
    expect([readOnly, writeOnly].map((each) => each.mmap(rig.process, 0, PAGE, true))).toEqual([-13, -13]);
  });

  it('SYNC and SET_NAME check their arguments; there are no sync files', () => {
    const { rig, dmabuf } = setUp();
    const { file } = dmabuf();
    const ioctl = (request: number, argument: number) => named(file.ioctl(rig.process, request, BigInt(argument)));
    const sync = (flags: number) => ioctl(DMA_BUF_IOCTL_SYNC, rig.user(dma_buf_sync.bytes({ flags })));
    expect([ioctl(DMA_BUF_IOCTL_SYNC, 8), sync(8), sync(4), sync(1), sync(2), sync(7)]).toEqual([
      'EFAULT',
      'EINVAL',
      'EINVAL',
      0,
      0,
      0,
    ]);
    const text = (value: string) => rig.user(new TextEncoder().encode(value));
    expect(ioctl(DMA_BUF_SET_NAME_A, 8)).toBe('EFAULT');
    expect(ioctl(DMA_BUF_SET_NAME_B, text(`${'x'.repeat(32)}\0`))).toBe('EINVAL');
    expect([ioctl(DMA_BUF_SET_NAME_B, text('doorbells\0')), file.name]).toEqual([0, '/dmabuf:doorbells']);
    expect([ioctl(DMA_BUF_IOCTL_EXPORT_SYNC_FILE, 8), ioctl(0x6299, 8)]).toEqual(['ENOTTY', 'ENOTTY']);
  });

  it('iommufd is given one range by its physical address, and none of several', () => {
    const { dmabuf } = setUp();
    expect(dmabuf({}, [[0x1000, 2 * PAGE]]).file.exporter.iommufdMap?.()).toEqual({
      pa: BAR0 + 0x1000,
      length: 2 * PAGE,
    });
    const { file } = dmabuf({}, [
      [0, PAGE],
      [0x1000, PAGE],
    ]);
    expect([file.attach(new Importer()), named(file.exporter.iommufdMap?.() as number)]).toEqual([0, 'EOPNOTSUPP']);
  });
});

describe('revocation', () => {
  /** Does the dma-buf take an importer? */
  const usable = (file: DmaBufFile): boolean => {
    const importer = new Importer();
    const taken = file.attach(importer) === 0;
    file.detach(importer);
    return taken;
  };

  it('memory decoding off takes it away, on brings it back; importers are told each time', () => {
    const { rig, dmabuf } = setUp();
    const { file } = dmabuf();
    const importer = new Importer();
    expect(file.attach(importer)).toBe(0);
    rig.setConfig(COMMAND, 2, 4);
    expect([usable(file), importer.lost]).toEqual([false, 1]);
    expect([named(file.attach(importer)), named(file.exporter.iommufdMap?.() as number)]).toEqual(['ENODEV', 'ENODEV']);
    rig.setConfig(COMMAND, 2, 0);
    expect(importer.lost).toBe(1);
    rig.setConfig(COMMAND, 2, 6);
    expect([usable(file), importer.lost]).toEqual([true, 2]);
    rig.setConfig(COMMAND, 2, 2);
    expect(importer.lost).toBe(2);
  });

  it('exported while decoding is off it begins revoked', () => {
    const { rig, dmabuf } = setUp();
    rig.setConfig(COMMAND, 2, 0);
    const { file } = dmabuf();
    expect(usable(file)).toBe(false);
    rig.setConfig(COMMAND, 2, 2);
    expect(usable(file)).toBe(true);
  });

  it('VFIO_DEVICE_RESET and the FLR bit take it away for their time', () => {
    const { rig, dmabuf } = setUp();
    const { file } = dmabuf();
    const importer = new Importer();
    file.attach(importer);
    expect(rig.ioctl(VFIO_DEVICE_RESET, new Uint8Array(0)).result).toBe(0);
    expect([importer.lost, usable(file)]).toEqual([2, true]);
    rig.setConfig(rig.dev.capability(0x10) + 8, 2, 0x8000);
    expect([importer.lost, usable(file)]).toEqual([4, true]);
  });

  it('D3hot takes it away, D0 brings it back; the fallen COMMAND of a reset without memory does not', () => {
    const { rig, dmabuf } = setUp();
    const { file } = dmabuf();
    const power = rig.dev.capability(1) + 4;
    rig.setConfig(power, 2, 3);
    expect(usable(file)).toBe(false);
    rig.setConfig(power, 2, 0);
    expect(usable(file)).toBe(true);
    rig.setConfig(COMMAND, 2, 0);
    rig.setConfig(power, 2, 3);
    rig.setConfig(power, 2, 0);
    expect(usable(file)).toBe(false);
  });

  it('low power takes it away until its exit; one exported meanwhile is usable, as Linux has it', () => {
    const { rig, dmabuf } = setUp();
    const { file } = dmabuf();
    expect(named(rig.core.feature(rig.process, SET | 3, 0, 0))).toBe(0);
    expect([usable(file), usable(dmabuf().file)]).toEqual([false, true]);
    // A second entry is refused, and revokes before it is.
    const { file: second } = dmabuf();
    expect(named(rig.core.feature(rig.process, SET | 3, 0, 0))).toBe('EINVAL');
    expect(usable(second)).toBe(false);
    expect(named(rig.core.feature(rig.process, SET | 5, 0, 0))).toBe(0);
    expect([usable(file), usable(second)]).toEqual([true, true]);
  });

  it('the wakeup that ends low power by itself does not bring it back', () => {
    const { rig, dmabuf } = setUp();
    const { file } = dmabuf();
    const { fd } = rig.eventfd();
    const wakeup = rig.user(new Uint8Array(Int32Array.of(fd, 0).buffer));
    expect(named(rig.core.feature(rig.process, SET | 4, wakeup, 8))).toBe(0);
    expect(rig.config(COMMAND, 2) & 2).toBe(2);
    expect([rig.core.state.pmRuntimeEngaged, usable(file)]).toEqual([false, false]);
    rig.setConfig(COMMAND, 2, 6);
    expect(usable(file)).toBe(true);
  });

  it('a hot reset does it to every function of the bus', () => {
    const { rig, dmabuf } = setUp();
    const { file } = dmabuf();
    rig.core.beginBusReset();
    rig.core.quiesce();
    expect(usable(file)).toBe(false);
    rig.core.unquiesce();
    rig.core.endBusReset();
    expect(usable(file)).toBe(true);
  });

  it('the close of the device takes it away for ever, though the file is open', () => {
    const { rig, dmabuf } = setUp();
    const { file, fd } = dmabuf();
    const importer = new Importer();
    file.attach(importer);
    rig.core.closeDevice();
    expect([usable(file), importer.lost]).toEqual([false, 1]);
    expect(rig.core.openDevice(rig.process)).toBe(0);
    rig.setConfig(COMMAND, 2, 6);
    expect([usable(file), importer.lost, file.seek(0, SEEK_END)]).toEqual([false, 1, PAGE]);
    file.detach(importer);
    expect(rig.process.close(fd)).toBe(0);
  });

  it('a closed file is forgotten', () => {
    const { rig, dmabuf } = setUp();
    const { fd, file } = dmabuf();
    const importer = new Importer();
    file.attach(importer);
    rig.process.close(fd);
    rig.setConfig(COMMAND, 2, 0);
    expect(importer.lost).toBe(0);
  });
});
