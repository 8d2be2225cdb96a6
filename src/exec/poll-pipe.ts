/**
 * The stand-in of a simulated file that programs wait for: a pipe, which the real kernel's poll, select and epoll find readable while it holds a byte,
 * and writable where the program's end is open for both. The program's reads and writes never reach it.
 */
import { type Libc, O_RDONLY, O_RDWR } from '../libc/index.ts';
import { cLibrary } from '../libc/library.ts';

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const EPOLLIN = 1;

export class PollPipe {
  /** The program's end, to be closed when it was given. */
  readonly fd: number;
  /** Both ends, which keep the pipe from hanging up. */
  readonly backing: number;
  private readonly libc: Libc;
  private readonly byte = new Uint8Array(new ArrayBuffer(64), 0, 1);
  private full = false;

  private constructor(libc: Libc, backing: number, fd: number) {
    this.libc = libc;
    this.backing = backing;
    this.fd = fd;
  }

  /** -errno: no descriptors are left. */
  static open(libc: Libc, writable: boolean): PollPipe | number {
    const ends = new Uint8Array(new ArrayBuffer(64), 0, 8);
    const result = Number(cLibrary(libc.koffi).func('int pipe2(void *ends, int flags)')(ends, O_CLOEXEC));
    if (result < 0) return -libc.koffi.errno();
    const view = new DataView(ends.buffer);
    const [reading, writing] = [view.getInt32(0, true), view.getInt32(4, true)];
    const backing = libc.open(`/proc/self/fd/${reading}`, O_RDWR | O_NONBLOCK);
    const fd = libc.open(`/proc/self/fd/${reading}`, (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK);
    libc.close(reading);
    libc.close(writing);
    if (fd >= 0 && backing >= 0) return new PollPipe(libc, backing, fd);
    for (const left of [fd, backing]) if (left >= 0) libc.close(left);
    return Math.min(fd, backing);
  }

  /** The program's end is readable from now on, or not. */
  follow(events: number): void {
    const full = (events & EPOLLIN) !== 0;
    if (full === this.full) return;
    this.full = full;
    if (full) this.libc.write(this.backing, this.byte);
    else this.libc.read(this.backing, this.byte);
  }
}
