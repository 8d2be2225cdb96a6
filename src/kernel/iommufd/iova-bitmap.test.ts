/** struct iova_bitmap of Linux 7.2 (iommufd/iova_bitmap.c): which bits of which user pages a record sets. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type BitmapRange, IovaBitmap } from './iova-bitmap.ts';
import { allocate, iommufdHost } from './testing.ts';

const PAGE = 4096;
const BITS = PAGE * 8;

function host() {
  const { client, kernel } = iommufdHost();
  const memory = allocate(client, 8 * PAGE);
  const set = (
    range: Partial<BitmapRange>,
    records: readonly (readonly [iova: number, length: number])[],
  ): number[] => {
    memory.bytes.fill(0);
    const whole = { iova: 0n, length: BigInt(PAGE), pageSize: BigInt(PAGE), data: BigInt(memory.address), ...range };
    const bitmap = new IovaBitmap(kernel.context, client.process, whole);
    for (const [iova, length] of records) bitmap.set(iova, length);
    bitmap.release();
    return runs(memory.bytes);
  };
  return { client, memory, set, at: BigInt(memory.address) };
}

/** First and last bit of each run of ones, one behind the other. */
function runs(bytes: Uint8Array): number[] {
  const found: number[] = [];
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    if (((bytes[bit >> 3]! >>> (bit & 7)) & 1) === 0) continue;
    if (found.at(-1) === bit - 1) found[found.length - 1] = bit;
    else found.push(bit, bit);
  }
  return found;
}

describe('an iova_bitmap', () => {
  const { set, at, memory } = host();
  const pages = (count: number): bigint => BigInt(count * PAGE);

  it('counts bits from iova, in pages of the lowest bit of page_size', () => {
    expect(
      set({ iova: 0x10_0000n, length: pages(64) }, [
        [0x10_0000, PAGE],
        [0x10_7000, 2 * PAGE],
      ]),
    ).toEqual([0, 0, 7, 8]);
    expect(
      set({ length: pages(64), pageSize: 0x4000n }, [
        [0x5000, PAGE],
        [0xf000, 2 * PAGE],
      ]),
    ).toEqual([1, 1, 3, 4]);
    // 0x3000: what divides the range is not a power of two, and the shift is that of 0x1000.
    expect(set({ length: pages(6), pageSize: 0x3000n }, [[0x5000, PAGE]])).toEqual([5, 5]);
  });

  it('goes over the end of a page of the bitmap', () => {
    const data = at + BigInt(PAGE - 1);
    expect(set({ length: pages(64), data }, [[6 * PAGE, 20 * PAGE]])).toEqual([BITS - 8 + 6, BITS - 8 + 25]);
  });

  it('sets what lies behind the bitmap in the pages that are pinned for it, and no further', () => {
    // 8 bits at the page's beginning: one page is pinned.
    expect(set({ length: pages(8) }, [[0, BITS * 2 * PAGE]])).toEqual([0, BITS - 1]);
    // 8 bits at byte 16: Linux pins a second page whenever the bitmap does not begin with one.
    expect(set({ length: pages(8), data: at + 16n }, [[0, BITS * 4 * PAGE]])).toEqual([128, 2 * BITS - 1]);
  });

  it('refuses what begins behind the bitmap: nothing is set', () => {
    expect(set({ length: pages(8) }, [[8 * PAGE, PAGE]])).toEqual([]);
    expect(set({ length: pages(9) }, [[15 * PAGE, PAGE]])).toEqual([15, 15]);
  });

  it('a record whose first page is not there is lost; one whose second is, up to there', () => {
    const behind = at + BigInt(8 * PAGE);
    expect(set({ length: pages(64), data: behind }, [[0, PAGE]])).toEqual([]);
    expect(set({ length: pages(64), data: behind - 2n }, [[0, 64 * PAGE]])).toEqual([8 * BITS - 16, 8 * BITS - 1]);
    expect(
      set({ length: pages(64), data: behind - 2n }, [
        [20 * PAGE, PAGE],
        [3 * PAGE, PAGE],
      ]),
    ).toEqual([8 * BITS - 13, 8 * BITS - 13]);
  });

  it('length 0 is all of 2^64, in pages that may be as large', () => {
    expect(set({ length: 0n, pageSize: 2n ** 40n }, [[2 ** 41, PAGE]])).toEqual([2, 2]);
    expect(set({ length: 0n, pageSize: 2n ** 63n }, [[2 ** 47, PAGE]])).toEqual([0, 0]);
  });

  it('within the range any records are the bits of their pages', () => {
    const record = fc.tuple(fc.nat(1999), fc.integer({ min: 1, max: 300 }));
    fc.assert(
      fc.property(
        fc.array(record, { maxLength: 12 }),
        fc.nat(2 * PAGE),
        fc.constantFrom(0, 1, 3),
        (list, offset, shift) => {
          const records = [...list].sort((a, b) => a[0] - b[0]);
          const data = at + BigInt(offset);
          const unit = 2 ** shift;
          set(
            { length: pages(2304), pageSize: BigInt(PAGE * unit), data },
            records.map(([p, n]) => [p * PAGE, n * PAGE]),
          );
          const expected = new Uint8Array(memory.length);
          for (const [first, count] of records) {
            for (let bit = Math.floor(first / unit); bit <= Math.floor((first + count - 1) / unit); bit++) {
              const byte = offset + (bit >> 3);
              expected[byte]! |= 1 << (bit & 7);
            }
          }
          expect(Buffer.compare(memory.bytes, expected)).toBe(0);
        },
      ),
      { numRuns: 1000 },
    );
  });
});
