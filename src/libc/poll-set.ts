/**
 * poll(2) on a few descriptors, in the calling thread. They are looked at in their order, in one go: what had happened to a later one before an earlier one
 * became ready is seen with it.
 */
import type { Native } from './koffi.ts';
import type { Libc } from './libc.ts';
import { cLibrary } from './library.ts';

const POLLIN = 1;
const POLLHUP = 0x10;
const MOST = 8;

export class PollSet {
  private readonly call: Native;
  private readonly errno: () => number;
  private readonly count: number;
  /** struct pollfd: fd@0, events@4, revents@6. */
  private readonly bytes = new Uint8Array(new ArrayBuffer(128), 0, 8 * MOST);
  private readonly fds = new Int32Array(this.bytes.buffer, 0, 2 * MOST);
  private readonly events = new Int16Array(this.bytes.buffer, 0, 4 * MOST);

  /** Of at most 8 descriptors; -1: none yet. */
  constructor(libc: Libc, fds: readonly number[]) {
    this.call = cLibrary(libc.koffi).func('int poll(void *fds, unsigned long count, int timeout)');
    this.errno = () => libc.koffi.errno();
    this.count = fds.length;
    fds.forEach((fd, index) => {
      this.events[4 * index + 2] = POLLIN;
      this.set(index, fd);
    });
  }

  /** Another descriptor in its place; -1: none. */
  set(index: number, fd: number): void {
    this.fds[2 * index] = fd;
    this.events[4 * index + 3] = 0;
  }

  /** How many are readable or hung up, or -errno (EINTR). `timeout` in milliseconds, -1 without. */
  wait(timeout: number): number {
    const count = Number(this.call(this.bytes, this.count, timeout));
    return count < 0 ? -this.errno() : count;
  }

  /** Has it something to read? */
  ready(index: number): boolean {
    return (this.events[4 * index + 3]! & POLLIN) !== 0;
  }

  /** Did it only hang up? */
  hungUp(index: number): boolean {
    return (this.events[4 * index + 3]! & (POLLIN | POLLHUP)) === POLLHUP;
  }
}
