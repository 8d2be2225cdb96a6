/**
 * A program before it has touched the simulated host: no file of it is open, so no call is the simulated kernel's but one that names a path which may be.
 * Until then the host need not be booted.
 */
import { Epoll } from '../libc/epoll.ts';
import type { Libc } from '../libc/index.ts';
import { Links } from '../libc/links.ts';
import { hasTimers, loopDescriptor } from '../libc/loop.ts';
import { ProcessMemory } from '../libc/process-memory.ts';
import type { SeccompListener } from '../libc/seccomp.ts';
import type { CallName, CallTable } from './numbers.ts';

const AT_FDCWD = -100;
/** Milliseconds, as the supervisor's. */
const IDLE = 500;

/** Where each call has its path; those with a directory's descriptor have it in the argument before. */
const PATHS: Readonly<Partial<Record<CallName, number>>> = {
  open: 0,
  stat: 0,
  lstat: 0,
  access: 0,
  readlink: 0,
  getxattr: 0,
  lgetxattr: 0,
  listxattr: 0,
  llistxattr: 0,
  openat: 1,
  openat2: 1,
  newfstatat: 1,
  statx: 1,
  faccessat: 1,
  faccessat2: 1,
  readlinkat: 1,
};

export class Lobby {
  /** Calls that went to the real kernel from here. */
  calls = 0;
  private readonly libc: Libc;
  private readonly links: Links;
  private readonly memory: ProcessMemory;
  private readonly paths: (number | undefined)[] = [];

  constructor(libc: Libc, { numbers }: CallTable) {
    this.libc = libc;
    this.links = new Links(libc);
    this.memory = new ProcessMemory(libc);
    for (const [name, index] of Object.entries(PATHS)) this.paths[numbers[name as CallName] ?? 0xffff] = index;
  }

  /** True: a call is in the listener's hand that the simulated host must look at. False: the program has ended without one. */
  async wait(listener: SeccompListener, pidfd: number): Promise<boolean> {
    const epoll = new Epoll(this.libc);
    const loop = loopDescriptor(this.libc);
    for (const fd of [listener.fd, pidfd, loop]) if (fd >= 0) epoll.add(fd);
    try {
      for (let quiet = false; ; ) {
        const count = epoll.wait(quiet ? -1 : IDLE);
        let turn = count <= 0;
        for (let i = 0; i < count; i += 1) {
          const fd = epoll.ready(i);
          if (fd === pidfd) return false;
          if (fd === loop) turn = true;
          else if (epoll.hungUp(i)) epoll.remove(fd);
          else if (this.take(listener)) return true;
        }
        if (turn) await new Promise((resolve) => setImmediate(resolve));
        quiet = count === 0 && loop >= 0 && !hasTimers();
      }
    } finally {
      epoll.close();
    }
  }

  private take(listener: SeccompListener): boolean {
    if (listener.receive() < 0) return false;
    const index = this.paths[listener.number];
    if (index !== undefined && mayBeSimulated(this.path(listener, index))) return true;
    this.calls += 1;
    listener.proceed();
    return false;
  }

  /** '' when it cannot be told. */
  private path(call: SeccompListener, index: number): string {
    const text = this.memory.text(call.pid, call.argument(index)) ?? '';
    if (text === '' || text.startsWith('/')) return text;
    const directory = index === 0 ? AT_FDCWD : call.int(index - 1);
    const base = this.links.read(
      directory === AT_FDCWD ? `/proc/${call.pid}/cwd` : `/proc/${call.pid}/fd/${directory}`,
    );
    return base === null ? '' : `${base}/${text}`;
  }
}

/** Every path that World.ownPath takes, and some more. */
export const mayBeSimulated = (path: string): boolean =>
  path.startsWith('/sys') || (path.startsWith('/dev') && /vfio|iommu/.test(path));
