/**
 * /proc/PID/status of a program: what it has locked and pinned is what the real kernel and the simulated one count, together. A program reads there
 * whom iommufd charges.
 */
import { readFileSync } from 'node:fs';

const PATH = /^\/proc\/(self|thread-self|\d+)(?:\/task\/\d+)?\/status$/;
/** kB of a page. */
const PAGE_KB = 4;

/** The process or thread that a path is the status of, for a caller; null: it is another file. */
export function statusOf(path: string, caller: number): number | null {
  const name = PATH.exec(path)?.[1];
  if (name === undefined) return null;
  return name === 'self' || name === 'thread-self' ? caller : Number(name);
}

/** null: the file is gone. */
export function statusText(
  path: string,
  pages: { readonly lockedPages: number; readonly pinnedPages: number },
): string | null {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch {
    return null;
  }
  return withPages(text, pages);
}

export function withPages(
  text: string,
  { lockedPages, pinnedPages }: { readonly lockedPages: number; readonly pinnedPages: number },
): string {
  const add = (name: string, pages: number) => (line: string, kb: string) =>
    pages === 0 ? line : `${name}:\t${String(Number(kb) + pages * PAGE_KB).padStart(8)} kB`;
  return text
    .replace(/^VmLck:\s*(\d+) kB$/m, add('VmLck', lockedPages))
    .replace(/^VmPin:\s*(\d+) kB$/m, add('VmPin', pinnedPages));
}
