import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import type { MapDomain } from './test-host.ts';
import { attachedHost, mapDma, unmapDma } from './test-requests.ts';

const PAGE = 4096;
const U64_MAX = 2n ** 64n - 1n;
const DIRTY = uapi.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
const ALL = uapi.VFIO_DMA_UNMAP_FLAG_ALL;
const VADDR = uapi.VFIO_DMA_UNMAP_FLAG_VADDR;

function setUp(v1 = false) {
  const host = attachedHost({ v1 });
  const map = (page: number, pages: number) =>
    mapDma(host.client, host.container, page * PAGE, host.memory.address, pages * PAGE);
  /** Pages unmapped, or -errno. */
  const unmap = (page: number, pages: number, flags = 0) => {
    const result = unmapDma(host.client, host.container, page * PAGE, pages * PAGE, flags);
    return result < 0 ? result : result / PAGE;
  };
  const raw = (
    fields: { argsz?: number; flags?: number; iova?: bigint | number; size?: bigint | number },
    tail: Uint8Array = new Uint8Array(0),
  ) => {
    const bytes = new Uint8Array(24 + tail.length);
    uapi.vfio_iommu_type1_dma_unmap.patch(bytes, { argsz: bytes.length, ...fields });
    bytes.set(tail, 24);
    return host.client.ioctl(host.container, uapi.VFIO_IOMMU_UNMAP_DMA, bytes);
  };
  return { ...host, map, unmap, raw, domain: host.groups[0].domain as MapDomain };
}

const bitmap = (pgsize: number, size: number): Uint8Array => uapi.vfio_bitmap.bytes({ pgsize, size, data: 0x1000 });

describe('UNMAP_DMA v2', () => {
  it('takes several whole mappings, and writes how much it was', () => {
    const { map, unmap, domain, client, type1 } = setUp();
    map(0, 2);
    map(2, 3);
    map(8, 1);
    expect(unmap(0, 16)).toBe(6);
    expect([domain.pages.size, domain.stale, client.process.lockedPages, type1.dmas.size, type1.dmaAvail]).toEqual([
      0, 0, 0, 0, 65535,
    ]);
  });

  it('unmaps nothing with success and size 0', () => {
    const { unmap } = setUp();
    expect(unmap(0, 4)).toBe(0);
  });

  it('EINVAL: a range that splits a mapping at either end; nothing is unmapped', () => {
    const { map, unmap, type1, client } = setUp();
    map(4, 4);
    expect(unmap(5, 3)).toBe(-22);
    expect(client.refusal()?.field).toBe('iova');
    expect(unmap(4, 3)).toBe(-22);
    expect(client.refusal()?.field).toBe('size');
    expect(unmap(0, 5)).toBe(-22);
    expect(unmap(6, 8)).toBe(-22);
    expect(type1.dmas.size).toBe(1);
    expect(unmap(0, 16)).toBe(4);
  });

  it('does not write the struct on an error', () => {
    const { client, container, map } = setUp();
    map(4, 4);
    const layout = uapi.vfio_iommu_type1_dma_unmap;
    const bytes = layout.bytes({ argsz: 24, iova: 5 * PAGE, size: 3 * PAGE });
    expect(client.ioctl(container, uapi.VFIO_IOMMU_UNMAP_DMA, bytes)).toBe(-22);
    expect(layout.read(bytes).size).toBe(BigInt(3 * PAGE));
  });

  it('takes everything with ALL, and only with iova and size 0', () => {
    const { map, unmap, client } = setUp();
    map(0, 1);
    map(100_000, 7);
    expect(unmap(0, 1, ALL)).toBe(-22);
    expect(unmap(1, 0, ALL)).toBe(-22);
    expect(unmap(0, 0, ALL)).toBe(8);
    expect(unmap(0, 0, ALL)).toBe(0);
    expect(client.process.lockedPages).toBe(0);
  });
});

describe('UNMAP_DMA v1', () => {
  it('takes mappings whose start lies in the range, whole', () => {
    const { map, unmap } = setUp(true);
    map(4, 4);
    map(10, 1);
    expect(unmap(2, 3)).toBe(4);
    expect(unmap(0, 16)).toBe(1);
  });

  it('takes nothing when the range begins inside of a mapping', () => {
    const { map, unmap, type1 } = setUp(true);
    map(4, 4);
    map(8, 4);
    expect(unmap(6, 6)).toBe(0);
    expect(type1.dmas.size).toBe(2);
  });
});

describe('UNMAP_DMA is checked in order', () => {
  it('EFAULT before EINVAL: the argument, argsz, unknown flags, GET_DIRTY with others', () => {
    const { client, container, raw } = setUp();
    expect(client.ioctl(container, uapi.VFIO_IOMMU_UNMAP_DMA, 0x1000)).toBe(-14);
    expect(raw({ argsz: 23, flags: 8 })).toBe(-22);
    expect(client.refusal()?.field).toBe('argsz');
    expect(raw({ flags: 8 | DIRTY | ALL })).toBe(-22);
    expect(client.refusal()?.why).toContain('unknown bits');
    expect(raw({ argsz: 24, flags: DIRTY | VADDR })).toBe(-22);
    expect(client.refusal()?.why).toContain('neither ALL nor VADDR');
  });

  it('EINVAL, EFAULT, EINVAL: argsz for the bitmap, the bitmap, its size; then the range; then that tracking is off', () => {
    const { client, raw } = setUp();
    expect(raw({ argsz: 47, flags: DIRTY, iova: 1, size: PAGE }, bitmap(PAGE, 8))).toBe(-22);
    expect(client.refusal()?.field).toBe('argsz');
    expect(raw({ argsz: 48, flags: DIRTY, iova: 1, size: PAGE })).toBe(-14);
    expect(raw({ flags: DIRTY, iova: 1, size: 65 * PAGE }, bitmap(PAGE, 8))).toBe(-22);
    expect(client.refusal()?.field).toBe('data.size');
    expect(raw({ flags: DIRTY, iova: 1, size: 64 * PAGE }, bitmap(PAGE, 8))).toBe(-22);
    expect(client.refusal()?.field).toBe('iova');
    expect(raw({ flags: DIRTY, iova: 0, size: 64 * PAGE }, bitmap(PAGE, 8))).toBe(-22);
    expect(client.refusal()?.why).toBe('dirty page tracking is off');
  });

  it('EINVAL before EOVERFLOW: iova off the page, size 0 or off the page, a wrap', () => {
    const { client, raw } = setUp();
    expect(raw({ iova: 1, size: 0 })).toBe(-22);
    expect(client.refusal()?.field).toBe('iova');
    expect(raw({ iova: 0, size: 0 })).toBe(-22);
    expect(raw({ iova: U64_MAX - 4095n, size: PAGE + 1 })).toBe(-22);
    expect(client.refusal()?.field).toBe('size');
    expect(raw({ iova: U64_MAX - 4095n, size: 2 * PAGE })).toBe(-75);
    expect(raw({ iova: U64_MAX - 4095n, size: PAGE })).toBe(0);
  });

  it('EOVERFLOW before EINVAL: a wrap of a range that begins inside of a mapping', () => {
    const { map, raw } = setUp();
    map(4, 4);
    expect(raw({ iova: 5 * PAGE, size: U64_MAX - 4095n })).toBe(-75);
  });
});

describe('UNMAP_DMA with VADDR', () => {
  it("keeps the device's mapping, and is undone as a whole when one was invalid already", () => {
    const { map, unmap, domain, type1 } = setUp();
    map(0, 1);
    map(1, 1);
    map(2, 1);
    expect(unmap(1, 1, VADDR)).toBe(1);
    expect(unmap(0, 3, VADDR)).toBe(-22);
    expect([type1.vaddrInvalidCount, domain.pages.size]).toEqual([1, 3]);
    expect(unmap(0, 1, VADDR)).toBe(1);
    expect(unmap(0, 0, ALL)).toBe(3);
    expect(type1.vaddrInvalidCount).toBe(0);
  });

  it('takes everything with ALL', () => {
    const { map, unmap, type1 } = setUp();
    map(0, 1);
    map(9, 2);
    expect(unmap(0, 0, ALL | VADDR)).toBe(3);
    expect(type1.vaddrInvalidCount).toBe(2);
  });
});
