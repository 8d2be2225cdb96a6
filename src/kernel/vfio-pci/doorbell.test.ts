/** The 19 rules of the user-given doorbell (docs/doorbell.md), each with its cases: rules 1 to 10. */
import { describe, expect, it } from 'vitest';
import { vfio_device_feature_belfry_doorbell as layout } from '../../uapi/belfry.ts';
import { VFIO_DMA_UNMAP_FLAG_ALL } from '../../uapi/vfio.ts';
import { FakeDomain } from '../irq/testing/fakes.ts';
import { DoorbellHost, FakeIoas, ITS, MSI, MSIX } from './testing/doorbell-host.ts';

const GET = 1 << 16;
const SET = 1 << 17;
const PROBE = 1 << 18;
const GIB4 = 2 ** 32;

describe('rule 1: one call, VFIO_DEVICE_FEATURE 0xBE11 with PROBE, GET and SET', () => {
  it('answers a probe of GET, of SET, of both and of none', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    for (const flags of [PROBE, PROBE | GET, PROBE | SET, PROBE | GET | SET]) {
      expect(host.feature(dev, flags, {})).toBe(0);
    }
  });

  it('does a SET and a GET through the bytes of a process', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    expect(host.feature(dev, SET, { iova: 0x809_0000 })).toBe(0);
    expect(host.feature(dev, GET, { start: 1 })).toBe(0);
    expect(host.answer).toEqual({ flags: 0, index: MSIX, start: 1, count: 0, iova: 0x809_0000n, size: 0x1000n });
  });

  it('ENOTTY with abi linux-7.2, even for a probe', () => {
    const host = new DoorbellHost({ abi: 'linux-7.2' });
    const dev = host.attached();
    for (const flags of [PROBE, GET, SET]) expect(host.feature(dev, flags, {})).toBe('ENOTTY');
    expect(host.refusal()).toBe('ENOTTY flags');
  });

  it('ENOTTY where the host’s policy is none', () => {
    const host = new DoorbellHost({ policy: 'none' });
    expect(host.feature(host.attached(), SET, {})).toBe('ENOTTY');
  });

  it('EINVAL for neither or both of GET and SET', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    expect([host.feature(dev, 0, {}), host.refusal()]).toEqual(['EINVAL', 'EINVAL flags']);
    expect(host.feature(dev, GET | SET, {})).toBe('EINVAL');
  });

  it('EFAULT for a payload that is not there', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    expect(dev.bell.feature(host.client.process, SET, 8, 32)).toBe(-14);
    expect(host.refusal()).toBe('EFAULT data');
  });
});

describe('rule 2: the payload is 32 bytes, with flags 0', () => {
  it('has its fields where the rule puts them', () => {
    expect(layout.size).toBe(32);
    const offsets = ['flags', 'index', 'start', 'count', 'iova', 'size'] as const;
    expect(offsets.map((field) => layout.offsetOf(field))).toEqual([0, 4, 8, 12, 16, 24]);
  });

  it('EINVAL argsz for 31 bytes, and reads no more than 32', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    expect([host.feature(dev, SET, {}, 31), host.refusal()]).toEqual(['EINVAL', 'EINVAL argsz']);
    expect(host.feature(dev, SET, { iova: 0x809_0000 }, 4096)).toBe(0);
  });

  it('EINVAL flags in a SET and in a GET, before a wrong index', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    expect(host.refused(dev, { flags: 1, index: 0 })).toBe('EINVAL flags');
    expect([host.feature(dev, GET, { flags: 2 }), host.refusal()]).toEqual(['EINVAL', 'EINVAL flags']);
  });

  it.each([0, 3, 4, 5, 0xffff_ffff])('EINVAL index %i, which has no messages, before a wrong start', (index) => {
    const host = new DoorbellHost();
    expect(host.refused(host.attached(), { index, start: 9 })).toBe('EINVAL index');
  });

  it('EINVAL index for a capability that the device lacks', () => {
    const host = new DoorbellHost();
    expect(host.refused(host.attached({ msix: 4 }), { index: MSI })).toBe('EINVAL index');
    expect(host.refused(host.attached({ msi: 1 }), { index: MSIX })).toBe('EINVAL index');
  });
});

describe('rule 3: vectors, defaults, clearing', () => {
  it('gives single vectors a range', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    expect(host.set(dev, { start: 1, count: 2, iova: 0x809_0000 })).toBe(0);
    expect([0, 1, 2, 3].map((i) => host.get(dev, i).iova)).toEqual([0, 0x809_0000, 0x809_0000, 0]);
  });

  it('gives the whole index a default', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    expect(host.set(dev, { iova: 0x809_0000 })).toBe(0);
    expect([0, 3].map((i) => host.get(dev, i).iova)).toEqual([0x809_0000, 0x809_0000]);
  });

  it.each([
    [{ start: 4, count: 1 }, 'EINVAL start'],
    [{ start: 0xffff_ffff, count: 0xffff_ffff }, 'EINVAL start'],
    [{ start: 3, count: 2 }, 'EINVAL count'],
    [{ start: 0, count: 0xffff_ffff }, 'EINVAL count'],
    [{ start: 1, count: 0 }, 'EINVAL start'],
  ])('refuses %o: %s', (given, refusal) => {
    const host = new DoorbellHost();
    expect(host.refused(host.attached(), { ...given, iova: 0x809_0000 })).toBe(refusal);
  });

  it('clears with size 0, whatever the iova says', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x809_0000 });
    host.set(dev, { start: 2, count: 1, iova: 0x900_0000 });
    expect(host.set(dev, { start: 2, count: 1, iova: 77, size: 0 })).toBe(0);
    expect(host.get(dev, 2).iova).toBe(0x809_0000);
    expect(host.set(dev, { size: 0 })).toBe(0);
    expect(host.get(dev, 2).iova).toBe(0);
    expect(host.type1.reservations).toEqual([]);
  });

  it('clears what was never set', () => {
    const host = new DoorbellHost();
    expect(host.set(host.attached(), { start: 0, count: 4, size: 0 })).toBe(0);
  });
});

describe('rule 4: GET says the message address, never a physical one', () => {
  it('of an allocated vector: active, with the low bits of the doorbell', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x809_0000 });
    expect(host.enable(dev, 2)).toBe(2);
    expect(host.get(dev, 1)).toEqual({ iova: 0x809_0040, size: 0x1000, flags: 1 });
    expect(host.get(dev, 3)).toEqual({ iova: 0x809_0000, size: 0x1000, flags: 0 });
  });

  it('of a vector that the kernel placed: the window’s address, which Linux does not tell', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.enable(dev, 1);
    expect(host.get(dev)).toEqual({ iova: 0x800_0040, size: 0x1000, flags: 1 });
  });

  it('of a platform that bypasses: BYPASS, and no address', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    dev.iommuGroup.regions = [{ start: 0xfee0_0000, end: 0xfeef_ffff, type: 'msi' }];
    expect(host.get(dev)).toEqual({ iova: 0, size: 0x1000, flags: 2 });
    host.parent.prepares = false;
    host.join(dev);
    host.enable(dev, 1);
    expect(host.get(dev)).toEqual({ iova: 0, size: 0x1000, flags: 3 });
  });

  it('of an identity domain: BYPASS, though the vector holds the physical address', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    dev.iommuGroup.attach(new FakeDomain('identity'));
    host.enable(dev, 1);
    expect(host.entry(dev, 0).address).toBe(ITS + 0x40);
    expect(host.get(dev)).toEqual({ iova: 0, size: 0x1000, flags: 3 });
  });

  it('EINVAL start beyond the index', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    expect([host.feature(dev, GET, { start: 4 }), host.refusal()]).toEqual(['EINVAL', 'EINVAL start']);
  });
});

describe('rule 5: multiples of G, the larger of the page and the domain’s smallest page; never rounded', () => {
  it.each([
    ['4 KiB page, 4 KiB granule', 4096, [4096], 0x1000],
    ['4 KiB page, 64 KiB granule', 4096, [65536], 0x1_0000],
    ['64 KiB page, 4 KiB granule', 65536, [4096], 0x1_0000],
    ['16 KiB page, 16 KiB granule', 16384, [16384], 0x4000],
  ])('%s', (_name, pageSize, pageSizes, granule) => {
    const host = new DoorbellHost({ pageSize });
    const dev = host.attached({ msix: 4 }, new FakeDomain('unmanaged', pageSizes));
    expect(host.get(dev).size).toBe(granule);
    const iova = 0x900_0000;
    expect(host.refused(dev, { iova: iova + granule / 2, size: granule })).toBe('EINVAL iova');
    expect(host.refused(dev, { iova: iova + 0x40, size: granule })).toBe('EINVAL iova');
    expect(host.refused(dev, { iova, size: granule / 2 })).toBe('EINVAL size');
    expect(host.refused(dev, { iova, size: granule + 1 })).toBe('EINVAL size');
    expect(host.set(dev, { iova, size: granule })).toBe(0);
  });

  it('names a number that would pass', () => {
    const host = new DoorbellHost();
    host.set(host.attached(), { iova: 0x809_0040 });
    expect(host.context.refusals.last?.hint).toBe('0x0809_0000 holds it');
  });
});

describe('rule 6: wrap, aperture, 32-bit functions', () => {
  const host = new DoorbellHost();
  const dev = host.attached();

  it.each([
    [2n ** 64n - 0x1000n, 0x2000n, 'EOVERFLOW size'],
    [2n ** 64n - 1n, 2n, 'EOVERFLOW size'],
    [1n, 2n ** 64n - 1n, 'EINVAL iova'],
    [0x1000n, 2n ** 64n - 1n, 'EOVERFLOW size'],
    [2n ** 64n - 1n, 1n, 'EINVAL iova'],
    [2n ** 64n - 0x1000n, 0x1000n, 'EINVAL iova'],
    [0n, 2n ** 64n - 0x1000n, 'EINVAL size'],
    [2n ** 48n, 0x1000n, 'EINVAL iova'],
    [2n ** 48n - 0x1000n, 0x2000n, 'EINVAL size'],
    [2n ** 53n, 0x1000n, 'EINVAL iova'],
  ])('iova %i size %i: %s', (iova, size, refusal) => {
    expect(host.refused(dev, { iova, size })).toBe(refusal);
  });

  it('the last page of the aperture is fine', () => {
    expect(host.set(dev, { iova: 2n ** 48n - 0x1000n })).toBe(0);
    expect(host.set(dev, { size: 0 })).toBe(0);
  });

  it('ERANGE for a 32-bit function and an end above 4 GiB', () => {
    const narrow = host.attached({ msi: 1, address64: false });
    const index = MSI;
    expect(host.refused(narrow, { index, iova: GIB4 })).toBe('ERANGE iova');
    expect(host.refused(narrow, { index, iova: GIB4 - 0x1000, size: 0x2000 })).toBe('ERANGE iova');
    expect(host.set(narrow, { index, iova: GIB4 - 0x1000 })).toBe(0);
    expect(host.enable(narrow, 1, 'msi')).toBe(1);
    expect(host.get(narrow, 0, MSI).iova).toBe(GIB4 - 0x1000 + 0x40);
  });

  it('a 64-bit function goes above', () => {
    const wide = host.attached({ msix: 1 });
    expect(host.set(wide, { iova: 2 ** 40 })).toBe(0);
    host.enable(wide, 1);
    expect(host.entry(wide, 0).address).toBe(2 ** 40 + 0x40);
  });
});

describe('rule 7: MSI has one address', () => {
  it.each([
    [{ start: 0, count: 0 }, '0'],
    [{ start: 0, count: 4 }, '0'],
    [{ start: 0, count: 1 }, 'EINVAL count'],
    [{ start: 0, count: 3 }, 'EINVAL count'],
    [{ start: 1, count: 3 }, 'EINVAL start'],
    [{ start: 1, count: 0 }, 'EINVAL start'],
  ])('%o of four messages: %s', (given, refusal) => {
    const host = new DoorbellHost();
    const dev = host.attached({ msi: 4 });
    expect(host.refused(dev, { index: MSI, ...given, iova: 0x809_0000 })).toBe(refusal);
  });

  it('count 0 and all mean the same setting', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msi: 4 });
    host.set(dev, { index: MSI, count: 4, iova: 0x809_0000 });
    host.set(dev, { index: MSI, size: 0 });
    expect(host.get(dev, 2, MSI).iova).toBe(0);
    expect(host.type1.reservations).toEqual([]);
  });

  it('all messages go there', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msi: 4, perVectorMask: true });
    host.set(dev, { index: MSI, iova: 0x809_0000 });
    expect(host.enable(dev, 4, 'msi')).toBe(4);
    expect(dev.config.read(0x64, 4)).toBe(0x809_0040);
    expect(host.domain(dev).pages.size).toBe(1);
    expect(host.get(dev, 3, MSI)).toMatchObject({ iova: 0x809_0040, flags: 1 });
  });
});

describe('rule 8: SET reserves, allocation maps; vector, then default, then the kernel’s window', () => {
  it('maps nothing before vectors are allocated', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x809_0000 });
    expect(host.type1.reservations).toEqual([{ start: 0x809_0000, end: 0x809_0fff }]);
    expect(host.domain(dev).pages.size).toBe(0);
    host.enable(dev, 1);
    expect(host.domain(dev).lookup(0x809_0040)).toBe(ITS + 0x40);
  });

  it('follows the precedence for each vector', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 4, msi: 1 });
    host.set(dev, { iova: 0x900_0000 });
    host.set(dev, { start: 2, count: 1, iova: 0xa00_0000 });
    host.enable(dev, 4);
    expect([0, 1, 2, 3].map((i) => host.entry(dev, i).address)).toEqual([
      0x900_0040, 0x900_0040, 0xa00_0040, 0x900_0040,
    ]);
    host.msi.freeIrqVectors(dev);
    host.set(dev, { size: 0 });
    host.enable(dev, 4);
    expect([1, 2].map((i) => host.entry(dev, i).address)).toEqual([0x800_0040, 0xa00_0040]);
  });

  it('a default of one index is none of the other', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 4, msi: 1 });
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1, 'msi');
    expect(host.get(dev, 0, MSI).iova).toBe(0x800_0040);
  });
});

describe('rule 9: reserved means out of the user’s reach', () => {
  it('leaves the IOVA ranges, and comes back', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x900_0000, size: 0x2000 });
    const ranges = [
      { start: 0, end: 0x7ff_ffff },
      { start: 0x810_0000, end: 0x8ff_ffff },
      { start: 0x900_2000, end: 2 ** 48 - 1 },
    ];
    expect(host.type1.iovas.ranges).toEqual(ranges);
    host.set(dev, { size: 0 });
    expect(host.type1.iovas.ranges).toEqual([ranges[0], { start: 0x810_0000, end: 2 ** 48 - 1 }]);
  });

  it('MAP over it is EINVAL, at either end too; beside it is fine', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x900_0000, size: 0x2000 });
    expect(host.map(0x8ff_f000, 0x2000)).toBe('EINVAL');
    expect(host.map(0x900_1000, 0x2000)).toBe('EINVAL');
    expect(host.map(0x8ff_f000, 0x1000)).toBe(0);
    expect(host.map(0x900_2000, 0x1000)).toBe(0);
  });

  it('UNMAP and ALL never see it', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.map(0x8ff_f000, 0x1000);
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1);
    expect(host.unmap(0x900_0000, 0x1000)).toBe(0);
    expect(host.unmap(0, 0, VFIO_DMA_UNMAP_FLAG_ALL)).toBe(0x1000);
    expect(host.arrives(dev, 0)).toBe(ITS + 0x40);
  });
});

describe('rule 10: what is in the way', () => {
  it('a user’s map', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.map(0x900_1000, 0x2000);
    expect(host.refused(dev, { iova: 0x900_0000, size: 0x2000 })).toBe('EADDRINUSE iova');
    expect(host.refused(dev, { iova: 0x900_2000, size: 0x2000 })).toBe('EADDRINUSE iova');
    expect(host.set(dev, { iova: 0x900_0000 })).toBe(0);
    expect(host.set(dev, { iova: 0x900_3000 })).toBe(0);
  });

  it('a reserved region, but not its own SW_MSI window nor a direct-relaxable one', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    dev.iommuGroup.regions = [
      ...dev.iommuGroup.regions,
      { start: 0xa00_0000, end: 0xa00_0fff, type: 'reserved' },
      { start: 0xb00_0000, end: 0xb00_0fff, type: 'direct' },
      { start: 0xc00_0000, end: 0xc00_0fff, type: 'direct-relaxable' },
    ];
    host.join(dev);
    expect(host.refused(dev, { iova: 0x9ff_f000, size: 0x2000 })).toBe('EADDRINUSE iova');
    expect(host.refused(dev, { iova: 0xb00_0000 })).toBe('EADDRINUSE iova');
    expect(host.set(dev, { iova: 0xc00_0000 })).toBe(0);
    expect(host.set(dev, { iova: 0x809_0000 })).toBe(0);
  });

  it('a region of another group in the same container', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    const other = host.bell();
    other.iommuGroup.regions = [...other.iommuGroup.regions, { start: 0xa00_0000, end: 0xa00_0fff, type: 'reserved' }];
    host.join(other);
    expect(host.refused(dev, { iova: 0xa00_0000 })).toBe('EADDRINUSE iova');
    expect(host.set(dev, { iova: 0x809_0000 })).toBe(0);
  });

  it('a part of another reservation; the identical range is shared', () => {
    const host = new DoorbellHost();
    const [a, b] = [host.attached(), host.attached()];
    host.set(a, { iova: 0x900_0000, size: 0x2000 });
    for (const given of [
      { iova: 0x900_0000, size: 0x1000 },
      { iova: 0x900_1000, size: 0x1000 },
      { iova: 0x8ff_f000, size: 0x2000 },
      { iova: 0x8ff_f000, size: 0x4000 },
    ]) {
      expect(host.refused(b, given)).toBe('EADDRINUSE iova');
    }
    expect(host.set(b, { iova: 0x900_0000, size: 0x2000 })).toBe(0);
    expect(host.type1.reservations.length).toBe(1);
    host.set(a, { size: 0 });
    expect(host.type1.reservations.length).toBe(1);
    host.set(b, { size: 0 });
    expect(host.type1.reservations.length).toBe(0);
  });

  it('a page that the kernel’s window has already; the window steps over what is reserved', () => {
    const host = new DoorbellHost();
    const [a, b] = [host.attached(), host.attached()];
    host.set(a, { iova: 0x800_0000, size: 0x2000 });
    host.enable(b, 1);
    expect(host.entry(b, 0).address).toBe(0x800_2040);
    host.set(a, { size: 0 });
    expect(host.refused(a, { iova: 0x800_2000 })).toBe('EADDRINUSE iova');
    expect(host.set(a, { iova: 0x800_0000 })).toBe(0);
  });

  it('leaves everything as it was', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.map(0xa00_0000, 0x1000);
    host.set(dev, { iova: 0x900_0000 });
    host.set(dev, { start: 1, count: 2, iova: 0x910_0000 });
    expect(host.refused(dev, { start: 0, count: 4, iova: 0xa00_0000 })).toBe('EADDRINUSE iova');
    expect([0, 1, 2, 3].map((i) => host.get(dev, i).iova)).toEqual([0x900_0000, 0x910_0000, 0x910_0000, 0x900_0000]);
    expect(host.type1.reservations).toEqual([
      { start: 0x900_0000, end: 0x900_0fff },
      { start: 0x910_0000, end: 0x910_0fff },
    ]);
  });

  it('a range may grow over its own predecessor while no vector uses it', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x900_0000 });
    expect(host.set(dev, { iova: 0x900_0000, size: 0x2000 })).toBe(0);
    expect(host.type1.reservations).toEqual([{ start: 0x900_0000, end: 0x900_1fff }]);
  });

  it('the same in an IOAS', () => {
    const host = new DoorbellHost();
    const ioas = new FakeIoas();
    const dev = host.bell();
    const domain = ioas.hwpt();
    dev.bell.attach({ dma: ioas, domain });
    dev.iommuGroup.attach(domain);
    ioas.maps.push({ start: 0x900_0000, end: 0x900_0fff });
    expect(host.refused(dev, { iova: 0x900_0000 })).toBe('EADDRINUSE iova');
    expect(host.set(dev, { iova: 0x901_0000 })).toBe(0);
    expect(ioas.reserved).toEqual([{ start: 0x901_0000, end: 0x901_0fff }]);
  });
});
