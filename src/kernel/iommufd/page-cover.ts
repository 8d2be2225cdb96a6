/** How many filled areas need each page of an object: what is charged is every page that one or more need, once. */

export interface PageSpan {
  readonly first: number;
  readonly last: number;
}

/** Pages [first, last] that the same number of spans cover. */
interface Piece extends PageSpan {
  readonly users: number;
}

/** The first index of a sorted list whose entry ends at or behind a page. */
export function firstReaching(list: readonly PageSpan[], page: number): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (list[middle].last < page) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The entries of a sorted list without overlap that touch a span: from `at`, `count` of them. */
export function touching(list: readonly PageSpan[], { first, last }: PageSpan): { at: number; count: number } {
  const at = firstReaching(list, first);
  let end = at;
  while (end < list.length && list[end].first <= last) end += 1;
  return { at, count: end - at };
}

export class PageCover {
  /** Sorted, without overlap, each with one user or more. */
  private readonly pieces: Piece[] = [];
  private total = 0;

  /** Pages that one span or more covers. */
  get pages(): number {
    return this.total;
  }

  add(span: PageSpan): void {
    this.change(span, 1);
  }

  /** @throws Error when a page of it is covered by no span */
  remove(span: PageSpan): void {
    this.change(span, -1);
  }

  private change(span: PageSpan, by: 1 | -1): void {
    const { at, count } = touching(this.pieces, span);
    const made: Piece[] = [];
    const keep = (first: number, last: number, users: number): void => {
      if (first > last || users === 0) return;
      const before = made[made.length - 1];
      if (before !== undefined && before.users === users && before.last + 1 === first)
        made[made.length - 1] = { first: before.first, last, users };
      else made.push({ first, last, users });
    };
    let next = span.first;
    for (const { first, last, users } of this.pieces.slice(at, at + count)) {
      keep(first, Math.min(last, span.first - 1), users);
      this.gap(next, Math.min(first, span.last + 1) - 1, by, keep);
      const [from, to] = [Math.max(first, span.first), Math.min(last, span.last)];
      keep(from, to, users + by);
      if (users + by === 0) this.total -= to - from + 1;
      keep(Math.max(first, span.last + 1), last, users);
      next = to + 1;
    }
    this.gap(next, span.last, by, keep);
    this.pieces.splice(at, count, ...made);
  }

  /** Pages of the span that no piece has. */
  private gap(
    first: number,
    last: number,
    by: 1 | -1,
    keep: (first: number, last: number, users: number) => void,
  ): void {
    if (first > last) return;
    if (by < 0) throw new Error('pages that no area pinned are to be unpinned');
    this.total += last - first + 1;
    keep(first, last, 1);
  }
}
