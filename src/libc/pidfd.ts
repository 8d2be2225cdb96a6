/** Processes by descriptor: pidfd_open(2), pidfd_getfd(2), and where one of them may not be used. */
import type { Native } from './koffi.ts';
import type { Libc } from './libc.ts';
import { cLibrary } from './library.ts';

/** The same on every architecture (asm-generic/unistd.h). */
const NR_PIDFD_OPEN = 434;
const NR_PIDFD_GETFD = 438;

export class Pidfds {
  private readonly syscall: Native;
  private readonly errno: () => number;

  constructor(libc: Libc) {
    this.syscall = cLibrary(libc.koffi).func('int syscall(long number, long first, long second, long third)');
    this.errno = () => libc.koffi.errno();
  }

  /** A descriptor that becomes readable when the process ends, or -errno. Close-on-exec. */
  open(pid: number): number {
    return this.done(this.syscall(NR_PIDFD_OPEN, pid, 0, 0));
  }

  /** A copy of descriptor `fd` of that process, or -errno (EPERM: may not be traced). Close-on-exec. */
  getfd(pidfd: number, fd: number): number {
    return this.done(this.syscall(NR_PIDFD_GETFD, pidfd, fd, 0));
  }

  private done(result: number | bigint): number {
    return Number(result) < 0 ? -this.errno() : Number(result);
  }
}
