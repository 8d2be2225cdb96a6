/** Runs an unmodified program on a simulated host. */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import type { Host } from '../kernel/boot/boot.ts';
import { Libc, LibcUnavailable } from '../libc/index.ts';
import { InotifyUnavailable } from '../libc/inotify.ts';
import { Pidfds } from '../libc/pidfd.ts';
import { ProcessMemory } from '../libc/process-memory.ts';
import { SeccompListener } from '../libc/seccomp.ts';
import type { WaitStatus } from '../libc/spawn.ts';
import type { Refusal } from '../ports/kernel.ts';
import { ERRNO, errnoName } from '../uapi/errno.ts';
import { buildFilter, type FdRange } from './filter.ts';
import { type Launched, launch } from './launch.ts';
import { Lobby } from './lobby.ts';
import { type CallTable, callTable } from './numbers.ts';
import type { Counts, Held } from './session.ts';
import type { ServedCall, Supervisor } from './supervisor.ts';

export interface RunOptions {
  /** Answers IOMMU_TEST_CMD, as a kernel with CONFIG_IOMMUFD_TEST does: for the kernel's own selftests. */
  readonly iommufdTest?: boolean;
  /** The host surely boots: it does so when the program first touches it. Else it has booted before the program starts. */
  readonly bootWhenTouched?: boolean;
  readonly onRefusal?: (refusal: Refusal, process: string) => void;
  /** Called for each call that the simulated host answered, before the program goes on. */
  readonly onCall?: (call: ServedCall) => void;
  /** Called when a program has ended that had made calls, after what it held alone was released; `left` is what others hold. */
  readonly onEnd?: (program: string, left: Held) => void;
  readonly onError?: (error: unknown) => void;
}

export interface RunResult {
  /** The program's exit status, or null when a signal ended it. */
  readonly status: number | null;
  readonly signal: number | null;
  readonly counts: Counts;
  readonly nodes: readonly string[];
}

/** Programs cannot be run here, and what would change that. */
export class ExecUnavailable extends Error {
  override readonly name = 'ProblemError';
}

/** The program could not be started: errno of exec. */
export class ProgramNotStarted extends Error {
  override readonly name = 'ProgramNotStarted';
  /** As a shell's: 127 not found, 126 not executable. */
  readonly status: number;
  constructor(program: string, errno: number) {
    super(`cannot run ${program}: ${errno === 2 ? 'no such program' : errnoName(-errno)}`);
    this.status = errno === 2 ? 127 : 126;
  }
}

/** Numbers for simulated files: high enough that programs rarely reach them, and below the usual limit of 1,024. */
const HIGHEST = 1024;
const NUMBERS = 124;
/** Numbers below those that the program has for its own files at least. */
const LOWEST = 64;

/**
 * Starts `argv` with this process's descriptors 0 to 2, environment and directory, and serves it until it ends.
 * @throws LibcUnavailable, ExecUnavailable, ProgramNotStarted
 */
export async function runProgram(
  host: () => Host | Promise<Host>,
  argv: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const table = callTable(process.arch);
  if (table === null) throw new ExecUnavailable(`programs of ${process.arch} cannot be run: only x86-64 and arm64`);
  const libc = await loadLibc();
  const limit = softLimit();
  const range: FdRange = { first: Math.min(HIGHEST, limit) - NUMBERS, end: Math.min(HIGHEST, limit) };
  if (range.first < LOWEST) {
    throw new ExecUnavailable(
      `RLIMIT_NOFILE is ${limit}, and ${LOWEST + NUMBERS} descriptors are needed; raise it: ulimit -n 1024`,
    );
  }
  const child = launch(libc, { filter: buildFilter(table, range), descriptorLimit: limit, argv });
  const stopForwarding = forwardSignals(child);
  try {
    const run: Run = { child, libc, table, range, options, host };
    // The child starts while the simulator is loaded and the host boots.
    const supervisor = options.bootWhenTouched === true ? null : await boot(run);
    return await serve(run, supervisor, argv[0] ?? '');
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    stopForwarding();
    child.close();
  }
}

interface Run {
  readonly child: Launched;
  readonly libc: Libc;
  readonly table: CallTable;
  readonly range: FdRange;
  readonly options: RunOptions;
  readonly host: () => Host | Promise<Host>;
}

async function boot({ libc, table, range, options, host }: Run): Promise<Supervisor> {
  const { Supervisor } = await import('./supervisor.ts');
  const booted = await host();
  try {
    return new Supervisor(booted, libc, { ...options, table, range });
  } catch (error) {
    throw error instanceof InotifyUnavailable ? notAllowed('inotify_init1', error.error) : error;
  }
}

/** Takes the listener over, lets the program go, and serves it to its end. */
async function serve(run: Run, booted: Supervisor | null, program: string): Promise<RunResult> {
  const { child, libc } = run;
  const handed = child.report();
  if (handed === null || handed < 0) throw notAllowed('seccomp user notification', handed ?? -ERRNO.EIO);
  const pidfds = new Pidfds(libc);
  const pidfd = pidfds.open(child.pid);
  if (pidfd < 0) throw notAllowed('pidfd_open', pidfd);
  const listenerFd = pidfds.getfd(pidfd, handed);
  if (listenerFd < 0) throw notAllowed('pidfd_getfd', listenerFd);
  const memory = new ProcessMemory(libc).refused(child.pid);
  if (memory !== null) throw notAllowed(memory.call, memory.error);
  const listener = new SeccompListener(libc, listenerFd);
  listener.syncWakeUp();
  booted?.attach(listener, pidfd, child.pid);
  child.go();
  const supervisor = booted ?? (await firstTouch(run, listener, pidfd));
  if (supervisor === null) libc.close(listenerFd);
  else await supervisor.run();
  const end = supervisor?.session.registers.tracer.programEnd ?? child.end();
  libc.close(pidfd);
  const failed = child.report();
  if (failed !== null) throw new ProgramNotStarted(program, failed);
  if (supervisor === null) return { ...statusOf(end), counts: NOTHING, nodes: [] };
  const { counts, nodes } = supervisor.session;
  return { ...statusOf(end), counts, nodes: [...nodes] };
}

const NOTHING: Counts = { calls: 0, ioctls: 0, opens: 0, refused: 0 };

/** null: the program ended without having touched the simulated host. */
async function firstTouch(run: Run, listener: SeccompListener, pidfd: number): Promise<Supervisor | null> {
  const lobby = new Lobby(run.libc, run.table);
  if (!(await lobby.wait(listener, pidfd))) return null;
  const supervisor = await boot(run);
  supervisor.attach(listener, pidfd, run.child.pid);
  supervisor.session.counts.calls += lobby.calls;
  supervisor.serveInHand();
  return supervisor;
}

function statusOf(end: WaitStatus): Pick<RunResult, 'status' | 'signal'> {
  if (end.kind === 'exited') return { status: end.code, signal: null };
  return { status: null, signal: end.signal };
}

async function loadLibc(): Promise<Libc> {
  try {
    return await Libc.load();
  } catch (error) {
    throw error instanceof LibcUnavailable ? new ExecUnavailable(error.message) : error;
  }
}

const FORWARDED = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const;

/** The terminal signals the program itself, being of its group; what is sent to belfry alone is handed on. */
function forwardSignals(child: Launched): () => void {
  const ignore = (): void => {};
  const forward = (signal: NodeJS.Signals): void => child.kill(signal);
  process.on('SIGINT', ignore).on('SIGQUIT', ignore);
  for (const signal of FORWARDED) process.on(signal, forward);
  return () => {
    process.off('SIGINT', ignore).off('SIGQUIT', ignore);
    for (const signal of FORWARDED) process.off(signal, forward);
  };
}

/** Node raises its soft limit to the hard one at its start; who started it still has the one that the program should see, unless it set another. */
function softLimit(): number {
  return Math.min(filesLimit(process.ppid), filesLimit(process.pid));
}

function filesLimit(pid: number): number {
  try {
    const soft = Number(/^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'latin1'))?.[1]);
    return soft > 0 ? soft : HIGHEST;
  } catch {
    return HIGHEST;
  }
}

/** What belfry needs of the kernel for its own child, and since when (seccomp: SECCOMP_ADDFD_FLAG_SETFD). */
const SINCE = {
  'seccomp user notification': '5.9',
  pidfd_open: '5.3',
  pidfd_getfd: '5.6',
  process_vm_readv: '3.2',
  process_vm_writev: '3.2',
  inotify_init1: '2.6.27',
} as const;

function notAllowed(call: keyof typeof SINCE, error: number): ExecUnavailable {
  return new ExecUnavailable(`${call} is refused here (${errnoName(-error)}): ${advice(call, -error)}`);
}

/** What to change. */
function advice(call: keyof typeof SINCE, errno: number): string {
  if (call === 'inotify_init1' && errno === ERRNO.EMFILE) {
    return 'this user has as many inotify instances as it may: sysctl fs.inotify.max_user_instances=1024';
  }
  if (call === 'seccomp user notification' && errno === ERRNO.EBUSY) {
    return 'a program under belfry exec, or under another supervisor, cannot be given a second one';
  }
  if (errno === ERRNO.ENOSYS || errno === ERRNO.EINVAL) {
    return `it came with Linux ${SINCE[call]}, and this is ${release()}; a container's seccomp profile may answer so too: docker run --cap-add SYS_PTRACE, or --security-opt seccomp=unconfined`;
  }
  const container = 'in a container: docker run';
  if (call === 'seccomp user notification') return `${container} --security-opt seccomp=unconfined`;
  return `${container} --cap-add SYS_PTRACE, or --security-opt seccomp=unconfined; elsewhere kernel.yama.ptrace_scope must be 0 or 1, or a security module forbids it`;
}
