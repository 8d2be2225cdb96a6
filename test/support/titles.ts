/** The titles of all tests, read from their source: what a suite says that it tests. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface TestTitle {
  /** Relative to the project. */
  readonly file: string;
  /** `describe > describe > test`; behind it, in brackets, the table of an `it.each`. */
  readonly title: string;
}

/** Of every `*.test.ts` below the given folders. */
export function testTitles(root: string, folders: readonly string[]): TestTitle[] {
  return folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.test.ts'))
      .sort()
      .flatMap((name) => {
        const file = join(folder, name);
        return titlesIn(readFileSync(join(root, file), 'utf8')).map((title) => ({ file, title }));
      }),
  );
}

const CALL = /\b(describe|it|test)(\.each(?:<[^()]*>)?)?\(/y;

export function titlesIn(source: string): string[] {
  const open: { readonly title: string; readonly end: number }[] = [];
  const titles: string[] = [];
  for (let place = 0; place < source.length; place = afterText(source, place)) {
    CALL.lastIndex = place;
    const match = CALL.exec(source);
    if (match === null) continue;
    const start = place + match[0].length;
    let at = start;
    let table = '';
    if (match[2] !== undefined) {
      const end = closing(source, start, ')');
      table = ` [${source.slice(start, end).replace(/\s+/g, ' ')}]`;
      at = source.indexOf('(', end) + 1;
    }
    const title = literal(source, at);
    if (title === null) continue;
    while (open.length > 0 && open.at(-1)!.end < place) open.pop();
    if (match[1] === 'describe') open.push({ title: title + table, end: closing(source, at, ')') });
    else titles.push([...open.map((outer) => outer.title), title + table].join(' > '));
  }
  return titles;
}

/** The string that begins at `at`, or null when none does. */
function literal(source: string, at: number): string | null {
  const begin = at + (/^\s*/.exec(source.slice(at, at + 200))?.[0].length ?? 0);
  const end = afterText(source, begin);
  return end <= begin + 1 ? null : source.slice(begin + 1, end - 1).replace(/\\(.)/g, '$1');
}

const OPENING: Readonly<Record<string, string>> = { ')': '(', '}': '{' };

/** The place of the bracket that closes the one before `from`. */
function closing(source: string, from: number, bracket: ')' | '}'): number {
  let depth = 1;
  for (let at = from; at < source.length; at = afterText(source, at)) {
    if (source[at] === OPENING[bracket]) depth++;
    else if (source[at] === bracket && --depth === 0) return at;
  }
  return source.length;
}

/** Behind the string or comment that begins here, or behind this one character. A quote that its line does not close is none. */
function afterText(source: string, begin: number): number {
  const quote = source[begin]!;
  const upTo = (end: string): number => {
    const found = source.indexOf(end, begin + 2);
    return found < 0 ? source.length : found + end.length;
  };
  if (quote === '/' && source[begin + 1] === '/') return upTo('\n');
  if (quote === '/' && source[begin + 1] === '*') return upTo('*/');
  if (!`'"\``.includes(quote)) return begin + 1;
  for (let at = begin + 1; at < source.length; at++) {
    if (source[at] === '\\') at++;
    else if (source[at] === quote) return at + 1;
    else if (source[at] === '\n' && quote !== '`') return begin + 1;
    else if (quote === '`' && source.startsWith('${', at)) at = closing(source, at + 2, '}');
  }
  return begin + 1;
}
