/** Waiting for several descriptors at once, in the calling thread: for a loop that blocks instead of returning to Node's. */
import { EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN } from './constants.ts';
import type { Native } from './koffi.ts';
import type { Libc } from './libc.ts';
import { cLibrary } from './library.ts';

const EPOLL_CTL_DEL = 2;
const MOST = 32;
/** struct epoll_event is packed on x86-64 alone. */
const STRIDE = process.arch === 'x64' ? 12 : 16;
const DATA = process.arch === 'x64' ? 4 : 8;

export class Epoll {
  /** Itself readable when one of its descriptors is. */
  readonly fd: number;
  private readonly control: Native;
  private readonly waitFor: Native;
  private readonly errno: () => number;
  private readonly libc: Libc;
  private readonly bytes = new Uint8Array(new ArrayBuffer(MOST * 16));
  private readonly events = new DataView(this.bytes.buffer);

  /** @throws RangeError without a descriptor for it. */
  constructor(libc: Libc) {
    const library = cLibrary(libc.koffi);
    this.libc = libc;
    this.control = library.func('int epoll_ctl(int epoll, int operation, int fd, void *event)');
    this.waitFor = library.func('int epoll_wait(int epoll, void *events, int most, int timeout)');
    this.errno = () => libc.koffi.errno();
    this.fd = Number(library.func('int epoll_create1(int flags)')(EPOLL_CLOEXEC));
    if (this.fd < 0) throw new RangeError(`epoll_create1: errno ${this.errno()}`);
  }

  /** 0 or -errno. */
  add(fd: number): number {
    this.events.setUint32(0, EPOLLIN, true);
    this.events.setInt32(DATA, fd, true);
    return Number(this.control(this.fd, EPOLL_CTL_ADD, fd, this.bytes)) < 0 ? -this.errno() : 0;
  }

  /** Before the descriptor is closed: an open file that others hold too would go on being reported. */
  remove(fd: number): void {
    this.control(this.fd, EPOLL_CTL_DEL, fd, this.bytes);
  }

  /** Descriptors that are readable or hung up; how many, or -errno (EINTR). `timeout` in milliseconds, -1 without. Read them with `ready`. */
  wait(timeout: number): number {
    const count = Number(this.waitFor(this.fd, this.bytes, MOST, timeout));
    return count < 0 ? -this.errno() : count;
  }

  ready(index: number): number {
    return this.events.getInt32(index * STRIDE + DATA, true);
  }

  /** Did it only hang up (nothing to read)? */
  hungUp(index: number): boolean {
    return (this.events.getUint32(index * STRIDE, true) & (EPOLLIN | 0x10)) === 0x10;
  }

  close(): void {
    this.libc.close(this.fd);
  }
}
