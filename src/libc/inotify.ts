/** Tells when the last descriptor of an open file was closed, by whichever process and however it ended. */
import type { Native } from './koffi.ts';
import type { Libc } from './libc.ts';
import { cLibrary } from './library.ts';

const IN_NONBLOCK_CLOEXEC = 0x800 | 0x8_0000;
/** IN_CLOSE_WRITE or IN_CLOSE_NOWRITE: of what was open for writing, and of what was not. */
export const IN_CLOSE = 0x18;
const POLLIN = 1;
const BYTES = 4096;

/** There is none to be had: `error` is -errno (EMFILE: the user's instances, or this process's descriptors). */
export class InotifyUnavailable extends RangeError {
  override readonly name = 'InotifyUnavailable';
  readonly error: number;
  constructor(error: number) {
    super(`inotify_init1: errno ${-error}`);
    this.error = error;
  }
}

export class Inotify {
  readonly fd: number;
  private readonly libc: Libc;
  private readonly addWatch: Native;
  private readonly removeWatch: Native;
  private readonly poll: Native;
  private readonly bytes = new Uint8Array(new ArrayBuffer(BYTES));
  private readonly words = new DataView(this.bytes.buffer);
  /** struct pollfd: fd@0, events@4, revents@6. */
  private readonly polled = new Uint8Array(new ArrayBuffer(128), 0, 8);

  /** @throws InotifyUnavailable */
  constructor(libc: Libc) {
    const library = cLibrary(libc.koffi);
    this.libc = libc;
    this.addWatch = library.func('int inotify_add_watch(int fd, const char *path, uint32_t mask)');
    this.removeWatch = library.func('int inotify_rm_watch(int fd, int watch)');
    this.fd = Number(library.func('int inotify_init1(int flags)')(IN_NONBLOCK_CLOEXEC));
    if (this.fd < 0) throw new InotifyUnavailable(-libc.koffi.errno());
    this.poll = library.func('int poll(void *fds, unsigned long count, int timeout)');
    const request = new DataView(this.polled.buffer);
    request.setInt32(0, this.fd, true);
    request.setInt16(4, POLLIN, true);
  }

  /** A number for the watch, or -errno. */
  watch(path: string, mask: number): number {
    const watch = Number(this.addWatch(this.fd, path, mask));
    return watch < 0 ? -this.libc.koffi.errno() : watch;
  }

  forget(watch: number): void {
    this.removeWatch(this.fd, watch);
  }

  /** Hands out what happened since the last look, in order. */
  drain(event: (watch: number, mask: number) => void): void {
    // Mostly there is nothing, which poll says in half the time that a read takes to say so.
    while (this.poll(this.polled, 1, 0) === 1) {
      const length = this.libc.read(this.fd, this.bytes);
      if (length <= 0) return;
      const seen: [number, number][] = [];
      for (let at = 0; at + 16 <= length; at += 16 + this.words.getUint32(at + 12, true)) {
        seen.push([this.words.getInt32(at, true), this.words.getUint32(at + 4, true)]);
      }
      for (const [watch, mask] of seen) event(watch, mask);
    }
  }

  close(): void {
    this.libc.close(this.fd);
  }
}
