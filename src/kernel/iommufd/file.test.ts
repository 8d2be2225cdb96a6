import { describe, expect, it } from 'vitest';
import { errnoName } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/iommufd.ts';
import { allocate, iommufdHost, named } from './testing.ts';

/** The dispatch of iommufd main.c, one neighbouring pair of checks after the other. */
describe('dispatch', () => {
  const { client, iommufd } = iommufdHost();
  const memory = allocate(client, 8192);
  const end = memory.address + memory.length;
  const raw = (request: number, address: number) => {
    const { syscalls } = client.kernel;
    return named(syscalls.ioctl(client.process, iommufd.fd, request, BigInt(address)));
  };
  const size = (bytes: number, at = memory.address) => {
    client.process.memory.copyOut(at, new Uint8Array(Uint32Array.of(bytes).buffer));
    return at;
  };

  it('reads the size before it compares the number', () => {
    expect(raw(uapi.IOMMU_IOAS_ALLOC | 0x4000_0000, 0)).toBe('EFAULT');
    expect(raw(uapi.IOMMU_IOAS_ALLOC | 0x4000_0000, size(4))).toBe('ENOTTY');
  });

  it('compares type and direction, not the number alone, before the minimum', () => {
    expect(raw((0x3c << 8) | uapi.IOMMUFD_CMD_IOAS_ALLOC, size(4))).toBe('ENOTTY');
    expect(raw(uapi.IOMMU_IOAS_ALLOC, size(4))).toBe('EINVAL');
  });

  it('checks the minimum before it reads the struct', () => {
    expect(raw(uapi.IOMMU_IOAS_ALLOC, size(11, end - 8))).toBe('EINVAL');
    expect(raw(uapi.IOMMU_IOAS_ALLOC, size(12, end - 8))).toBe('EFAULT');
  });

  it('refuses a tail that is not zero, and takes one that is', () => {
    const bytes = new Uint8Array(32);
    uapi.iommu_ioas_alloc.patch(bytes, { size: 32, flags: 1 });
    bytes[20] = 1;
    expect(errnoName(client.ioctl(iommufd.fd, uapi.IOMMU_IOAS_ALLOC, bytes))).toBe('E2BIG');
    bytes[20] = 0;
    expect(errnoName(client.ioctl(iommufd.fd, uapi.IOMMU_IOAS_ALLOC, bytes))).toBe('EOPNOTSUPP');
    uapi.iommu_ioas_alloc.patch(bytes, { flags: 0 });
    expect(client.ioctl(iommufd.fd, uapi.IOMMU_IOAS_ALLOC, bytes)).toBe(0);
    expect(iommufd.destroy(uapi.iommu_ioas_alloc.read(bytes).out_ioas_id)).toBe(0);
  });

  it('looks at the whole tail of a struct of many pages', () => {
    const large = allocate(client, 0x4000);
    size(0x4000, large.address);
    expect(raw(uapi.IOMMU_IOAS_ALLOC, large.address)).toBe(0);
    expect(iommufd.destroy(1)).toBe(0);
    size(0x4000, large.address);
    large.bytes[0x3fff] = 1;
    expect(raw(uapi.IOMMU_IOAS_ALLOC, large.address)).toBe('E2BIG');
    size(0x4001, large.address);
    large.bytes[0x3fff] = 0;
    expect(raw(uapi.IOMMU_IOAS_ALLOC, large.address)).toBe('EFAULT');
  });

  it('zero-extends a struct of the first version: HWPT_ALLOC has 24 bytes at least, GET_HW_INFO 32', () => {
    for (const [request, minimum] of [
      [uapi.IOMMU_HWPT_ALLOC, 24],
      [uapi.IOMMU_GET_HW_INFO, 32],
      [uapi.IOMMU_VIOMMU_ALLOC, 24],
      [uapi.IOMMU_VEVENTQ_ALLOC, 28],
    ]) {
      memory.bytes.fill(0);
      expect(raw(request, size(minimum - 1))).toBe('EINVAL');
      expect(['ENOENT', 'EOPNOTSUPP']).toContain(raw(request, size(minimum)));
    }
  });

  it('knows every number from 0x80 to 0x94, and hands the others to the VFIO compatibility', () => {
    memory.bytes.fill(0);
    for (let number = 0x80; number <= 0x94; number += 1) expect(raw(0x3b00 | number, size(4))).toBe('EINVAL');
    expect(raw(0x3b95, size(4))).toBe('ENOTTY');
    expect(raw(0x3b64, 0)).toBe(0);
  });

  it('copies out no more than the user has', () => {
    const bytes = new Uint8Array(40);
    const layout = uapi.iommu_hwpt_invalidate;
    layout.patch(bytes, { size: layout.size, entry_num: 3 });
    expect(errnoName(client.ioctl(iommufd.fd, uapi.IOMMU_HWPT_INVALIDATE, bytes))).toBe('EINVAL');
    expect(layout.read(bytes).entry_num).toBe(0);
  });
});

describe('objects', () => {
  it('take the lowest free id from 1 up', () => {
    const { iommufd } = iommufdHost();
    expect([iommufd.ioas(), iommufd.ioas(), iommufd.ioas()]).toEqual([1, 2, 3]);
    expect([iommufd.destroy(2), iommufd.destroy(1)]).toEqual([0, 0]);
    expect([iommufd.ioas(), iommufd.ioas(), iommufd.ioas()]).toEqual([1, 2, 4]);
  });

  it('are not there for another file, for id 0, or a second time', () => {
    const { iommufd, client } = iommufdHost();
    iommufd.ioas();
    const other = client.open('/dev/iommu');
    expect(other).toBeGreaterThan(0);
    expect(iommufd.destroy(0)).toBe('ENOENT');
    expect(iommufd.destroy(1)).toBe(0);
    expect(iommufd.destroy(1)).toBe('ENOENT');
  });

  it('are gone again when the answer cannot be written', () => {
    const { client, iommufd, kernel } = iommufdHost();
    const vma = client.process.memory.mapFile(
      {
        pa: 0x4000_0000,
        length: 4096,
        deviceMemory: false,
        open: () => {
          throw new Error('never');
        },
        close() {},
      },
      false,
    );
    kernel.context.memory.write(0x4000_0000, uapi.iommu_ioas_alloc.bytes({ size: 12 }));
    const result = kernel.syscalls.ioctl(client.process, iommufd.fd, uapi.IOMMU_IOAS_ALLOC, BigInt(vma));
    expect(errnoName(result)).toBe('EFAULT');
    expect(iommufd.ctx.objects.size).toBe(0);
    expect(iommufd.ioas()).toBe(1);
  });
});
