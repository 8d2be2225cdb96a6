import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RangeSet } from './range-set.ts';

/** The simplest thing that can be right: an array, searched from its beginning. */
class Model {
  readonly list: { start: number; end: number; value: number }[] = [];

  insert(start: number, end: number, value: number): boolean {
    if (this.overlaps(start, end)) return false;
    this.list.push({ start, end, value });
    this.list.sort((a, b) => a.start - b.start);
    return true;
  }

  overlaps(start: number, end: number): boolean {
    return this.list.some((range) => range.start < end && start < range.end);
  }

  find(point: number): number {
    return this.list.find((range) => range.start <= point && point < range.end)?.value ?? -1;
  }

  remove(start: number): number {
    const index = this.list.findIndex((range) => range.start === start);
    return index < 0 ? -1 : this.list.splice(index, 1)[0].value;
  }
}

function all(set: RangeSet, from = -1) {
  const found: { start: number; end: number; value: number }[] = [];
  for (let more = set.seek(from); more; more = set.next())
    found.push({ start: set.start, end: set.end, value: set.value });
  return found;
}

describe('a range set', () => {
  it('answers as a plain list does', () => {
    const point = fc.integer({ min: 0, max: 400 });
    const step = fc.record({
      what: fc.constantFrom('insert', 'insert', 'remove', 'query'),
      start: point,
      length: fc.integer({ min: 1, max: 12 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80, size: 'max' }), (steps) => {
        const set = new RangeSet();
        const model = new Model();
        steps.forEach(({ what, start, length }, i) => {
          if (what === 'insert')
            expect(set.insert(start, start + length, i)).toBe(model.insert(start, start + length, i));
          else if (what === 'remove') expect(set.remove(start)).toBe(model.remove(start));
          expect(set.find(start)).toBe(model.find(start));
          expect(set.overlaps(start, start + length)).toBe(model.overlaps(start, start + length));
        });
        expect(set.size).toBe(model.list.length);
        expect(all(set)).toEqual(model.list);
      }),
      { numRuns: 1000 },
    );
  });

  it('stays right through splits and merges of its chunks, in any order', () => {
    fc.assert(
      fc.property(fc.integer(), fc.constantFrom('up', 'down', 'mixed'), (seed, order) => {
        const count = 3000;
        const index = (i: number): number => {
          if (order === 'up') return i;
          return order === 'down' ? count - 1 - i : (i * 1009 + (seed & 0xffff)) % count;
        };
        const set = new RangeSet();
        for (let i = 0; i < count; i++) expect(set.insert(index(i) * 10, index(i) * 10 + 7, index(i))).toBe(true);
        expect(set.insert(15, 16, 0)).toBe(false);
        expect(set.insert(17, 21, 0)).toBe(false);
        let random = seed | 1;
        const alive = new Set(Array.from({ length: count }, (_, i) => i));
        for (let i = 0; i < count * 2; i++) {
          random = (Math.imul(random, 1664525) + 1013904223) | 0;
          const key = (random >>> 8) % count;
          expect(set.remove(key * 10)).toBe(alive.delete(key) ? key : -1);
        }
        expect(all(set).map((range) => range.value)).toEqual([...alive].sort((a, b) => a - b));
        for (const key of alive) expect(set.find(key * 10 + 6)).toBe(key);
      }),
      { numRuns: 12 },
    );
  });

  it('seeks the first range that ends after a point', () => {
    const set = new RangeSet();
    set.insert(10, 20, 1);
    set.insert(30, 40, 2);
    expect(all(set, 19).map((range) => range.value)).toEqual([1, 2]);
    expect(all(set, 20).map((range) => range.value)).toEqual([2]);
    expect(all(set, 40)).toEqual([]);
  });

  it('is exact at the end of what a double holds', () => {
    const set = new RangeSet();
    expect(set.insert(2 ** 53 - 4096, 2 ** 53, 3)).toBe(true);
    expect(set.find(2 ** 53 - 1)).toBe(3);
    expect(() => set.insert(5, 5, 0)).toThrow(RangeError);
    set.clear();
    expect([set.size, set.find(2 ** 53 - 1)]).toEqual([0, -1]);
  });
});
