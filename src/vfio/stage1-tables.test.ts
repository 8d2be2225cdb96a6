import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Stage1Tables } from './stage1-tables.ts';
import { caught } from './testing/caught.ts';

const SEED = 20260;

function tablesOf(shift: number) {
  const pages = new Map<number, Uint8Array>();
  let next = 0x10_0000;
  const tables = new Stage1Tables(shift, 48, () => {
    const page = { bytes: new Uint8Array(2 ** shift), ipa: next };
    pages.set(next, page.bytes);
    next += 2 ** shift;
    return page;
  });
  const word = (ipa: number, index: number): bigint =>
    new DataView((pages.get(ipa) as Uint8Array).buffer).getBigUint64(index * 8, true);
  return { tables, word, pages };
}

describe('tables of stage 1', () => {
  it('are four levels of 4 KiB, with the descriptors of the architecture', () => {
    const { tables, word, pages } = tablesOf(12);
    tables.map(0x7_1234_5000, 0x800_0000, 0x1000, 'device');
    expect(pages.size).toBe(4);
    // Arm ARM D8.3: a table is its address | 3; index 0 of level 0, 0x1c of level 1, 0x91 of level 2, 0x145 of level 3.
    expect(word(0x10_0000, 0)).toBe(0x10_1003n);
    expect(word(0x10_1000, 0x1c)).toBe(0x10_2003n);
    expect(word(0x10_2000, 0x91)).toBe(0x10_3003n);
    // XN and PXN; nG, AF, outer shareable, AP[1], AttrIndx 2; page.
    expect(word(0x10_3000, 0x145)).toBe(0x60_0000_0800_0e4bn);
    expect(tables.lookup(0x7_1234_5678)).toBe(0x800_0678);
    expect(tables.lookup(0x7_1234_6000)).toBe(null);
    expect(tables.lookup(2 ** 48)).toBe(null);
  });

  it('take blocks of 2 MiB and 1 GiB where both addresses allow', () => {
    const { tables, word, pages } = tablesOf(12);
    tables.map(0x4000_0000, 0x8000_0000, 0x4020_0000);
    expect(pages.size).toBe(3);
    // XN; nG, AF, inner shareable, AP[1], AttrIndx 1; block.
    expect(word(0x10_1000, 1)).toBe(0x60_0000_8000_0f45n);
    expect(word(0x10_2000, 0)).toBe(0x60_0000_c000_0f45n);
    expect(tables.lookup(0x8012_3456)).toBe(0xc012_3456);
    expect(caught(() => tables.map(0x4000_1000, 0, 0x1000))).toMatchObject({ code: 'EEXIST' });
    expect(caught(() => tables.unmap(0x4000_0000, 0x1000))).toMatchObject({ code: 'EINVAL' });
  });

  it.each([
    ['a part of a page', 0x800, 0, 0x1000],
    ['half a page', 0, 0, 0x800],
    ['nothing', 0, 0, 0],
    ['a part of a page below', 0, 0x800, 0x1000],
    ['more than 48 bits', 2 ** 48 - 0x1000, 0, 0x2000],
  ])('refuse %s', (_, iova, ipa, length) => {
    expect(caught(() => tablesOf(12).tables.map(iova, ipa, length))).toMatchObject({ code: 'EINVAL', field: 'iova' });
  });

  it.each([12, 14, 16])('mean what a list of pages means, with granules of 2^%i (1,000 random programs)', (shift) => {
    const page = 2 ** shift;
    const step = fc.record({
      map: fc.boolean(),
      at: fc.nat(40),
      to: fc.nat(40),
      pages: fc.integer({ min: 1, max: 6 }),
    });
    const base = 2 ** 34;
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
        const { tables } = tablesOf(shift);
        const model = new Map<number, number>();
        for (const { map, at, to, pages } of steps) {
          const range = Array.from({ length: pages }, (_, i) => at + i);
          if (!map) {
            const there = range.filter((index) => model.delete(index)).length;
            expect(tables.unmap(base + at * page, pages * page)).toBe(there * page);
          } else if (range.every((index) => !model.has(index))) {
            tables.map(base + at * page, to * page, pages * page);
            for (const [i, index] of range.entries()) model.set(index, (to + i) * page);
          }
          for (let index = 0; index < 48; index++) {
            if (tables.lookup(base + index * page) !== (model.get(index) ?? null)) throw new Error(`page ${index}`);
          }
        }
      }),
      { seed: SEED, numRuns: 1000 },
    );
  });
});
