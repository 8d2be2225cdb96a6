/** A process of the simulated kernel: credentials, limits, descriptors, memory. */
import type { Credentials, ResourceLimits, UserMemory } from '../ports/process.ts';
import { type File, fget, fileCount, fput } from './files.ts';
import type { RefusalLog } from './refusal.ts';

export interface Process {
  readonly pid: number;
  readonly comm: string;
  readonly credentials: Credentials;
  readonly limits: ResourceLimits;
  readonly memory: UserMemory;
  /** Pages pinned and accounted against RLIMIT_MEMLOCK. */
  lockedPages: number;
  /** Pages of it that iommufd has pinned (mm->pinned_vm), whoever is charged for them. */
  pinnedPages: number;
  /** The open file of a descriptor, or null (EBADF). */
  file(fd: number): File | null;
  /** The descriptor that `install` will give next. Absent: the lowest free one. */
  nextDescriptor?(): number;
  /** Takes the lowest free descriptor at or above `from`; -EMFILE beyond the limit. The file gains a reference. */
  install(file: File, from?: number): number;
}

/** Memory that its owner can take away as a whole, and hand to a child. */
export interface OwnedMemory extends UserMemory {
  /** exit_mmap: every mapping goes; pinned frames stay until their last pin is released. */
  unmapAll(): void;
}

/** What a new process is made with. */
export interface ProcessOptions {
  readonly comm?: string;
  readonly euid?: number;
  readonly capabilities?: Iterable<string>;
  readonly limits?: Partial<ResourceLimits>;
}

/** Capabilities of root that some check of this kernel asks for. */
export const ROOT_CAPABILITIES: readonly string[] = [
  'CAP_IPC_LOCK',
  'CAP_SYS_RAWIO',
  'CAP_SYS_ADMIN',
  'CAP_SYS_RESOURCE',
  'CAP_DAC_OVERRIDE',
];

export class SimProcess<Memory extends OwnedMemory = OwnedMemory> implements Process {
  readonly pid: number;
  readonly comm: string;
  readonly credentials: Credentials;
  readonly limits: ResourceLimits;
  readonly memory: Memory;
  lockedPages = 0;
  pinnedPages = 0;
  exited = false;
  private readonly refusals: RefusalLog;
  /** Open files by descriptor; null is a free one. */
  private readonly table: (File | null)[] = [];
  /** No descriptor below it is free. */
  private lowestFree = 0;

  constructor(pid: number, memory: Memory, refusals: RefusalLog, options: ProcessOptions = {}) {
    const euid = options.euid ?? 0;
    this.pid = pid;
    this.comm = options.comm ?? 'program';
    this.memory = memory;
    this.refusals = refusals;
    this.credentials = { euid, capabilities: new Set(options.capabilities ?? (euid === 0 ? ROOT_CAPABILITIES : [])) };
    this.limits = { memlock: options.limits?.memlock ?? Infinity, nofile: options.limits?.nofile ?? 1024 };
  }

  file(fd: number): File | null {
    return this.table[fd] ?? null;
  }

  /** Open descriptors, lowest first. */
  get descriptors(): readonly number[] {
    return this.table.flatMap((file, fd) => (file === null ? [] : [fd]));
  }

  /** A file that nobody holds yet is released when there is no room for it. */
  install(file: File, from = 0): number {
    let fd = Math.max(from, this.lowestFree);
    while ((this.table[fd] ?? null) !== null) fd += 1;
    if (from <= this.lowestFree) this.lowestFree = fd;
    if (fd >= this.limits.nofile) {
      if (fileCount(file) === 0) file.release();
      return this.refusals.refuse(
        'EMFILE',
        `all ${this.limits.nofile} file descriptors (RLIMIT_NOFILE) are in use`,
        'fd',
      );
    }
    fget(file);
    this.place(fd, file);
    return fd;
  }

  close(fd: number): number {
    const file = this.file(fd);
    if (file === null) return this.badDescriptor(fd);
    this.table[fd] = null;
    this.lowestFree = Math.min(this.lowestFree, fd);
    fput(file);
    return 0;
  }

  /** dup: the same open file under the lowest free descriptor. */
  dup(fd: number): number {
    const file = this.file(fd);
    return file === null ? this.badDescriptor(fd) : this.install(file);
  }

  /** dup2: the same open file under `target`, which is closed first. */
  dup2(fd: number, target: number): number {
    const file = this.file(fd);
    if (file === null || target < 0 || target >= this.limits.nofile)
      return this.badDescriptor(file === null ? fd : target);
    if (fd === target) return target;
    fget(file);
    const old = this.file(target);
    this.place(target, file);
    if (old !== null) fput(old);
    return target;
  }

  /** Passes an open file to another process (SCM_RIGHTS): the descriptor that it got there, or -errno. */
  send(fd: number, to: Process): number {
    const file = this.file(fd);
    return file === null ? this.badDescriptor(fd) : to.install(file);
  }

  /** fork's half of the descriptors: the child shares every open file. */
  shareFiles(child: SimProcess<Memory>): void {
    this.table.forEach((file, fd) => {
      if (file === null) return;
      fget(file);
      child.place(fd, file);
    });
  }

  /** Exit: memory first, then descriptors from the lowest, as do_exit does (exit_mm, exit_files). */
  exit(): void {
    if (this.exited) return;
    this.exited = true;
    this.memory.unmapAll();
    for (let fd = 0; fd < this.table.length; fd += 1) {
      if (this.table[fd] !== null) this.close(fd);
    }
  }

  private place(fd: number, file: File): void {
    while (this.table.length <= fd) this.table.push(null);
    this.table[fd] = file;
  }

  private badDescriptor(fd: number): number {
    return this.refusals.refuse(
      'EBADF',
      `file descriptor ${fd} is not open in process ${this.pid} (${this.comm})`,
      'fd',
    );
  }
}
