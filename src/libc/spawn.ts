/**
 * posix_spawn(3), for children that Node must not know of: its loop would take the stops of a traced child for its end (libuv calls waitpid on each child
 * it made whenever SIGCHLD comes).
 */
import type { Libc } from './libc.ts';
import { cLibrary } from './library.ts';
import { type WaitStatus, waitStatus } from './wait-status.ts';

export type { WaitStatus };

const SIGPIPE = 13;
const SIGXFSZ = 25;
const SETSIGDEF = 0x04;
const SETSIGMASK = 0x08;
/** posix_spawnattr_t has 336 bytes and posix_spawn_file_actions_t 80 in glibc and musl, sigset_t 128. */
const ATTRIBUTES = 1024;
const ACTIONS = 512;
const SIGSET = 128;
const CLOEXEC = 0x8_0000;
const WALL = 0x4000_0000;
const EINTR = 4;

export interface SpawnOrder {
  readonly path: string;
  readonly argv: readonly string[];
  /** `NAME=value`. */
  readonly environment: readonly string[];
  /** [own descriptor, the child's]; all others that are not close-on-exec stay. */
  readonly descriptors: readonly (readonly [number, number])[];
}

/** The child's process id, or -errno. Signals are as a shell's child has them: nothing blocked, and what Node ignores (SIGPIPE, SIGXFSZ) not ignored. */
export function spawnProgram(libc: Libc, order: SpawnOrder): number {
  const library = cLibrary(libc.koffi);
  const attributes = new Uint8Array(ATTRIBUTES);
  const actions = new Uint8Array(ACTIONS);
  const pid = new Int32Array(new ArrayBuffer(128), 0, 1);
  library.func('int posix_spawnattr_init(void *attributes)')(attributes);
  library.func('int posix_spawnattr_setflags(void *attributes, short flags)')(attributes, SETSIGDEF | SETSIGMASK);
  library.func('int posix_spawnattr_setsigdefault(void *attributes, const void *set)')(
    attributes,
    signalSet(SIGPIPE, SIGXFSZ),
  );
  library.func('int posix_spawnattr_setsigmask(void *attributes, const void *set)')(attributes, signalSet());
  library.func('int posix_spawn_file_actions_init(void *actions)')(actions);
  const move = library.func('int posix_spawn_file_actions_adddup2(void *actions, int from, int to)');
  for (const [own, child] of order.descriptors) move(actions, own, child);
  const argv = stringTable(libc, order.argv);
  const environment = stringTable(libc, order.environment);
  const spawn = library.func(
    'int posix_spawn(void *pid, const char *path, void *actions, void *attributes, uint64_t argv, uint64_t environment)',
  );
  const pidBytes = new Uint8Array(pid.buffer, 0, 4);
  const error = Number(spawn(pidBytes, order.path, actions, attributes, argv.address, environment.address));
  library.func('int posix_spawn_file_actions_destroy(void *actions)')(actions);
  argv.free();
  environment.free();
  return error !== 0 ? -error : pid[0]!;
}

/** [to read from, to write to], close-on-exec, or -errno. */
export function makePipe(libc: Libc): readonly [number, number] | number {
  const ends = new Int32Array(new ArrayBuffer(128), 0, 2);
  const bytes = new Uint8Array(ends.buffer, 0, 8);
  const result = Number(cLibrary(libc.koffi).func('int pipe2(void *ends, int flags)')(bytes, CLOEXEC));
  return result < 0 ? -libc.koffi.errno() : [ends[0]!, ends[1]!];
}

function signalSet(...signals: readonly number[]): Uint8Array {
  const set = new Uint8Array(SIGSET);
  for (const signal of signals) set[(signal - 1) >> 3]! |= 1 << ((signal - 1) & 7);
  return set;
}

/** char *[] with its strings behind it, in memory that stays where it is. */
export function stringTable(libc: Libc, values: readonly string[]): { readonly address: number; free(): void } {
  const strings = values.map((value) => Buffer.from(`${value}\0`));
  const table = 8 * (values.length + 1);
  const memory = libc.allocate(strings.reduce((sum, { length }) => sum + length, table));
  if (typeof memory === 'number') throw new RangeError(`no memory for ${values.length} strings: errno ${-memory}`);
  const bytes = new Uint8Array(memory.view());
  const view = new DataView(bytes.buffer);
  let at = table;
  strings.forEach((string, i) => {
    bytes.set(string, at);
    view.setBigUint64(8 * i, BigInt(memory.address + at), true);
    at += string.length;
  });
  return { address: memory.address, free: () => memory.unmap() };
}

/** Waits for the end of a child of {@link spawnProgram}. */
export function waitForEnd(libc: Libc, pid: number): WaitStatus {
  const word = new Int32Array(new ArrayBuffer(128), 0, 1);
  const bytes = new Uint8Array(word.buffer, 0, 4);
  const wait = cLibrary(libc.koffi).func('int waitpid(int pid, void *status, int options)');
  for (;;) {
    const found = Number(wait(pid, bytes, WALL));
    if (found === pid) return waitStatus(word[0]!);
    if (libc.koffi.errno() !== EINTR) return { kind: 'exited', code: 1 };
  }
}
