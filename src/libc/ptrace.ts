/**
 * ptrace(2) and waitpid(2). The kernel answers only the OS thread that attached: everything here is called from one, Node's main thread. Results are zero
 * or positive, or -errno.
 */
import type { Native } from './koffi.ts';
import type { Libc } from './libc.ts';
import { cLibrary } from './library.ts';
import { type WaitStatus, waitStatus } from './wait-status.ts';

const SEIZE = 0x4206;
const INTERRUPT = 0x4207;
const LISTEN = 0x4208;
const CONT = 7;
const DETACH = 17;
const GETEVENTMSG = 0x4201;
const GETSIGINFO = 0x4202;
const GETREGSET = 0x4204;
const SETREGSET = 0x4205;

/** PTRACE_O_TRACEFORK, VFORK, CLONE, EXEC and EXIT. */
export const FOLLOW = 0x02 | 0x04 | 0x08 | 0x10 | 0x40;
export const PtraceEvent = { FORK: 1, VFORK: 2, CLONE: 3, EXEC: 4, EXIT: 6, STOP: 128 } as const;
/** Sets of registers (linux/elf.h). */
export const NT_PRSTATUS = 1;
export const NT_PRFPREG = 2;

const WNOHANG = 1;
const WSTOPPED = 2;
const WEXITED = 4;
const WNOWAIT = 0x0100_0000;
const WALL = 0x4000_0000;

export class Ptrace {
  private readonly call: Native;
  private readonly callWith: Native;
  private readonly wait: Native;
  private readonly waitid: Native;
  private readonly errno: () => number;
  private readonly statusBytes = new Uint8Array(new ArrayBuffer(128), 0, 4);
  private readonly statusWord = new Int32Array(this.statusBytes.buffer, 0, 1);
  private readonly message = new Uint8Array(new ArrayBuffer(128), 0, 8);
  /** siginfo_t: signo@0, errno@4, code@8, address@16. */
  private readonly info = new Uint8Array(new ArrayBuffer(128));
  private readonly infoView = new DataView(this.info.buffer);
  /** struct iovec. */
  private readonly vector = new Uint8Array(new ArrayBuffer(128), 0, 16);
  private readonly vectorView = new DataView(this.vector.buffer);
  private readonly libc: Libc;

  constructor(libc: Libc) {
    const library = cLibrary(libc.koffi);
    this.libc = libc;
    this.call = library.func('long ptrace(int request, int thread, uint64_t address, uint64_t data)');
    this.callWith = library.func('long ptrace(int request, int thread, uint64_t address, void *data)');
    this.wait = library.func('int waitpid(int thread, void *status, int options)');
    this.waitid = library.func('int waitid(int kind, unsigned int id, void *info, int options)');
    this.errno = () => libc.koffi.errno();
  }

  /** Starts to trace a thread without stopping it. -EPERM: it is traced already, or may not be. */
  seize(thread: number, options: number): number {
    return this.done(this.call(SEIZE, thread, 0, options));
  }

  interrupt(thread: number): number {
    return this.done(this.call(INTERRUPT, thread, 0, 0));
  }

  /** Lets a stopped thread go on, with a signal or with none (0). */
  resume(thread: number, signal: number): number {
    return this.done(this.call(CONT, thread, 0, signal));
  }

  /** A group stop stays one. */
  listen(thread: number): number {
    return this.done(this.call(LISTEN, thread, 0, 0));
  }

  detach(thread: number, signal: number): number {
    return this.done(this.call(DETACH, thread, 0, signal));
  }

  /** What came with an event: the new thread's id. */
  eventMessage(thread: number): number {
    if (this.done(this.callWith(GETEVENTMSG, thread, 0, this.message)) < 0) return 0;
    return new DataView(this.message.buffer).getUint32(0, true);
  }

  /** The signal that a thread stopped for. */
  signalInfo(thread: number): { readonly signal: number; readonly code: number; readonly address: bigint } | null {
    if (this.done(this.callWith(GETSIGINFO, thread, 0, this.info)) < 0) return null;
    const { infoView } = this;
    return {
      signal: infoView.getInt32(0, true),
      code: infoView.getInt32(8, true),
      address: infoView.getBigUint64(16, true),
    };
  }

  /** Bytes read, or -errno. */
  getRegisters(thread: number, set: number, area: RegisterArea): number {
    this.describe(area, area.bytes.length);
    const result = this.done(this.callWith(GETREGSET, thread, set, this.vector));
    return result < 0 ? result : this.vectorView.getUint32(8, true);
  }

  setRegisters(thread: number, set: number, area: RegisterArea, length: number): number {
    this.describe(area, length);
    return this.done(this.callWith(SETREGSET, thread, set, this.vector));
  }

  /** Room for a set of registers. */
  area(size: number): RegisterArea {
    const memory = this.libc.allocate(size);
    if (typeof memory === 'number') throw new RangeError(`no memory for ${size} bytes of registers: errno ${-memory}`);
    return { address: memory.address, bytes: new Uint8Array(memory.view(), 0, size) };
  }

  /** The status of a thread that stopped or ended; null: neither has happened. -errno (ECHILD: it is no longer there). */
  status(thread: number): WaitStatus | number | null {
    const found = this.done(this.wait(thread, this.statusBytes, WNOHANG | WALL));
    if (found <= 0) return found === 0 ? null : found;
    return waitStatus(this.statusWord[0]!);
  }

  /** Some child or traced thread of this process that waits to be asked for its status, which stays; 0: there is none. */
  waiting(): number {
    this.info.fill(0);
    const options = WNOHANG | WALL | WNOWAIT | WEXITED | WSTOPPED;
    // siginfo_t of SIGCHLD: the process id @16.
    return Number(this.waitid(0, 0, this.info, options)) < 0 ? 0 : this.infoView.getInt32(16, true);
  }

  private describe({ address }: RegisterArea, length: number): void {
    this.vectorView.setBigUint64(0, BigInt(address), true);
    this.vectorView.setBigUint64(8, BigInt(length), true);
  }

  private done(result: number | bigint): number {
    return Number(result) < 0 ? -this.errno() : Number(result);
  }
}

export interface RegisterArea {
  readonly address: number;
  readonly bytes: Uint8Array;
}
