import { describe, expect, it } from 'vitest';
import { Container } from './container.ts';
import { Group } from './group.ts';
import { caught } from './testing/caught.ts';
import { hexBytes, scriptedHost } from './testing/scripted-host.ts';
import type { ScriptedKernel } from './testing/scripted-kernel.ts';

function ready(kernel: ScriptedKernel): Container {
  const container = Container.open(kernel);
  Group.open(kernel, 3).setContainer(container);
  container.setIommu();
  kernel.log.length = 0;
  return container;
}

describe('opening', () => {
  it('asks in the order that Linux needs: version, group, extension, IOMMU', () => {
    const kernel = scriptedHost();
    const container = Container.open(kernel);
    const group = Group.open(kernel, 3);
    group.setContainer(container);
    container.setIommu();
    expect(container.iommu).toBe(3);
    expect(kernel.log).toEqual([
      'open(/dev/vfio/vfio) = 3',
      'VFIO_GET_API_VERSION 0',
      'open(/dev/vfio/3) = 4',
      'VFIO_GROUP_SET_CONTAINER 03000000',
      'VFIO_CHECK_EXTENSION 3',
      'VFIO_SET_IOMMU 3',
    ]);
  });

  it('takes type1 where there is no v2', () => {
    const kernel = scriptedHost().on('VFIO_CHECK_EXTENSION', (_, id) => (id === 1 ? 1 : 0));
    expect(ready(kernel).iommu).toBe(1);
  });

  it('refuses another version of the interface, and closes the file', () => {
    const kernel = scriptedHost().on('VFIO_GET_API_VERSION', () => 1);
    expect(() => Container.open(kernel)).toThrow('VFIO_GET_API_VERSION: EINVAL: the kernel speaks version 1');
    expect(kernel.openPaths).toEqual([]);
  });

  it('says why SET_IOMMU failed', () => {
    const kernel = scriptedHost().on('VFIO_SET_IOMMU', () => 'EINVAL');
    expect(() => Container.open(kernel).setIommu()).toThrow('VFIO_SET_IOMMU: EINVAL: no group is in the container yet');
    const unsafe = scriptedHost().on('VFIO_SET_IOMMU', () => 'EPERM');
    expect(() => Container.open(unsafe).setIommu()).toThrow(
      /^VFIO_SET_IOMMU: EPERM: the host’s MSIs are not isolated: .*; the parameter allow_unsafe_interrupts=1 of vfio_iommu_type1 accepts that$/,
    );
  });
});

describe('VFIO_IOMMU_GET_INFO', () => {
  // argsz 100, flags PGSIZES|CAPS, sizes, cap_offset 24; IOVA_RANGE (id 1) of two at 24 -> DMA_AVAIL (id 3) at 72 -> end.
  const whole = `64000000 03000000 0010204000000000 18000000 00000000
    0100 0100 48000000 02000000 00000000 0000000000000000 ffffff0700000000 0000100800000000 ffffffffffff0000
    0300 0100 00000000 ffff0000 0000000000000000 00000000 00000000`;

  it('asks twice when argsz says more, and reads the chain', () => {
    const kernel = scriptedHost().on('VFIO_IOMMU_GET_INFO', (bytes) => {
      const size = new DataView(bytes.buffer).getUint32(0, true);
      if (size < 100) bytes.set(hexBytes('64000000 03000000 0010204000000000 00000000 00000000'));
      else bytes.set(hexBytes(whole));
      return 0;
    });
    const info = ready(kernel).info();
    expect(kernel.log.map((line) => [line.slice(0, 28), (line.length - 20) / 2])).toEqual([
      ['VFIO_IOMMU_GET_INFO 18000000', 24],
      ['VFIO_IOMMU_GET_INFO 64000000', 100],
    ]);
    expect(info).toEqual({
      pageSizes: [0x1000, 0x20_0000, 0x4000_0000],
      iovaRanges: [
        { start: 0, end: 0x7ff_ffff },
        { start: 0x810_0000, end: 0xffff_ffff_ffff },
      ],
      dmaAvailable: 65535,
      dirtyTracking: null,
    });
  });

  it('does not follow a chain that leaves the answer, or turns in a circle', () => {
    const lie = (capOffset: string, cap: string) =>
      scriptedHost().on('VFIO_IOMMU_GET_INFO', (bytes) => {
        const answer = hexBytes(`20000000 03000000 0010000000000000 ${capOffset} 00000000 ${cap}`);
        bytes.set(answer.subarray(0, bytes.length));
        return 0;
      });
    const far = caught(() => ready(lie('1d000000', '0100010000000000')).info());
    expect(far.message).toContain('EIO: the capability chain goes to offset 29 of an answer of 32 bytes');
    const circle = caught(() => ready(lie('18000000', '0900010018000000')).info());
    expect(circle.message).toContain('EIO: the capability chain goes to offset 24');
  });

  it('gives up on an answer that grows each time', () => {
    const kernel = scriptedHost().on('VFIO_IOMMU_GET_INFO', (bytes) => {
      new DataView(bytes.buffer).setUint32(0, bytes.length + 8, true);
      return 0;
    });
    expect(caught(() => ready(kernel).info()).field).toBe('argsz');
  });
});

describe('mapping', () => {
  it('sends exactly the struct', () => {
    const kernel = scriptedHost();
    ready(kernel).map(0x10_0000, 0x7f00_1234_5000, 0x2000);
    // argsz 32, flags READ|WRITE, vaddr, iova, size.
    expect(kernel.log).toEqual([
      'VFIO_IOMMU_MAP_DMA 2000000003000000' + '005034120' + '07f0000' + '0000100000000000' + '0020000000000000',
    ]);
  });

  it("names access from the device's side", () => {
    const kernel = scriptedHost();
    const container = ready(kernel);
    container.map(0, 0x1000, 0x1000, 'r');
    container.map(0x1000, 0x1000, 0x1000, 'w');
    expect(kernel.log.map((line) => line.slice(0, 35))).toEqual([
      'VFIO_IOMMU_MAP_DMA 2000000001000000',
      'VFIO_IOMMU_MAP_DMA 2000000002000000',
    ]);
  });

  it('answers the bytes that were unmapped, which may be none', () => {
    const kernel = scriptedHost().on('VFIO_IOMMU_UNMAP_DMA', (bytes) => {
      const size = new DataView(bytes.buffer).getBigUint64(16, true);
      new DataView(bytes.buffer).setBigUint64(16, size === 0x4000n ? 0x3000n : 0n, true);
      return 0;
    });
    const container = ready(kernel);
    expect(container.unmap(0x10_0000, 0x4000)).toBe(0x3000);
    expect(container.unmap(0x10_0000, 0x1000)).toBe(0);
    expect(kernel.log[0]).toBe('VFIO_IOMMU_UNMAP_DMA 18000000000000000000100000000000' + '0040000000000000');
    container.unmapAll();
    expect(kernel.log.at(-1)).toBe('VFIO_IOMMU_UNMAP_DMA 1800000002000000' + '0000000000000000' + '0000000000000000');
  });

  it('chooses an IOVA outside of what is taken and reserved', () => {
    const kernel = scriptedHost();
    const container = ready(kernel);
    const first = container.mapDma({ length: 1 });
    const second = container.mapDma({ length: 0x2000 });
    const third = container.mapDma({ length: 0x1000, iova: 0x20_0000 });
    expect([first.iova, second.iova, third.iova]).toEqual([0x1_0000, 0x1_1000, 0x20_0000]);
    expect(first.length).toBe(0x1000);
    first.close();
    expect(container.mapDma({ length: 0x1000 }).iova).toBe(0x1_0000);
  });

  it('frees the memory of a mapping that failed', () => {
    const kernel = scriptedHost().on('VFIO_IOMMU_MAP_DMA', () => 'ENOMEM');
    const container = ready(kernel);
    expect(() => container.mapDma({ length: 4096 })).toThrow(
      'RLIMIT_MEMLOCK does not allow 0x0000_1000 bytes more (size)',
    );
    expect(kernel.log.at(-1)).toBe('free');
  });

  it('takes no address beyond 2^53', () => {
    const error = caught(() => ready(scriptedHost()).mapDma({ length: 4096, iova: 1n << 60n }));
    expect(error.message).toBe(
      'VFIO_IOMMU_MAP_DMA: EINVAL: expected an integer from 0 to 2^53 - 1, got 1152921504606846976n (iova)',
    );
  });
});

describe('why a mapping is refused, on a kernel that says only EINVAL', () => {
  const refuse = (): Container => ready(scriptedHost().on('VFIO_IOMMU_MAP_DMA', () => 'EINVAL'));

  it('names the reserved region and its group', () => {
    const error = caught(() => refuse().map(0x800_0000, 0x1000, 0x10_0000));
    expect(error.message).toBe(
      'VFIO_IOMMU_MAP_DMA: EINVAL: iova 0x0800_0000 + 0x10_0000 overlaps reserved region msi of group 3 (iova)',
    );
    expect(error).toMatchObject({ code: 'EINVAL', errno: 22, request: 'VFIO_IOMMU_MAP_DMA', field: 'iova' });
  });

  it('names the field that is not a multiple of the page', () => {
    expect(caught(() => refuse().map(0x1800, 0x1000, 0x1000)).message).toContain(
      'iova 0x0000_1800 is not a multiple of the page, 0x1000 (iova)',
    );
    expect(caught(() => refuse().map(0x1000, 0x1001, 0x1000)).field).toBe('vaddr');
    expect(caught(() => refuse().map(0x1000, 0x1000, 0)).message).toContain('size is 0');
  });

  it('tells of an earlier mapping', () => {
    const container = ready(scriptedHost().on('VFIO_IOMMU_MAP_DMA', () => 'EEXIST'));
    expect(() => container.map(0x1000, 0x1000, 0x1000)).toThrow(
      'EEXIST: iova 0x0000_1000 + 0x1000 overlaps an earlier',
    );
  });

  it('lets a kernel that knows speak first', () => {
    const kernel = scriptedHost().on('VFIO_IOMMU_MAP_DMA', () => 'EINVAL');
    const container = ready(kernel);
    kernel.reason = {
      errno: 22,
      code: 'EINVAL',
      request: 'x',
      why: 'its own reason',
      field: 'size',
      hint: 'so do that',
    };
    expect(caught(() => container.map(0, 0, 1)).message).toBe(
      'VFIO_IOMMU_MAP_DMA: EINVAL: its own reason (size); so do that',
    );
    kernel.reason = { errno: 9, code: 'EBADF', request: 'x', why: 'of an earlier request' };
    expect(caught(() => container.map(0, 0, 1)).why).toBe('a field has a value that the kernel does not take here');
  });
});

describe('closing', () => {
  it('closes devices, then mappings newest first, then groups, then itself', () => {
    const kernel = scriptedHost();
    const container = ready(kernel);
    const buffer = container.mapDma({ length: 4096, iova: 0x10_0000 });
    container.groups[0]!.openDevice('0000:01:00.0');
    container.mapDma({ length: 4096, iova: 0x20_0000 });
    kernel.log.length = 0;
    container.close();
    expect(kernel.log.map((line) => line.replace(/(UNMAP_DMA) .{16}(.{16}).*/, '$1 $2'))).toEqual([
      'close(device)',
      'VFIO_IOMMU_UNMAP_DMA 0000200000000000',
      'free',
      'VFIO_IOMMU_UNMAP_DMA 0000100000000000',
      'free',
      'close(/dev/vfio/3)',
      'close(/dev/vfio/vfio)',
    ]);
    container.close();
    buffer.close();
    expect(kernel.log.length).toBe(7);
    expect(kernel.openPaths).toEqual([]);
  });

  it('does not unmap what the kernel dropped with the last group', () => {
    const kernel = scriptedHost();
    const container = ready(kernel);
    const buffer = container.mapDma({ length: 4096 });
    container.groups[0]!.close();
    expect(container.iommu).toBeNull();
    kernel.log.length = 0;
    buffer.close();
    expect(kernel.log).toEqual(['free']);
  });

  it('refuses everything afterwards with EBADF', () => {
    const kernel = scriptedHost();
    const container = ready(kernel);
    const buffer = container.mapDma({ length: 4096 });
    container.close();
    for (const use of [
      () => container.info(),
      () => container.map(0, 0, 4096),
      () => container.mapDma({ length: 4096 }),
      () => container.unmap(0, 4096),
      () => container.hasExtension(1),
      () => buffer.bytes,
    ]) {
      expect(caught(use)).toMatchObject({ code: 'EBADF', errno: 9 });
    }
  });
});
