import { describe, expect, it } from 'vitest';
import { Ioas } from './ioas.ts';
import { Iommufd } from './iommufd.ts';
import { caught } from './testing/caught.ts';
import { get64, put32, put64, scriptedIommufd } from './testing/scripted-iommufd.ts';
import type { ScriptedKernel } from './testing/scripted-kernel.ts';

function ready(kernel: ScriptedKernel): Ioas {
  const ioas = Ioas.create(Iommufd.open(kernel));
  kernel.log.length = 0;
  return ioas;
}

describe('an IOAS', () => {
  it('is made by its own size and no flags', () => {
    const kernel = scriptedIommufd();
    const ioas = Ioas.create(Iommufd.open(kernel));
    expect([ioas.id, ioas.label]).toEqual([1, 'IOAS 1']);
    expect(kernel.log).toEqual(['open(/dev/iommu) = 3', 'IOMMU_IOAS_ALLOC 0c0000000000000000000000']);
  });

  it('needs a kernel with iommufd', () => {
    const kernel = scriptedIommufd().file('/dev/iommu', 'ENOENT');
    expect(caught(() => Iommufd.open(kernel)).message).toBe(
      'open(/dev/iommu): ENOENT: this kernel has no iommufd; use a container: { via: "container" }',
    );
  });

  it('tells of its ranges and its alignment', () => {
    const ioas = ready(scriptedIommufd());
    expect(ioas.ranges()).toEqual([
      { start: 0, end: 0x7ff_ffff },
      { start: 0x810_0000, end: 0xffff_ffff_ffff },
    ]);
    expect(ioas.pageSizes()).toEqual([0x1000]);
  });

  it('asks again with the room that EMSGSIZE tells of', () => {
    const rooms: number[] = [];
    const kernel = scriptedIommufd();
    kernel.on('IOMMU_IOAS_IOVA_RANGES', (bytes) => {
      const room = new DataView(bytes.buffer).getUint32(8, true);
      rooms.push(room);
      put32(bytes, 8, 300);
      put64(bytes, 24, 0x1000n);
      if (room < 300) return 'EMSGSIZE';
      for (let i = 0; i < 300; i++) {
        put64(kernel.memory(get64(bytes, 16)), i * 16, BigInt(i) << 20n);
        put64(kernel.memory(get64(bytes, 16)), i * 16 + 8, (BigInt(i) << 20n) + 0xfffn);
      }
      return 0;
    });
    const ranges = ready(kernel).ranges();
    expect(rooms).toEqual([256, 300]);
    expect([ranges.length, ranges[299]]).toEqual([300, { start: 0x12b0_0000, end: 0x12b0_0fff }]);
    expect(kernel.log.filter((line) => line === 'free').length).toBe(2);
  });

  it('does not ask for ever', () => {
    const kernel = scriptedIommufd().on('IOMMU_IOAS_IOVA_RANGES', (bytes) => {
      put32(bytes, 8, new DataView(bytes.buffer).getUint32(8, true) + 1);
      return 'EMSGSIZE';
    });
    const error = caught(() => ready(kernel).ranges());
    expect(error).toMatchObject({ code: 'EMSGSIZE', request: 'IOMMU_IOAS_IOVA_RANGES', field: 'num_iovas' });
    expect(kernel.log.filter((line) => line !== 'free').length).toBe(4);
  });

  it('ends a range beyond 2^53 at 2^53 - 1', () => {
    const kernel = scriptedIommufd().on('IOMMU_IOAS_IOVA_RANGES', (bytes) => {
      put64(kernel.memory(get64(bytes, 16)), 8, 2n ** 64n - 1n);
      put32(bytes, 8, 1);
      put64(bytes, 24, 1n);
      return 0;
    });
    const ioas = ready(kernel);
    expect(ioas.ranges()).toEqual([{ start: 0, end: Number.MAX_SAFE_INTEGER }]);
    expect(ioas.pageSizes()).toEqual([1]);
  });
});

describe('mapping', () => {
  it('sends exactly the struct: FIXED with an IOVA, access from the device’s side', () => {
    const kernel = scriptedIommufd();
    const ioas = ready(kernel);
    expect(ioas.map(0x10_0000, 0x7f00_1234_5000, 0x2000)).toBe(0x10_0000);
    expect(ioas.map(null, 0x7f00_1234_5000, 0x2000, 'r')).toBe(0x1000);
    ioas.map(0x20_0000, 0x1000, 0x1000, 'w');
    // size 40, flags, ioas_id 1, reserved, user_va, length, iova.
    const struct = (flags: string, iova: string): string =>
      `IOMMU_IOAS_MAP 28000000${flags}0100000000000000${'005034120' + '07f0000'}0020000000000000${iova}`;
    expect(kernel.log.slice(0, 2)).toEqual([
      struct('07000000', '0000100000000000'),
      struct('04000000', '0000000000000000'),
    ]);
    expect(kernel.log[2]?.slice(0, 31)).toBe('IOMMU_IOAS_MAP 2800000003000000');
  });

  it('rounds a length up, frees what failed, and unmaps with the buffer', () => {
    const kernel = scriptedIommufd();
    const ioas = ready(kernel);
    const buffer = ioas.mapDma({ length: 1, iova: 0x30_0000 });
    expect([buffer.iova, buffer.length]).toEqual([0x30_0000, 0x1000]);
    expect(ioas.mappings).toEqual([{ start: 0x30_0000, end: 0x30_0fff }]);
    kernel.log.length = 0;
    buffer.close();
    expect(kernel.log).toEqual(['IOMMU_IOAS_UNMAP 1800000001000000' + '0000300000000000' + '0010000000000000', 'free']);
    kernel.on('IOMMU_IOAS_MAP', () => 'ENOMEM');
    expect(() => ioas.mapDma({ length: 4096 })).toThrow('RLIMIT_MEMLOCK does not allow 0x0000_1000 bytes more');
    expect(kernel.log.at(-1)).toBe('free');
    expect(caught(() => ioas.mapDma({}))).toMatchObject({ code: 'EINVAL', field: 'length' });
  });

  it('copies between two of one iommufd', () => {
    const kernel = scriptedIommufd();
    const ioas = ready(kernel);
    const other = Ioas.create(ioas.iommufd);
    kernel.log.length = 0;
    expect(other.copy(ioas, 0x1000, 0x2000, { iova: 0x5000, access: 'r' })).toBe(0x5000);
    // size 40, flags FIXED|READABLE, dst 2, src 1, length, dst_iova, src_iova.
    const head = 'IOMMU_IOAS_COPY 28000000050000000200000001000000';
    expect(kernel.log).toEqual([`${head}002000000000000000500000000000000010000000000000`]);
    kernel.on('IOMMU_IOAS_COPY', () => 'ENOENT');
    expect(caught(() => other.copy(ioas, 0x1000, 0x2000)).message).toBe(
      'IOMMU_IOAS_COPY: ENOENT: IOAS 1 does not map all of 0x0000_1000 + 0x2000 (src_iova)',
    );
    const foreign = Ioas.create(Iommufd.open(kernel));
    expect(caught(() => other.copy(foreign, 0, 0x1000)).why).toBe('IOAS 3 belongs to another iommufd');
  });

  it('allows ranges through a list, `last` inclusive', () => {
    const kernel = scriptedIommufd();
    const ioas = ready(kernel);
    let list = '';
    kernel.on('IOMMU_IOAS_ALLOW_IOVAS', (bytes) => {
      list = Buffer.from(kernel.memory(get64(bytes, 16))).toString('hex');
      return 0;
    });
    ioas.allow([{ start: 0x1000, end: 0x1fff }]);
    expect(list).toBe('0010000000000000ff1f000000000000');
    expect(kernel.log[0]?.slice(0, 55)).toBe('IOMMU_IOAS_ALLOW_IOVAS 18000000010000000100000000000000');
    kernel.on('IOMMU_IOAS_ALLOW_IOVAS', () => 'EADDRINUSE');
    expect(caught(() => ioas.allow([{ start: 0, end: 1 }])).field).toBe('allowed_iovas');
    expect(kernel.log.at(-1)).toBe('free');
  });

  it('answers the bytes that were unmapped: 0 where nothing was, an error where a mapping would be cut', () => {
    const kernel = scriptedIommufd();
    const ioas = ready(kernel);
    ioas.map(0x10_0000, 0x1000, 0x2000);
    kernel.on('IOMMU_IOAS_UNMAP', () => 'ENOENT');
    expect(ioas.unmap(0x20_0000, 0x1000)).toBe(0);
    kernel.log.length = 0;
    expect(caught(() => ioas.unmap(0x10_1000, 0x1000)).message).toBe(
      'IOMMU_IOAS_UNMAP: ENOENT: 0x0010_1000 + 0x1000 cuts the mapping 0x0010_0000-0x0010_1fff (iova); unmap all of it',
    );
    expect(kernel.log).toEqual([]);
    kernel.on('IOMMU_IOAS_UNMAP', (bytes) => {
      put64(bytes, 16, 0x2000n);
      return 0;
    });
    expect(ioas.unmap(0x10_0000, 0x2000)).toBe(0x2000);
    expect(ioas.mappings).toEqual([]);
    kernel.log.length = 0;
    expect(ioas.unmapAll()).toBe(0x2000);
    expect(kernel.log).toEqual(['IOMMU_IOAS_UNMAP 1800000001000000' + '0000000000000000' + 'ffffffffffffffff']);
  });
});

describe('why a mapping is refused, on a kernel that says only the errno', () => {
  const refuse = (code: 'EINVAL' | 'EEXIST' | 'ENOSPC' | 'EFAULT'): Ioas =>
    ready(scriptedIommufd().on('IOMMU_IOAS_MAP', () => code));

  it.each([
    ['EINVAL', 0x1800, 0x1000, 0x1000, 'iova 0x0000_1800 is not a multiple of the page, 0x1000 (iova)'],
    ['EINVAL', 0x1000, 0x1001, 0x1000, 'user_va 0x0000_1001 is not a multiple of the page, 0x1000 (user_va)'],
    ['EINVAL', 0x1000, 0x1000, 0, 'length is 0 (length)'],
    [
      'EINVAL',
      0x800_0000,
      0x1000,
      0x1000,
      'iova 0x0800_0000 + 0x1000 is not inside one allowed range (iova); allowed are ' +
        '0x0000_0000-0x07ff_ffff, 0x0810_0000-0xffff_ffff_ffff',
    ],
    ['EEXIST', 0x1000, 0x1000, 0x1000, 'iova 0x0000_1000 + 0x1000 overlaps an earlier mapping (iova)'],
    ['ENOSPC', null, 0x1000, 0x1000, 'no free IOVA for 0x1000 bytes (iova)'],
    ['EFAULT', null, 0x1000, 0x1000, 'memory at 0x0000_1000 cannot be pinned (user_va)'],
  ] as const)('%s %s', (code, iova, address, length, why) => {
    expect(caught(() => refuse(code).map(iova, address, length)).message).toBe(`IOMMU_IOAS_MAP: ${code}: ${why}`);
  });
});

describe('closing', () => {
  it('unmaps buffers newest first, then ends the IOAS, then the file', () => {
    const kernel = scriptedIommufd();
    const ioas = ready(kernel);
    const first = ioas.mapDma({ length: 4096, iova: 0x10_0000 });
    ioas.mapDma({ length: 4096, iova: 0x20_0000 });
    kernel.log.length = 0;
    ioas.iommufd.close();
    expect(kernel.log.map((line) => line.replace(/(UNMAP) .{16}(.{16}).*/, '$1 $2'))).toEqual([
      'IOMMU_IOAS_UNMAP 0000200000000000',
      'free',
      'IOMMU_IOAS_UNMAP 0000100000000000',
      'free',
      'IOMMU_DESTROY 0800000001000000',
      'close(/dev/iommu)',
    ]);
    for (const use of [() => ioas.map(0, 0, 4096), () => ioas.ranges(), () => ioas.unmapAll(), () => first.bytes]) {
      expect(caught(use)).toMatchObject({ code: 'EBADF', errno: 9 });
    }
    first.close();
    expect(kernel.openPaths).toEqual([]);
  });
});
