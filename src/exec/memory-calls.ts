/** System calls by which a program lets go of memory: what is pinned of it is taken over before. */
import type { SeccompListener } from '../libc/seccomp.ts';
import { type Handler, PROCEED } from './handler.ts';
import type { CallName } from './numbers.ts';
import type { Session } from './session.ts';

export function memoryCalls(session: Session): Partial<Record<CallName, Handler>> {
  const lose = (call: SeccompListener): number => {
    session.losing(call, call.argument(0), call.argument(1));
    return PROCEED;
  };
  return { munmap: lose, mremap: lose, madvise: lose };
}
