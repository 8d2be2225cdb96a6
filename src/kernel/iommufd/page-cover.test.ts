import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PageCover, type PageSpan, touching } from './page-cover.ts';

describe('PageCover', () => {
  it('counts a page that several spans cover once, until the last of them is gone', () => {
    const cover = new PageCover();
    cover.add({ first: 0, last: 9 });
    cover.add({ first: 5, last: 14 });
    expect(cover.pages).toBe(15);
    cover.remove({ first: 0, last: 9 });
    expect(cover.pages).toBe(10);
    cover.remove({ first: 5, last: 14 });
    expect(cover.pages).toBe(0);
  });

  it('refuses to uncover what nothing covers', () => {
    const cover = new PageCover();
    cover.add({ first: 2, last: 3 });
    expect(() => cover.remove({ first: 2, last: 4 })).toThrow('no area pinned');
  });

  it('agrees with a count for each page', () => {
    const span = fc.tuple(fc.nat(40), fc.nat(12)).map(([first, more]): PageSpan => ({ first, last: first + more }));
    fc.assert(
      fc.property(fc.array(fc.tuple(span, fc.nat()), { maxLength: 60 }), (steps) => {
        const cover = new PageCover();
        const users = new Array<number>(60).fill(0);
        const held: PageSpan[] = [];
        for (const [added, choice] of steps) {
          const remove = held.length > 0 && choice % 3 === 0;
          const each = remove ? held.splice(choice % held.length, 1)[0] : added;
          if (!remove) held.push(each);
          for (let page = each.first; page <= each.last; page++) users[page] += remove ? -1 : 1;
          if (remove) cover.remove(each);
          else cover.add(each);
          expect(cover.pages).toBe(users.filter((count) => count > 0).length);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe('touching', () => {
  it('finds the entries of a sorted list that share a page with a span', () => {
    const list = [
      { first: 0, last: 3 },
      { first: 5, last: 5 },
      { first: 8, last: 20 },
    ];
    expect(touching(list, { first: 4, last: 4 })).toEqual({ at: 1, count: 0 });
    expect(touching(list, { first: 3, last: 5 })).toEqual({ at: 0, count: 2 });
    expect(touching(list, { first: 20, last: 30 })).toEqual({ at: 2, count: 1 });
    expect(touching(list, { first: 21, last: 30 })).toEqual({ at: 3, count: 0 });
  });
});
