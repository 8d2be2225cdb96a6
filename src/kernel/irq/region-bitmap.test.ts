import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LpiRanges } from './lpi-ranges.ts';
import { countOrder, RegionBitmap } from './region-bitmap.ts';

describe('RegionBitmap', () => {
  it('takes the lowest aligned region', () => {
    const bitmap = new RegionBitmap(12);
    expect([bitmap.take(0), bitmap.take(2), bitmap.take(1), bitmap.take(0), bitmap.take(2), bitmap.take(2)]).toEqual([
      0, 4, 2, 1, 8, -1,
    ]);
    bitmap.release(4, 2);
    expect(bitmap.take(0)).toBe(4);
    expect(bitmap.used).toBe(9);
  });

  it('knows orders', () => {
    expect([1, 2, 3, 4, 5, 32, 33].map(countOrder)).toEqual([0, 1, 2, 2, 3, 5, 6]);
  });

  it('agrees with a list of bits', () => {
    const step = fc.record({ order: fc.integer({ min: 0, max: 4 }), give: fc.boolean(), which: fc.nat(63) });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 64 }), fc.array(step, { maxLength: 40 }), (size, steps) => {
        const bitmap = new RegionBitmap(size);
        const bits = new Array<boolean>(size).fill(false);
        const held: [number, number][] = [];
        for (const { order, give, which } of steps) {
          if (give && held.length > 0) {
            const [at, of] = held.splice(which % held.length, 1)[0]!;
            bitmap.release(at, of);
            bits.fill(false, at, at + 2 ** of);
            continue;
          }
          const span = 2 ** order;
          let expected = -1;
          for (let at = 0; at + span <= size && expected < 0; at += span) {
            if (bits.slice(at, at + span).every((bit) => !bit)) expected = at;
          }
          expect(bitmap.take(order)).toBe(expected);
          if (expected < 0) continue;
          bits.fill(true, expected, expected + span);
          held.push([expected, order]);
        }
        expect(bitmap.used).toBe(bits.filter(Boolean).length);
        expect(bitmap.isEmpty).toBe(!bits.includes(true));
      }),
      { numRuns: 1000 },
    );
  });
});

describe('LpiRanges', () => {
  it('takes chunks from the lowest range that holds them, and joins what comes back', () => {
    const ranges = new LpiRanges(8192, 100);
    expect([ranges.allocate(32), ranges.allocate(32), ranges.allocate(32), ranges.allocate(8)]).toEqual([
      8192, 8224, 8256, -1,
    ]);
    ranges.release(8224, 32);
    expect(ranges.allocate(33)).toBe(-1);
    expect(ranges.allocate(4)).toBe(8224);
    ranges.release(8192, 32);
    ranges.release(8224, 4);
    ranges.release(8256, 32);
    expect(ranges.free).toBe(100);
    expect(ranges.allocate(100)).toBe(8192);
  });
});
