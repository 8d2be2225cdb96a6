import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import { testUnit } from './test-host.ts';
import { attachedHost, mapDma } from './test-requests.ts';

const layout = uapi.vfio_iommu_type1_info;
/** MIGRATION 32, DMA_AVAIL 12 padded to 16, IOVA_RANGE 16 and two ranges of 16. */
const CHAIN = 32 + 16 + 16 + 2 * 16;

function info(host: ReturnType<typeof attachedHost>, argsz: number, length = argsz) {
  const bytes = new Uint8Array(Math.max(length, 24)).fill(0xee, 16);
  layout.patch(bytes, { argsz });
  const result = host.client.ioctl(host.container, uapi.VFIO_IOMMU_GET_INFO, bytes);
  return { result, bytes, value: layout.read(bytes) };
}

describe('IOMMU_GET_INFO', () => {
  it('shows the chain that Linux shows: MIGRATION, DMA_AVAIL, IOVA_RANGE', () => {
    const host = attachedHost();
    mapDma(host.client, host.container, 0, host.memory.address, 4096);
    const { result, bytes, value } = info(host, 24 + CHAIN);
    expect(result).toBe(0);
    expect(value).toEqual({ argsz: 24 + CHAIN, flags: 3, iova_pgsizes: 0x4020_1000n, cap_offset: 24, pad: 0 });
    const header = (at: number) => uapi.vfio_info_cap_header.read(bytes, at);
    expect(header(24)).toEqual({ id: 2, version: 1, next: 56 });
    expect(header(56)).toEqual({ id: 3, version: 1, next: 72 });
    expect(header(72)).toEqual({ id: 1, version: 1, next: 0 });
    expect(uapi.vfio_iommu_type1_info_cap_migration.read(bytes, 24)).toMatchObject({
      flags: 0,
      pgsize_bitmap: 0x1000n,
      max_dirty_bitmap_size: 0x1000_0000n,
    });
    expect(uapi.vfio_iommu_type1_info_dma_avail.get(bytes, 'avail', 56)).toBe(65534);
    expect(uapi.vfio_iommu_type1_info_cap_iova_range.get(bytes, 'nr_iovas', 72)).toBe(2);
    expect(uapi.vfio_iova_range.read(bytes, 104)).toEqual({ start: 0x810_0000n, end: 0xffff_ffff_ffffn });
  });

  it('never fails for lack of room: argsz says how much, cap_offset is 0, the flag is set', () => {
    const host = attachedHost();
    const { result, value, bytes } = info(host, 24 + CHAIN - 1, 24 + CHAIN);
    expect(result).toBe(0);
    expect(value).toMatchObject({ argsz: 24 + CHAIN, flags: 3, cap_offset: 0 });
    expect(bytes[24]).toBe(0xee);
  });

  it('writes no more than argsz', () => {
    const { result, bytes, value } = info(attachedHost(), 16, 24);
    expect([result, value.argsz, value.flags, bytes[16]]).toEqual([0, 24 + CHAIN, 3, 0xee]);
  });

  it('EFAULT before EINVAL: the argument, argsz', () => {
    const host = attachedHost();
    expect(host.client.ioctl(host.container, uapi.VFIO_IOMMU_GET_INFO, 0x1000)).toBe(-14);
    expect(host.client.ioctl(host.container, uapi.VFIO_IOMMU_GET_INFO, new Uint8Array(15))).toBe(-14);
    expect(info(host, 15).result).toBe(-22);
    expect(host.client.refusal()).toMatchObject({ field: 'argsz', request: 'VFIO_IOMMU_GET_INFO' });
  });

  it("folds page sizes below the kernel's into PAGE_SIZE", () => {
    const host = attachedHost({ pageSize: 65536, units: [testUnit({ pageSizes: [4096, 65536, 2 ** 21] })] });
    expect(info(host, 4096).value.iova_pgsizes).toBe(0x21_0000n);
    const small = attachedHost({ pageSize: 65536, units: [testUnit({ pageSizes: [4096, 2 ** 21] })] });
    expect(info(small, 4096).value.iova_pgsizes).toBe(0x21_0000n);
    expect(mapDma(small.client, small.container, 4096, small.memory.address, 65536)).toBe(-22);
    expect(small.client.refusal()?.field).toBe('iova');
  });
});
