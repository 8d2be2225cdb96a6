/** The programs under supervision: which thread belongs to which process, and who has ended. */
import { readFileSync } from 'node:fs';
import type { SimKernel } from '../kernel/kernel.ts';
import type { Libc } from '../libc/index.ts';
import type { Pidfds } from '../libc/pidfd.ts';
import { ForeignMemory, type MemoryAccess } from './foreign-memory.ts';
import { type Descriptors, ForeignProcess } from './foreign-process.ts';
import type { Waiter } from './program-eventfd.ts';

export interface TraceeNeeds {
  readonly libc: Libc;
  readonly pidfds: Pidfds;
  readonly kernel: SimKernel;
  readonly access: MemoryAccess;
  readonly descriptors: Descriptors;
  readonly waiter: Waiter;
  /** A process has ended, and what it held is being released. */
  readonly onEnd: (process: ForeignProcess) => void;
}

export class Tracees {
  private readonly needs: TraceeNeeds;
  private readonly byThread = new Map<number, ForeignProcess>();
  private readonly byPid = new Map<number, ForeignProcess>();

  constructor(needs: TraceeNeeds) {
    this.needs = needs;
  }

  /** The process of a thread whose call waits; made when it is first needed. null: it was killed meanwhile. */
  of(thread: number): ForeignProcess | null {
    const known = this.byThread.get(thread);
    if (known !== undefined) return known;
    const pid = processOf(thread);
    if (pid === null) return null;
    const process = this.byPid.get(pid) ?? this.adopt(pid);
    if (process !== null) this.byThread.set(thread, process);
    return process;
  }

  /** The process of a thread, when it has anything of the simulated host in its hands that its memory calls could touch. */
  withPins(thread: number): ForeignProcess | null {
    let any = false;
    for (const process of this.byPid.values()) if (process.memory.hasPrivatePins) any = true;
    if (!any) return null;
    const process = this.byThread.get(thread) ?? this.byPid.get(processOf(thread) ?? -1) ?? null;
    return process?.memory.hasPrivatePins === true ? process : null;
  }

  /** The process of a thread or process id, when it has been met. */
  known(id: number): ForeignProcess | null {
    return this.byThread.get(id) ?? this.byPid.get(id) ?? null;
  }

  /** Process ids of the programs. */
  get pids(): Iterable<number> {
    return this.byPid.keys();
  }

  /** Every process ends, as at the end of a run. */
  endAll(): void {
    for (const process of [...this.byPid.values()]) this.end(process);
  }

  private adopt(pid: number): ForeignProcess | null {
    const { libc, pidfds, kernel, access, descriptors, waiter } = this.needs;
    const pidfd = pidfds.open(pid);
    if (pidfd < 0) return null;
    const memory = new ForeignMemory(pid, access);
    const process = kernel.enrol((id) => new ForeignProcess(id, pidfd, memory, kernel.context.refusals, descriptors));
    this.byPid.set(pid, process);
    waiter.wait(pidfd, () => {
      this.end(process);
      libc.close(pidfd);
    });
    return process;
  }

  private end(process: ForeignProcess): void {
    if (this.byPid.get(process.tgid) !== process) return;
    this.byPid.delete(process.tgid);
    for (const [thread, of] of [...this.byThread]) if (of === process) this.byThread.delete(thread);
    this.needs.waiter.stop(process.pidfd);
    this.needs.kernel.exit(process);
    this.needs.onEnd(process);
  }
}

/** The thread group of a thread, or null when it is gone. */
function processOf(thread: number): number | null {
  try {
    const text = readFileSync(`/proc/${thread}/status`, 'latin1');
    return Number(/^Tgid:\s+(\d+)/m.exec(text)?.[1] ?? thread);
  } catch {
    return null;
  }
}
