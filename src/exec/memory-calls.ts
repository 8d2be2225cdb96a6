/** System calls by which a program lets go of memory, or a file of pages: what is pinned of it is taken over before. */
import type { SeccompListener } from '../libc/seccomp.ts';
import { type Handler, PROCEED } from './handler.ts';
import type { CallName } from './numbers.ts';
import type { Session } from './session.ts';

export function memoryCalls(session: Session): Partial<Record<CallName, Handler>> {
  const lose = (call: SeccompListener): number => {
    session.losing(call, call.argument(0), call.argument(1));
    return PROCEED;
  };
  const cut = (call: SeccompListener, from: number, length: number): number => {
    session.cutting(call, call.int(0), from, length);
    return PROCEED;
  };
  return {
    munmap: lose,
    mremap: lose,
    madvise: lose,
    ftruncate: (call) => cut(call, call.argument(1), Number.POSITIVE_INFINITY),
    fallocate: (call) => cut(call, call.argument(2), call.argument(3)),
  };
}
