import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import type { MapDomain } from './test-host.ts';
import { attachedHost, mapDma } from './test-requests.ts';

const PAGE = 4096;
const U64_MAX = 2n ** 64n - 1n;
const START = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_START;
const STOP = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP;
const GET = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
const UNMAP_DIRTY = uapi.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
/** Where the bitmap lies in the buffer of 1 MiB. */
const AT = 0x8_0000;

function setUp(v1 = false) {
  const host = attachedHost({ v1 });
  const { client, container, memory } = host;
  const bitmap = new DataView(memory.bytes.buffer, memory.bytes.byteOffset + AT, 64);
  const dirty = (flags: number, tail: Uint8Array = new Uint8Array(0), argsz = 8 + tail.length) => {
    const bytes = new Uint8Array(8 + tail.length);
    uapi.vfio_iommu_type1_dirty_bitmap.patch(bytes, { argsz, flags });
    bytes.set(tail, 8);
    return client.ioctl(container, uapi.VFIO_IOMMU_DIRTY_PAGES, bytes);
  };
  const range = (fields: {
    iova?: bigint | number;
    size?: bigint | number;
    pgsize?: number;
    bytes?: number;
    data?: bigint;
  }) =>
    uapi.vfio_iommu_type1_dirty_bitmap_get.bytes({
      iova: fields.iova ?? 0,
      size: fields.size ?? PAGE,
      bitmap: {
        pgsize: fields.pgsize ?? PAGE,
        size: fields.bytes ?? 8,
        data: fields.data ?? BigInt(memory.address + AT),
      },
    });
  const map = (page: number, pages: number) => mapDma(client, container, page * PAGE, memory.address, pages * PAGE);
  const get = (page: number, pages: number, bytes = 16) =>
    dirty(GET, range({ iova: page * PAGE, size: pages * PAGE, bytes }));
  const unmap = (page: number, pages: number, fields: { pgsize?: number; bytes?: number; data?: bigint } = {}) => {
    const bytes = new Uint8Array(48);
    const layout = uapi.vfio_iommu_type1_dma_unmap;
    layout.patch(bytes, { argsz: 48, flags: UNMAP_DIRTY, iova: page * PAGE, size: pages * PAGE });
    const data = fields.data ?? BigInt(memory.address + AT);
    bytes.set(uapi.vfio_bitmap.bytes({ pgsize: fields.pgsize ?? PAGE, size: fields.bytes ?? 16, data }), 24);
    const result = client.ioctl(container, uapi.VFIO_IOMMU_UNMAP_DMA, bytes);
    return result < 0 ? result : Number(layout.read(bytes).size) / PAGE;
  };
  const words = (count = 2) => Array.from({ length: count }, (_, i) => bitmap.getBigUint64(8 * i, true));
  return { ...host, bitmap, dirty, range, map, get, unmap, words, domain: host.groups[0].domain as MapDomain };
}

describe('DIRTY_PAGES', () => {
  it('reports every page of what is mapped, again at each look: no IOMMU says more', () => {
    const { dirty, map, get, words } = setUp();
    map(0, 3);
    expect(dirty(START)).toBe(0);
    expect(get(0, 128)).toBe(0);
    expect(words()).toEqual([0b111n, 0n]);
    expect(get(0, 128)).toBe(0);
    expect(words()[0]).toBe(0b111n);
  });

  it('writes whole words: neighbours in a word are kept, words that no mapping touches stay as they were', () => {
    const { dirty, map, get, words, bitmap } = setUp();
    map(0, 3);
    map(10, 2);
    map(60, 8);
    bitmap.setBigUint64(16, 0x5555n, true);
    dirty(START);
    expect(get(0, 192, 24)).toBe(0);
    // The second mapping of the first word ORs what is there, the third goes 4 bits into the second word.
    expect(words(3)).toEqual([0xf000_0000_0000_0c07n, 0xfn, 0x5555n]);
  });

  it('clears what lies behind a mapping in its word, unless the mapping begins inside of that word', () => {
    const { dirty, map, get, words, bitmap } = setUp();
    map(0, 1);
    dirty(START);
    bitmap.setBigUint64(0, U64_MAX, true);
    get(0, 64);
    expect(words(1)).toEqual([1n]);
    map(66, 1);
    bitmap.setBigUint64(8, 0xf1n, true);
    get(64, 64, 8);
    bitmap.setBigUint64(0, 0xf1n, true);
    get(64, 64, 8);
    expect(words(1)).toEqual([0xf5n]);
  });

  it('counts from the iova of the range, also for mappings made while tracking is on', () => {
    const { dirty, map, get, words } = setUp();
    dirty(START);
    map(100, 2);
    expect(get(96, 64)).toBe(0);
    expect(words(1)).toEqual([0b11_0000n]);
  });

  it('START twice and STOP twice are no errors; after STOP there is no bitmap', () => {
    const { dirty, map, get, client } = setUp();
    map(0, 1);
    expect([dirty(START), dirty(START), get(0, 64), dirty(STOP), dirty(STOP)]).toEqual([0, 0, 0, 0, 0]);
    expect(get(0, 64)).toBe(-22);
    expect(client.refusal()?.why).toBe('dirty page tracking is off');
  });

  it('succeeds where nothing is mapped, and writes nothing', () => {
    const { dirty, get, words, bitmap } = setUp();
    dirty(START);
    bitmap.setBigUint64(0, 7n, true);
    expect(get(0, 64)).toBe(0);
    expect(words(1)).toEqual([7n]);
  });
});

describe('DIRTY_PAGES is checked in order', () => {
  it('EACCES for v1, before the argument is read', () => {
    const { client, container } = setUp(true);
    expect(client.ioctl(container, uapi.VFIO_IOMMU_DIRTY_PAGES, 0x1000)).toBe(-13);
  });

  it('EFAULT, EINVAL: the argument, argsz, unknown flags, not exactly one', () => {
    const { client, container, dirty } = setUp();
    expect(client.ioctl(container, uapi.VFIO_IOMMU_DIRTY_PAGES, 0x1000)).toBe(-14);
    expect(dirty(8, undefined, 7)).toBe(-22);
    expect(client.refusal()?.field).toBe('argsz');
    expect(dirty(8 | START | STOP)).toBe(-22);
    expect(client.refusal()?.why).toContain('unknown bits');
    for (const flags of [0, START | STOP, START | GET, STOP | GET]) {
      expect(dirty(flags)).toBe(-22);
      expect(client.refusal()?.why).toContain('exactly one');
    }
  });

  it('GET_BITMAP: EINVAL argsz, EFAULT range, EOVERFLOW, then EINVAL bitmap size', () => {
    const { client, container, dirty, range } = setUp();
    const cut = new Uint8Array(8);
    uapi.vfio_iommu_type1_dirty_bitmap.patch(cut, { argsz: 47, flags: GET });
    expect(client.ioctl(container, uapi.VFIO_IOMMU_DIRTY_PAGES, cut)).toBe(-22);
    expect(client.refusal()?.field).toBe('argsz');
    uapi.vfio_iommu_type1_dirty_bitmap.patch(cut, { argsz: 48, flags: GET });
    expect(client.ioctl(container, uapi.VFIO_IOMMU_DIRTY_PAGES, cut)).toBe(-14);
    expect(dirty(GET, range({ iova: U64_MAX, size: 2 * PAGE, bytes: 0 }))).toBe(-75);
    expect(dirty(GET, range({ iova: 1, size: 65 * PAGE, bytes: 8, pgsize: PAGE }))).toBe(-22);
    expect(client.refusal()?.field).toBe('data.bitmap.size');
    expect(dirty(GET, range({ bytes: 0 }))).toBe(-22);
    expect(dirty(GET, range({ bytes: 2 ** 28 + 8 }))).toBe(-22);
    expect(dirty(GET, range({ size: 0, pgsize: 2 * PAGE }))).toBe(-22);
    expect(client.refusal()?.field).toBe('data.bitmap.size');
    expect(dirty(GET, range({ bytes: 0, data: U64_MAX }))).toBe(-22);
    expect(client.refusal()?.field).toBe('data.bitmap.data');
  });

  it('GET_BITMAP: EINVAL pgsize, iova, size, tracking off, a range that splits a mapping; EFAULT the bitmap', () => {
    const { client, dirty, range, map } = setUp();
    expect(dirty(GET, range({ iova: 1, size: 2 * PAGE, pgsize: 2 * PAGE }))).toBe(-22);
    expect(client.refusal()?.field).toBe('data.bitmap.pgsize');
    expect(dirty(GET, range({ iova: 1, size: PAGE + 1 }))).toBe(-22);
    expect(client.refusal()?.field).toBe('data.iova');
    expect(dirty(GET, range({ iova: 0, size: PAGE + 1 }))).toBe(-22);
    expect(client.refusal()?.field).toBe('data.size');
    map(4, 4);
    expect(dirty(GET, range({ iova: 5 * PAGE, size: PAGE }))).toBe(-22);
    expect(client.refusal()?.why).toBe('dirty page tracking is off');
    dirty(START);
    expect(dirty(GET, range({ iova: 5 * PAGE, size: 3 * PAGE, data: 0x1000n }))).toBe(-22);
    expect(client.refusal()?.field).toBe('data.iova');
    expect(dirty(GET, range({ iova: 4 * PAGE, size: 3 * PAGE, data: 0x1000n }))).toBe(-22);
    expect(client.refusal()?.field).toBe('data.size');
    expect(dirty(GET, range({ iova: 4 * PAGE, size: 4 * PAGE, data: 0x1000n }))).toBe(-14);
  });
});

describe('UNMAP_DMA with GET_DIRTY_BITMAP', () => {
  it('reports each mapping and takes it', () => {
    const { dirty, map, unmap, words, domain } = setUp();
    map(0, 2);
    map(6, 1);
    dirty(START);
    expect(unmap(0, 64)).toBe(3);
    expect([words(1), domain.pages.size]).toEqual([[0b100_0011n], 0]);
  });

  it('EINVAL: the bitmap, then that tracking is off, then pgsize, then a range that splits', () => {
    const { client, dirty, map, unmap } = setUp();
    map(4, 4);
    expect(unmap(5, 3, { bytes: 0 })).toBe(-22);
    expect(client.refusal()?.field).toBe('data.size');
    expect(unmap(5, 3, { pgsize: 2048 })).toBe(-22);
    expect(client.refusal()?.why).toBe('dirty page tracking is off');
    dirty(START);
    expect(unmap(5, 3, { pgsize: 2048 })).toBe(-22);
    expect(client.refusal()?.field).toBe('data.pgsize');
    expect(unmap(5, 3)).toBe(-22);
    expect(client.refusal()?.field).toBe('iova');
  });

  it('EFAULT: the mapping whose bitmap cannot be written stays, those before it are gone', () => {
    const { dirty, map, unmap, domain, memory } = setUp();
    map(0, 1);
    map(64, 1);
    dirty(START);
    // The first word is the last of the buffer, the second lies behind it.
    const data = BigInt(memory.address + memory.length - 8);
    expect(unmap(0, 128, { data })).toBe(-14);
    expect([...domain.pages.keys()]).toEqual([64 * PAGE]);
  });
});
