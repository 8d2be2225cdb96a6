/** Dirty bitmaps over random mappings, against a model that keeps one boolean for each bit of user memory. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import { attachedHost, mapDma } from './test-requests.ts';

const PAGE = 4096;
const AT = 0x8_0000;
const BYTES = 48;
const PAGES = 8 * BYTES;

/** Mappings as [gap before it, pages]; then the page where the range begins, and the bitmap's first contents. */
const program = fc.record({
  mappings: fc.array(fc.tuple(fc.integer({ min: 0, max: 70 }), fc.integer({ min: 1, max: 70 })), { maxLength: 6 }),
  seed: fc.uint8Array({ minLength: BYTES, maxLength: BYTES }),
});

describe('GET_BITMAP', () => {
  const host = attachedHost();
  const { client, container, memory } = host;
  const bitmap = memory.bytes.subarray(AT, AT + BYTES);
  const dirty = (flags: number, tail: Uint8Array): number => {
    const bytes = new Uint8Array(8 + tail.length);
    uapi.vfio_iommu_type1_dirty_bitmap.patch(bytes, { argsz: bytes.length, flags });
    bytes.set(tail, 8);
    return client.ioctl(container, uapi.VFIO_IOMMU_DIRTY_PAGES, bytes);
  };
  const everything = uapi.vfio_iommu_type1_dirty_bitmap_get.bytes({
    iova: 0,
    size: PAGES * PAGE,
    bitmap: { pgsize: PAGE, size: BYTES, data: BigInt(memory.address + AT) },
  });

  it('sets what is mapped, and touches only words that a mapping reaches', () => {
    dirty(1, new Uint8Array(0));
    fc.assert(
      fc.property(program, ({ mappings, seed }) => {
        const mapped: [number, number][] = [];
        let next = 0;
        for (const [gap, pages] of mappings) {
          if (next + gap + pages > PAGES) break;
          expect(mapDma(client, container, (next + gap) * PAGE, memory.address, pages * PAGE)).toBe(0);
          mapped.push([next + gap, pages]);
          next += gap + pages;
        }
        bitmap.set(seed);
        const bits = Array.from({ length: PAGES }, (_, page) => (seed[page >> 3] >> (page & 7)) & 1);
        for (const [first, pages] of mapped) model(bits, first, pages);
        expect(dirty(4, everything)).toBe(0);
        const got = Array.from({ length: PAGES }, (_, page) => (bitmap[page >> 3] >> (page & 7)) & 1);
        const layout = uapi.vfio_iommu_type1_dma_unmap;
        client.ioctl(container, uapi.VFIO_IOMMU_UNMAP_DMA, layout.bytes({ argsz: layout.size, flags: 2 }));
        expect(got).toEqual(bits);
      }),
      { numRuns: 1000 },
    );
  });
});

/** Bit by bit: the mapping's own are set; the rest of its words become 0, but for a first word that it does not begin. */
function model(bits: number[], first: number, pages: number): void {
  const begin = first - (first % 64);
  const end = Math.ceil((first + pages) / 64) * 64;
  const kept = first % 64 === 0 ? begin : begin + 64;
  for (let page = kept; page < end; page += 1) bits[page] = 0;
  for (let page = first; page < first + pages; page += 1) bits[page] = 1;
}
