import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseIova, roundDown, roundUp } from './choose-iova.ts';

describe('chooseIova', () => {
  it('takes the lowest place, past what is taken and what is not allowed', () => {
    const allowed = [
      { start: 0, end: 0x1_2fff },
      { start: 0x2_0000, end: 0x4_0fff },
    ];
    expect(chooseIova(0x3000, 0x1000, allowed, [])).toBe(0x1_0000);
    expect(chooseIova(0x1000, 0x1000, allowed, [{ start: 0x1_0000, end: 0x1_0fff }])).toBe(0x1_1000);
    expect(chooseIova(0x4000, 0x1000, allowed, [])).toBe(0x2_0000);
    expect(chooseIova(0x1_0000, 0x1_0000, allowed, [{ start: 0x2_5000, end: 0x2_5fff }])).toBe(0x3_0000);
    expect(chooseIova(0x3_0000, 0x1000, allowed, [])).toBeNull();
    expect(chooseIova(0x1000, 0x1000, [], [])).toBeNull();
  });

  it('is the first place that a search page by page finds', () => {
    const page = 0x1000;
    const pages = fc.record({ first: fc.integer({ min: 16, max: 60 }), count: fc.integer({ min: 1, max: 12 }) });
    const range = pages.map(({ first, count }) => ({ start: first * page, end: (first + count) * page - 1 }));
    const arguments_ = [
      fc.integer({ min: 1, max: 6 }),
      fc.constantFrom(1, 2, 4),
      fc.array(range, { maxLength: 3 }),
      fc.array(range, { maxLength: 4 }),
    ] as const;
    fc.assert(
      fc.property(...arguments_, (length, alignment, ranges, taken) => {
        const allowed = ranges.sort((a, b) => a.start - b.start);
        const fits = (at: number): boolean =>
          allowed.some(({ start, end }) => start <= at && at + length * page - 1 <= end) &&
          taken.every(({ start, end }) => at + length * page - 1 < start || end < at);
        const places = Array.from({ length: 80 }, (_, i) => i * page).filter((at) => at % (alignment * page) === 0);
        expect(chooseIova(length * page, alignment * page, allowed, taken)).toBe(places.find(fits) ?? null);
      }),
      { numRuns: 2000 },
    );
  });

  it('rounds', () => {
    expect([roundUp(1, 4096), roundUp(4096, 4096), roundDown(8191, 4096)]).toEqual([4096, 4096, 4096]);
  });
});
