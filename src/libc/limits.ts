/** Resource limits of another process: prlimit(2). */
import type { Libc } from './libc.ts';
import { cLibrary } from './library.ts';

/** Sets the soft limit where the hard one allows it: 0, or -errno. */
export function setSoftLimit(libc: Libc, pid: number, resource: number, soft: number): number {
  const library = cLibrary(libc.koffi);
  const look = library.func('int prlimit(int pid, int resource, uint64_t next, void *before)');
  const set = library.func('int prlimit(int pid, int resource, void *next, uint64_t before)');
  /** struct rlimit: soft@0, hard@8. */
  const words = new BigUint64Array(new ArrayBuffer(128), 0, 2);
  const bytes = new Uint8Array(words.buffer, 0, 16);
  const done = (result: number | bigint): number => (Number(result) < 0 ? -libc.koffi.errno() : 0);
  const read = done(look(pid, resource, 0, bytes));
  if (read < 0) return read;
  if (!(soft > 0) || BigInt(soft) > words[1]!) return 0;
  words[0] = BigInt(soft);
  return done(set(pid, resource, bytes, 0));
}
