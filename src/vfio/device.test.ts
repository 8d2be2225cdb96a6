import { describe, expect, it } from 'vitest';
import { VfioError } from './error.ts';
import { caught } from './testing/caught.ts';
import { hexBytes, openScripted, scriptedHost } from './testing/scripted-host.ts';
import type { ScriptedKernel } from './testing/scripted-kernel.ts';

/** GET_REGION_INFO answers a BAR of 16 KiB, mappable but for its second page (the sparse capability), config of 256 bytes. */
function withRegions(): ScriptedKernel {
  return scriptedHost().on('VFIO_DEVICE_GET_REGION_INFO', (bytes) => {
    const view = new DataView(bytes.buffer);
    const index = view.getUint32(8, true);
    if (index === 7) {
      bytes.set(hexBytes('20000000 03000000 07000000 00000000 0010000000000000 0000000000070000'));
      return 0;
    }
    if (index !== 0) return 'EINVAL';
    // argsz 88: caps at 32: SPARSE_MMAP with 2 areas (-> 80), MSIX_MAPPABLE at 80.
    const short = '58000000 0f000000 00000000 00000000 0040000000000000 0000000000000000';
    const whole = `58000000 0f000000 00000000 20000000 0040000000000000 0000000000000000
      0100 0100 50000000 02000000 00000000 0000000000000000 0010000000000000 0020000000000000 0020000000000000
      0300 0100 00000000`;
    bytes.set(hexBytes(view.getUint32(0, true) < 88 ? short : whole));
    return 0;
  });
}

describe('a device', () => {
  it('tells what it is', () => {
    const kernel = scriptedHost();
    const device = openScripted(kernel);
    expect(device.info()).toEqual({ pci: true, resettable: true, regions: 9, irqs: 5 });
    expect(kernel.log).toEqual([`VFIO_DEVICE_GET_INFO 18000000${'00'.repeat(20)}`]);
  });

  it('resets without an argument', () => {
    const kernel = scriptedHost().on('VFIO_DEVICE_RESET', () => 0);
    const device = openScripted(kernel);
    device.reset();
    expect(kernel.log).toEqual(['VFIO_DEVICE_RESET 0']);
    kernel.on('VFIO_DEVICE_RESET', () => 'EINVAL');
    expect(() => device.reset()).toThrow('VFIO_DEVICE_RESET: EINVAL: 0000:01:00.0 has no reset of its own');
  });

  it('is of no use once closed', () => {
    const device = openScripted(withRegions());
    const bar = device.bar(0);
    device.close();
    device.close();
    for (const use of [
      () => device.info(),
      () => device.region(0),
      () => device.msix,
      () => device.reset(),
      () => bar.read32(0),
    ]) {
      expect(caught(use).code).toBe('EBADF');
    }
    expect(() => device.doorbell.probe()).toThrow('EBADF: device 0000:01:00.0 is closed');
  });
});

describe('a region', () => {
  it('is asked for twice when it has capabilities, and once after that', () => {
    const kernel = withRegions();
    const device = openScripted(kernel);
    expect(device.bar(0).info).toEqual({
      index: 0,
      size: 0x4000,
      offset: 0,
      readable: true,
      writable: true,
      mappable: true,
      sparse: [
        { offset: 0, size: 0x1000 },
        { offset: 0x2000, size: 0x2000 },
      ],
      msixMappable: true,
      type: null,
    });
    device.bar(0);
    expect(kernel.log.length).toBe(2);
    expect(caught(() => device.region(12))).toMatchObject({ code: 'EINVAL', field: 'index' });
  });

  it('reads and writes at its offset in the file, little-endian', () => {
    const kernel = withRegions();
    const { region } = openScripted(kernel).config;
    kernel.log.length = 0;
    region.write32(0x10, 0x1234_5678);
    expect(region.read32(0x10)).toBe(0x1234_5678);
    expect(region.read16(0x12)).toBe(0x1234);
    expect(region.read8(0x13)).toBe(0x12);
    region.write64(0x20, 0xffff_ffff_0000_0001n);
    expect(region.read64(0x20)).toBe(0xffff_ffff_0000_0001n);
    expect([...region.read(0x10, 2)]).toEqual([0x78, 0x56]);
    expect(kernel.log.slice(0, 2)).toEqual(['pwrite 78563412 at 0x70000000010', 'pread 4 at 0x70000000010']);
  });

  it('names an access outside of it, and one that was cut short', () => {
    const kernel = withRegions();
    const bar = openScripted(kernel).bar(0);
    expect(caught(() => bar.read32(0x3ffd))).toMatchObject({ code: 'EINVAL', field: 'offset' });
    expect(caught(() => bar.read32(-4)).code).toBe('EINVAL');
    kernel.pread = () => 2;
    expect(() => bar.read32(0)).toThrow('pread: EIO: 2 of 4 bytes at 0x0000_0000 of region 0 of 0000:01:00.0');
    kernel.pread = () => -5;
    expect(() => bar.read32(0)).toThrow('memory decoding is off');
  });

  it('maps what is mappable', () => {
    const kernel = withRegions();
    const bar = openScripted(kernel).bar(0);
    kernel.log.length = 0;
    const mapping = bar.map(0x2000);
    expect(mapping.isMemory).toBe(true);
    mapping.write32(4, 0xdead_beef);
    expect(mapping.read32(4)).toBe(0xdead_beef);
    expect(mapping.u32?.[1]).toBe(0xdead_beef);
    expect(mapping.u16?.[2]).toBe(0xbeef);
    expect(mapping.u8?.[7]).toBe(0xde);
    mapping.close();
    mapping.close();
    expect(kernel.log).toEqual(['mmap 0x2000 at 0x2000', 'munmap']);
    expect(caught(() => mapping.read32(0)).code).toBe('EBADF');
    expect(caught(() => mapping.bytes).code).toBe('EBADF');
  });

  it('names what is not', () => {
    const device = openScripted(withRegions());
    expect(() => device.bar(0).map(0x1000, 0x1000)).toThrow(
      'is not inside a mappable part of region 0 of 0000:01:00.0: 0x0000_0000 + 0x1000, 0x0000_2000 + 0x2000 (offset)',
    );
    expect(() => device.bar(0).map(0x800)).toThrow('0x0000_0800 is not a multiple of the page, 0x1000 (offset)');
    expect(() => device.bar(0).map(0, 0x8000)).toThrow('(length)');
    expect(() => device.config.region.map()).toThrow('cannot be mapped; use read32 and write32');
  });

  it('unmaps with its device', () => {
    const kernel = withRegions();
    const device = openScripted(kernel);
    device.bar(0).map(0x2000);
    kernel.log.length = 0;
    device.close();
    expect(kernel.log.slice(0, 2)).toEqual(['munmap', 'close(device)']);
  });
});

describe('configuration space', () => {
  function config() {
    const kernel = withRegions();
    const base = 7 * 2 ** 40;
    // A list: power management at 0x40, MSI-X at 0x50; extended: device serial number at 0x100.
    const put = (offset: number, text: string): void => {
      for (const [i, byte] of hexBytes(text).entries()) kernel.bytes.set(base + offset + i, byte);
    };
    put(0, 'f41a 4110 0000 1000');
    put(0x34, '40');
    put(0x40, '0150');
    put(0x50, '1100');
    put(0x100, '03000100');
    return { kernel, config: openScripted(kernel).config };
  }

  it('walks both capability lists', () => {
    const { config: space } = config();
    expect(space.vendorId).toBe(0x1af4);
    expect(space.deviceId).toBe(0x1041);
    expect(space.capabilities().map(({ id, offset }) => [id, offset])).toEqual([
      [1, 0x40],
      [0x11, 0x50],
    ]);
    expect(space.find(0x11)).toBe(0x50);
    expect(space.find(5)).toBeNull();
    expect(space.extendedCapabilities()).toEqual([{ id: 3, offset: 0x100, version: 1 }]);
    expect(space.findExtended(0x10)).toBeNull();
  });

  it('turns bus mastering and memory decoding on and off, and nothing else', () => {
    const { kernel, config: space } = config();
    space.write16(4, 0x0400);
    space.busMaster = true;
    space.memoryEnabled = true;
    expect([space.busMaster, space.memoryEnabled, space.read16(4)]).toEqual([true, true, 0x0406]);
    space.busMaster = false;
    expect(space.read16(4)).toBe(0x0402);
    expect(kernel.log.at(-1)).toBe('pread 2 at 0x70000000004');
  });
});

describe('features', () => {
  it('puts id and direction into flags, and the payload behind', () => {
    const kernel = scriptedHost().on('VFIO_DEVICE_FEATURE', (bytes) => {
      bytes.fill(0xaa, 8);
      return 0;
    });
    const feature = openScripted(kernel).feature(11);
    expect([...feature.get(Uint8Array.of(1, 2))]).toEqual([0xaa, 0xaa]);
    feature.set(Uint8Array.of(3));
    expect(feature.supports('get')).toBe(true);
    feature.supports();
    expect(kernel.log).toEqual([
      'VFIO_DEVICE_FEATURE 0a0000000b0001000102',
      'VFIO_DEVICE_FEATURE 090000000b00020003',
      'VFIO_DEVICE_FEATURE 080000000b000500',
      'VFIO_DEVICE_FEATURE 080000000b000700',
    ]);
  });

  it('is absent, or refused', () => {
    const device = openScripted(scriptedHost());
    expect(device.feature(1).supports()).toBe(false);
    const error = caught(() => device.feature(1).set());
    expect(error).toBeInstanceOf(VfioError);
    expect(error.message).toBe('VFIO_DEVICE_FEATURE: ENOTTY: this kernel does not know the request on this file');
  });
});

describe('the doorbell', () => {
  it('rounds a guest address down to the granule', () => {
    const kernel = scriptedHost().on('VFIO_DEVICE_FEATURE', () => 0);
    const { doorbell } = openScripted(kernel);
    expect(doorbell.set({ iova: 0x0809_0040 })).toEqual({ iova: 0x0809_0000, size: 0x1000 });
    // argsz 40, 0xbe11 | SET, flags 0, index MSI-X, start 0, count 0, iova, size.
    expect(kernel.log.at(-1)).toBe(
      'VFIO_DEVICE_FEATURE 2800000011be0200' +
        '00000000020000000000000000000000' +
        '0000090800000000' +
        '0010000000000000',
    );
  });

  it("takes the domain's page where that is larger than the kernel's", () => {
    const kernel = scriptedHost()
      .on('VFIO_DEVICE_FEATURE', () => 0)
      .on('VFIO_IOMMU_GET_INFO', (bytes) => {
        bytes.set(hexBytes('18000000 01000000 0000010000000000')); // 64 KiB
        return 0;
      });
    expect(openScripted(kernel).doorbell.set({ iova: 0x0809_f040n, kind: 'msi', start: 2, count: 3 })).toEqual({
      iova: 0x0809_0000,
      size: 0x1_0000,
    });
    expect(kernel.log.at(-1)).toContain('00000000010000000200000003000000' + '0000090800000000' + '0000010000000000');
  });

  it('reads the address back', () => {
    const kernel = scriptedHost().on('VFIO_DEVICE_FEATURE', (bytes) => {
      bytes.set(hexBytes('01000000 02000000 05000000 00000000 4000090800000000 0010000000000000'), 8);
      return 0;
    });
    expect(openScripted(kernel).doorbell.get(5)).toEqual({
      address: 0x0809_0040,
      size: 4096,
      active: true,
      bypass: false,
    });
    expect(kernel.log.at(-1)).toBe(
      `VFIO_DEVICE_FEATURE 2800000011be0100${'00000000020000000500000000000000'}${'00'.repeat(16)}`,
    );
  });

  it('clears with size 0, and explains ENOTTY', () => {
    const kernel = scriptedHost().on('VFIO_DEVICE_FEATURE', () => 0);
    const { doorbell } = openScripted(kernel);
    doorbell.clear();
    expect(kernel.log.at(-1)).toBe(
      `VFIO_DEVICE_FEATURE 2800000011be0200${'00000000020000000000000000000000'}${'00'.repeat(16)}`,
    );
    kernel.on('VFIO_DEVICE_FEATURE', () => 'ENOTTY');
    expect(doorbell.probe()).toBe(false);
    expect(() => doorbell.set({ iova: 0 })).toThrow('ENOTTY: this kernel does not let user space choose the doorbell');
  });
});
