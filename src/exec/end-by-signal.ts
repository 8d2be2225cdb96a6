/** How belfry ends when a signal ended its program: by the same one, so that a shell, `timeout` or a test sees what it would have seen. */
import { constants } from 'node:os';
import { Libc } from '../libc/index.ts';
import { setSoftLimit } from '../libc/limits.ts';

const RLIMIT_CORE = 4;
/** The first real-time signal that glibc leaves to programs. */
const SIGRTMIN = 34;
/** What Node ignores, or handles in a way of its own (SIGUSR1 starts its debugger). */
const NODES: ReadonlySet<NodeJS.Signals> = new Set<NodeJS.Signals>(['SIGPIPE', 'SIGUSR1', 'SIGXFSZ']);

const named = (signal: number): NodeJS.Signals | undefined =>
  (Object.keys(constants.signals) as NodeJS.Signals[]).find((name) => constants.signals[name] === signal);

/** `SIGTERM`, `SIGRTMIN+6`, or the number. */
export function signalName(signal: number): string {
  return named(signal) ?? (signal >= SIGRTMIN && signal <= 64 ? `SIGRTMIN+${signal - SIGRTMIN}` : String(signal));
}

/** Returns what a shell would say, 128 and the signal, where this process cannot end by it. */
export async function endBySignal(signal: number): Promise<number> {
  // The program has left its core. The smallest limit, not 0: a core that would go to a program's standard input is stopped by it as well (core(5)).
  setSoftLimit(await Libc.load(), process.pid, RLIMIT_CORE, 1);
  const name = named(signal);
  const nothing = (): void => {};
  // When its last listener goes, libuv gives the signal its default action back.
  if (name !== undefined && NODES.has(name)) process.on(name, nothing).off(name, nothing);
  process.kill(process.pid, signal);
  return 128 + signal;
}
