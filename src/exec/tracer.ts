/**
 * Programs whose accesses to device registers stop for the supervisor: the threads of a process that mapped registers, and of what it forks, are traced.
 * Every stop that is not such an access goes on as it would untraced.
 */
import { readdirSync, readFileSync } from 'node:fs';
import type { Libc } from '../libc/index.ts';
import { FOLLOW, Ptrace, PtraceEvent } from '../libc/ptrace.ts';
import type { WaitStatus } from '../libc/wait-status.ts';

const ESRCH = 3;
const SIGTRAP = 5;
const SIGBUS = 7;

export interface Fault {
  readonly thread: number;
  readonly signal: number;
  readonly code: number;
  readonly address: bigint;
}

export class Tracer {
  readonly ptrace: Ptrace;
  private readonly threads = new Set<number>();
  private readonly faulted: (fault: Fault) => number;
  private readonly gone: (thread: number) => void;
  /** The process that the run is about. Who traces a child of its own takes its end too: it is kept. */
  program = 0;
  programEnd: WaitStatus | null = null;
  private wakingUp = false;

  /**
   * `faulted` answers with the signal that the thread gets, 0 for none. `gone`: a thread has ended, or its process became another program, and is not
   * traced any more.
   */
  constructor(libc: Libc, faulted: (fault: Fault) => number, gone: (thread: number) => void) {
    this.ptrace = new Ptrace(libc);
    this.faulted = faulted;
    this.gone = gone;
  }

  /** Was anything ever traced? */
  get active(): boolean {
    return this.wakingUp;
  }

  /** All threads of a process from now on: 0, or -errno of the first one that may not be traced. */
  attach(pid: number): number {
    this.wakeUp();
    // A thread that is not traced yet may make others meanwhile: until none is new.
    for (let found = true; found; ) {
      found = false;
      for (const thread of threadsOf(pid)) {
        if (this.threads.has(thread)) continue;
        const result = this.ptrace.seize(thread, FOLLOW);
        if (result === -ESRCH) continue;
        // A thread that a traced one has just made is traced already.
        if (result < 0 && tracerOf(thread) !== process.pid) return result;
        this.threads.add(thread);
        found = true;
      }
    }
    return 0;
  }

  /** Serves every thread that has stopped. How many stops there were. */
  serve(): number {
    let count = 0;
    for (const thread of this.threads) {
      const status = this.ptrace.status(thread);
      if (status === null) continue;
      count += 1;
      this.stopped(thread, status);
    }
    return count;
  }

  /**
   * A thread or process whose maker was killed before it could tell of it is traced from its start, and nobody knows it: it is looked for among those
   * that wait. True: one was found.
   */
  adopt(): boolean {
    const thread = this.ptrace.waiting();
    if (thread <= 0 || this.threads.has(thread) || tracerOf(thread) !== process.pid) return false;
    this.threads.add(thread);
    return true;
  }

  /** Lets all of them go, each as it is. Blocks until they have stopped for that, which takes microseconds. */
  release(): void {
    for (const thread of this.threads) this.ptrace.interrupt(thread);
    for (const thread of [...this.threads]) {
      for (let tries = 0; this.threads.has(thread) && tries < 10_000; tries += 1) {
        const status = this.ptrace.status(thread);
        if (status === null) continue;
        if (typeof status === 'number' || status.kind !== 'stopped') this.threads.delete(thread);
        else {
          this.ptrace.detach(thread, status.event === 0 ? status.signal : 0);
          this.threads.delete(thread);
        }
      }
    }
    this.sleep();
  }

  private drop(thread: number): void {
    this.threads.delete(thread);
    this.gone(thread);
  }

  private stopped(thread: number, status: WaitStatus | number): void {
    if (typeof status === 'number') {
      // It was another thread's exec that ended it.
      this.drop(thread);
      return;
    }
    if (status.kind !== 'stopped') {
      if (thread === this.program) this.programEnd = status;
      this.drop(thread);
      return;
    }
    if (status.event === 0) this.signalled(thread, status.signal);
    else this.event(thread, status.event, status.signal);
  }

  private signalled(thread: number, signal: number): void {
    let passed = signal;
    if (signal === SIGBUS) {
      const info = this.ptrace.signalInfo(thread);
      // Codes above zero are the kernel's own: not sent by a process.
      if (info !== null && info.code > 0) passed = this.faulted({ ...info, thread });
    }
    this.ptrace.resume(thread, passed);
  }

  private event(thread: number, event: number, signal: number): void {
    switch (event) {
      case PtraceEvent.FORK:
      case PtraceEvent.VFORK:
      case PtraceEvent.CLONE: {
        const child = this.ptrace.eventMessage(thread);
        if (child > 0) this.threads.add(child);
        break;
      }
      case PtraceEvent.EXEC:
        // Its mappings are gone.
        this.ptrace.detach(thread, 0);
        this.drop(thread);
        return;
      case PtraceEvent.EXIT:
        // It ends untraced: a parent that a pidfd told of the end must find it by waitpid at once, and not only after its tracer did.
        this.ptrace.detach(thread, 0);
        this.drop(thread);
        return;
      case PtraceEvent.STOP:
        if (signal !== SIGTRAP) {
          this.ptrace.listen(thread);
          return;
        }
        break;
      default:
        break;
    }
    this.ptrace.resume(thread, 0);
  }

  /** A stop sends SIGCHLD, and Node's handler of it wakes the loop. */
  private wakeUp(): void {
    if (this.wakingUp) return;
    this.wakingUp = true;
    process.on('SIGCHLD', nothing);
  }

  private sleep(): void {
    if (!this.wakingUp) return;
    this.wakingUp = false;
    process.off('SIGCHLD', nothing);
  }
}

const nothing = (): void => {};

function threadsOf(pid: number): readonly number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map(Number);
  } catch {
    return [];
  }
}

/** Who traces a thread; 0: nobody. */
export function tracerOf(thread: number): number {
  try {
    return Number(/^TracerPid:\s+(\d+)/m.exec(readFileSync(`/proc/${thread}/status`, 'latin1'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
