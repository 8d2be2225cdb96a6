/** Calls back when a file descriptor is readable, by the event loop's own poll: no thread for each descriptor, no waiting. */
import { EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN } from './constants.ts';
import type { Koffi, Native, PollHandle } from './koffi.ts';

interface Watched {
  handle: PollHandle;
  readonly watchers: Set<() => void>;
}

/** Level-triggered: a watcher is called again and again until it reads, or stops. */
export class Poller {
  private readonly koffi: Koffi;
  /** Handles stay referenced here: one that nobody holds is collected and closed without a word. */
  private readonly watched = new Map<number, Watched>();
  private readonly probe: (fd: number) => number;

  constructor(koffi: Koffi) {
    this.koffi = koffi;
    this.probe = probeOf(koffi);
  }

  /** How many descriptors are watched. */
  get size(): number {
    return this.watched.size;
  }

  /** Returns the way to stop; a negative result is -errno (EPERM: such a file cannot be polled). */
  watch(fd: number, watcher: () => void): (() => void) | number {
    const entry = this.watched.get(fd) ?? this.start(fd);
    if (typeof entry === 'number') return entry;
    entry.watchers.add(watcher);
    return () => {
      if (entry.watchers.delete(watcher) && entry.watchers.size === 0) this.end(fd, entry);
    };
  }

  /** Stops everybody who watches `fd`; for who is about to close it. */
  forget(fd: number): void {
    const entry = this.watched.get(fd);
    if (entry === undefined) return;
    entry.watchers.clear();
    this.end(fd, entry);
  }

  private start(fd: number): Watched | number {
    // libuv refuses a file that epoll does not take, and a second handle for one descriptor; koffi ends the process over it.
    // So the kernel is asked first, and a descriptor has one handle whoever watches.
    const pollable = this.probe(fd);
    if (pollable < 0) return pollable;
    const watchers = new Set<() => void>();
    const handle = this.koffi.node.poll(fd, () => {
      for (const watcher of [...watchers]) call(watcher);
      // Node 26 runs what the watcher queued (ticks, promises) only when the loop calls something of its own.
      setImmediate(nothing);
    });
    const entry = { handle, watchers };
    this.watched.set(fd, entry);
    return entry;
  }

  private end(fd: number, entry: Watched): void {
    if (this.watched.get(fd) !== entry) return;
    this.watched.delete(fd);
    entry.handle.close();
  }
}

/** An exception of a native callback would surface with the next event, or never: it is thrown from the loop instead. */
function call(watcher: () => void): void {
  try {
    watcher();
  } catch (error) {
    setImmediate(() => {
      throw error;
    });
  }
}

const nothing = (): void => {};

/** Asks the kernel whether a descriptor can be polled: 0 or -errno. */
function probeOf(koffi: Koffi): (fd: number) => number {
  const library = koffi.load(null);
  const create: Native = library.func('int epoll_create1(int flags)');
  const control: Native = library.func('int epoll_ctl(int epoll, int operation, int fd, void *event)');
  const close: Native = library.func('int close(int fd)');
  // struct epoll_event: 12 bytes on x86-64, 16 elsewhere; the first word is the mask.
  const event = new Uint8Array(new ArrayBuffer(128), 0, 16);
  event[0] = EPOLLIN;
  return (fd) => {
    const epoll = Number(create(EPOLL_CLOEXEC));
    if (epoll < 0) return -koffi.errno();
    const result = control(epoll, EPOLL_CTL_ADD, fd, event) === 0 ? 0 : -koffi.errno();
    close(epoll);
    return result;
  };
}
