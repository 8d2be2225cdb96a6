/** What waitpid(2) says of a process or a traced thread. */
export type WaitStatus =
  | { readonly kind: 'exited'; readonly code: number }
  | { readonly kind: 'killed'; readonly signal: number }
  /** `event` is one of PtraceEvent, or 0: the signal is about to be delivered. */
  | { readonly kind: 'stopped'; readonly signal: number; readonly event: number };

/** As WIFEXITED and its kin take it apart. */
export function waitStatus(status: number): WaitStatus {
  const low = status & 0x7f;
  if (low === 0x7f) return { kind: 'stopped', signal: (status >> 8) & 0xff, event: (status >> 16) & 0xffff };
  return low === 0 ? { kind: 'exited', code: (status >> 8) & 0xff } : { kind: 'killed', signal: low };
}
