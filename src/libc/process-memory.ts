/** The memory of another process, by process_vm_readv and process_vm_writev. */
import type { Native } from './koffi.ts';
import type { Libc } from './libc.ts';
import { cLibrary } from './library.ts';

/** Bytes that go through the staging area at once. */
const STAGE = 0x1_0000;
const PAGE = 4096;
const EFAULT = 14;

export class ProcessMemory {
  private readonly readv: Native;
  private readonly writev: Native;
  private readonly errno: () => number;
  /** Two iovecs at 0 and 16, data from PAGE on: memory with a fixed address, so that none is asked for per call. */
  private readonly base: number;
  private readonly words: DataView;
  private readonly stage: Uint8Array;
  private readonly local: Uint8Array;
  private readonly remote: Uint8Array;

  constructor(libc: Libc) {
    const library = cLibrary(libc.koffi);
    const prototype =
      '(int pid, void *local, unsigned long locals, void *remote, unsigned long remotes, unsigned long flags)';
    this.readv = library.func(`int64_t process_vm_readv${prototype}`);
    this.writev = library.func(`int64_t process_vm_writev${prototype}`);
    this.errno = () => libc.koffi.errno();
    const memory = libc.allocate(PAGE + STAGE);
    if (typeof memory === 'number') throw new RangeError(`no memory for a staging area: errno ${-memory}`);
    this.base = memory.address;
    const view = memory.view();
    this.words = new DataView(view, 0, 64);
    this.local = new Uint8Array(view, 0, 16);
    this.remote = new Uint8Array(view, 16, 16);
    this.stage = new Uint8Array(view, PAGE, STAGE);
  }

  /** May the memory of this process be used at all? null, or the call that is refused with its -errno. Touches nothing. */
  refused(pid: number): { readonly call: 'process_vm_readv' | 'process_vm_writev'; readonly error: number } | null {
    // Where nothing is mapped: EFAULT comes after the permission.
    const [reading, writing] = [this.transfer(this.readv, pid, 0, 1), this.transfer(this.writev, pid, 0, 1)];
    if (reading !== -EFAULT) return { call: 'process_vm_readv', error: reading };
    return writing === -EFAULT ? null : { call: 'process_vm_writev', error: writing };
  }

  /** Bytes read from the start of the range, or -errno (EFAULT: nothing was readable; ESRCH; EPERM). */
  read(pid: number, address: number, into: Uint8Array): number {
    for (let done = 0; done < into.length; ) {
      const length = Math.min(STAGE, into.length - done);
      const got = this.transfer(this.readv, pid, address + done, length);
      if (got < 0) return done > 0 ? done : got;
      into.set(this.stage.subarray(0, got), done);
      done += got;
      if (got < length) return done;
    }
    return into.length;
  }

  /** Bytes written from the start of the range, or -errno. */
  write(pid: number, address: number, from: Uint8Array): number {
    for (let done = 0; done < from.length; ) {
      const length = Math.min(STAGE, from.length - done);
      this.stage.set(from.subarray(done, done + length));
      const put = this.transfer(this.writev, pid, address + done, length);
      if (put < 0) return done > 0 ? done : put;
      done += put;
      if (put < length) return done;
    }
    return from.length;
  }

  /** A C string of at most `limit` bytes with its end, or null: unreadable, or longer. */
  text(pid: number, address: number, limit = PAGE): string | null {
    let length = 0;
    // By pages: what follows the string's page may not be mapped.
    while (length < limit) {
      const piece = Math.min(length === 0 ? 256 : PAGE, limit - length, PAGE - ((address + length) % PAGE));
      const got = this.transfer(this.readv, pid, address + length, piece, length);
      if (got <= 0) return null;
      const end = this.stage.subarray(length, length + got).indexOf(0);
      if (end >= 0) return Buffer.from(this.stage.buffer, this.stage.byteOffset, length + end).toString('utf8');
      length += got;
    }
    return null;
  }

  private transfer(call: Native, pid: number, address: number, length: number, at = 0): number {
    this.pair(0, this.base + PAGE + at, length);
    this.pair(16, address, length);
    const result = Number(call(pid, this.local, 1, this.remote, 1, 0));
    return result < 0 ? -this.errno() : result;
  }

  private pair(at: number, address: number, length: number): void {
    const { words } = this;
    words.setUint32(at, address, true);
    words.setUint32(at + 4, address / 2 ** 32, true);
    words.setUint32(at + 8, length, true);
    words.setUint32(at + 12, 0, true);
  }
}
