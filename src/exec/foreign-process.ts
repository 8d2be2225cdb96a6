/** An unmodified program as a process of the simulated kernel: its descriptors are the real ones, looked up when they are named. */
import { readFileSync } from 'node:fs';
import { type File, fileCount } from '../kernel/files.ts';
import { SimProcess } from '../kernel/process.ts';
import type { RefusalLog } from '../kernel/refusal.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { ForeignMemory } from './foreign-memory.ts';

/** What of descriptors the supervisor knows and can do. */
export interface Descriptors {
  lookup(process: ForeignProcess, fd: number): File | null;
  /** The number that the next file will get; beyond every limit when all are in use. */
  next(process: ForeignProcess): number;
  /** Puts a file into the program while one of its calls waits; a descriptor, or -errno. */
  install(process: ForeignProcess, file: File): number;
}

/** Bits of CapEff in /proc/PID/status. */
const CAPABILITIES: readonly (readonly [number, string])[] = [
  [1, 'CAP_DAC_OVERRIDE'],
  [14, 'CAP_IPC_LOCK'],
  [17, 'CAP_SYS_RAWIO'],
  [21, 'CAP_SYS_ADMIN'],
  [24, 'CAP_SYS_RESOURCE'],
];

export class ForeignProcess extends SimProcess<ForeignMemory> {
  /** Process id on the real system. */
  readonly tgid: number;
  /** Readable when it has ended. */
  readonly pidfd: number;
  private readonly descriptorsOf: Descriptors;
  private readonly log: RefusalLog;

  constructor(pid: number, pidfd: number, memory: ForeignMemory, refusals: RefusalLog, descriptors: Descriptors) {
    super(pid, memory, refusals, { comm: nameOf(memory.pid), euid: 0 });
    this.tgid = memory.pid;
    this.pidfd = pidfd;
    this.descriptorsOf = descriptors;
    this.log = refusals;
    this.refresh();
  }

  /** Looks again at what the program may change: its user, its capabilities, its limits. */
  refresh(): void {
    const status = textOf(`/proc/${this.tgid}/status`);
    const euid = Number(/^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1] ?? 0);
    const effective = BigInt(`0x${/^CapEff:\s+([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`);
    // The user who runs belfry owns the simulated host, as root owns a real one: what it takes to administer it is theirs. Locking memory is not.
    this.credentials.euid = euid === process.geteuid?.() ? 0 : euid;
    const { capabilities } = this.credentials;
    capabilities.clear();
    for (const [bit, name] of CAPABILITIES) {
      if ((effective >> BigInt(bit)) & 1n || (name !== 'CAP_IPC_LOCK' && this.credentials.euid === 0))
        capabilities.add(name);
    }
    const limits = textOf(`/proc/${this.tgid}/limits`);
    this.limits.memlock = softLimit(limits, 'Max locked memory');
    this.limits.nofile = softLimit(limits, 'Max open files');
  }

  override file(fd: number): File | null {
    return this.descriptorsOf.lookup(this, fd);
  }

  nextDescriptor(): number {
    return this.descriptorsOf.next(this);
  }

  override install(file: File): number {
    const fd = this.descriptorsOf.install(this, file);
    if (fd >= 0) return fd;
    if (fileCount(file) === 0) file.release();
    const why = fd === -ERRNO.EMFILE ? 'all numbers for simulated files are in use' : 'the real kernel refused it';
    return this.log.passOn(fd, `no descriptor could be put into the program: ${why}`);
  }
}

/** Of /proc/PID/limits. */
function softLimit(limits: string, name: string): number {
  const value = new RegExp(`^${name}\\s+(\\d+)`, 'm').exec(limits)?.[1];
  return value === undefined ? Infinity : Number(value);
}

const nameOf = (pid: number): string => textOf(`/proc/${pid}/comm`).trim() || 'program';

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
