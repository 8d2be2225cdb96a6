/**
 * The supervisor's side of seccomp user notification (linux/seccomp.h): a filtered program's system call waits here until it is
 * answered, or sent on its own way. One notification is in hand at a time.
 */
import type { Libc } from './libc.ts';

const NOTIF_RECV = 0xc050_2100;
const NOTIF_SEND = 0xc018_2101;
const NOTIF_ID_VALID = 0x4008_2102;
const NOTIF_ADDFD = 0x4018_2103;
const NOTIF_SET_FLAGS = 0x4008_2104;
const FD_SYNC_WAKE_UP = 1;
const FLAG_CONTINUE = 1;
const ADDFD_FLAG_SETFD = 1;
const O_CLOEXEC = 0x8_0000;

export class SeccompListener {
  readonly fd: number;
  /**
   * Is the notification in hand the one that was made next after the one before it? (The kernel counts them.) Then it was waiting already when the
   * listener was last found readable.
   */
  follows = false;
  private readonly libc: Libc;
  /** struct seccomp_notif: id@0, pid@8, flags@12, nr@16, arch@20, instruction pointer@24, args@32. */
  private readonly request = new Uint8Array(new ArrayBuffer(128), 0, 80);
  private readonly words = new Uint32Array(this.request.buffer, 0, 20);
  /** struct seccomp_notif_resp: id@0, val@8, error@16, flags@20. */
  private readonly response = new Uint8Array(new ArrayBuffer(128), 0, 24);
  private readonly answer = new Int32Array(this.response.buffer, 0, 6);
  /** struct seccomp_notif_addfd: id@0, flags@8, srcfd@12, newfd@16, newfd_flags@20. */
  private readonly injection = new Uint8Array(new ArrayBuffer(128), 0, 24);
  private readonly addition = new Uint32Array(this.injection.buffer, 0, 6);

  constructor(libc: Libc, fd: number) {
    this.libc = libc;
    this.fd = fd;
  }

  /** The waiting program is woken on this CPU, which is about to sleep. False where the kernel (before 6.6) cannot. */
  syncWakeUp(): boolean {
    return this.libc.ioctl(this.fd, NOTIF_SET_FLAGS, FD_SYNC_WAKE_UP) === 0;
  }

  /** Takes the next notification: 0, or -errno (ENOENT: its program was killed meanwhile; EINTR). Waits when there is none. */
  receive(): number {
    const { words } = this;
    const low = (words[0]! + 1) >>> 0;
    const high = low === 0 ? (words[1]! + 1) >>> 0 : words[1]!;
    this.request.fill(0);
    const result = this.libc.ioctl(this.fd, NOTIF_RECV, this.request);
    this.follows = result >= 0 && words[0] === low && words[1] === high;
    return result;
  }

  /** Thread id in this process's pid namespace. */
  get pid(): number {
    return this.words[2]!;
  }

  get number(): number {
    return this.words[4]! | 0;
  }

  /** Argument `index` as an address or a size; what exceeds 2^53 is not exact, and is no address either. */
  argument(index: number): number {
    return this.words[8 + 2 * index]! + this.words[9 + 2 * index]! * 2 ** 32;
  }

  /** The low 32 bits, signed: descriptors and flags. */
  int(index: number): number {
    return this.words[8 + 2 * index]! | 0;
  }

  wide(index: number): bigint {
    return (BigInt(this.words[9 + 2 * index]!) << 32n) | BigInt(this.words[8 + 2 * index]!);
  }

  /** Is the notification's program still waiting? What was read of its memory may be somebody else's when it is not. */
  get valid(): boolean {
    return this.libc.ioctl(this.fd, NOTIF_ID_VALID, this.request.subarray(0, 8)) === 0;
  }

  /** The call returns `result`: zero or positive up to 2^53, or -errno. */
  respond(result: number): void {
    const failed = result < 0 && result > -4096;
    this.send(failed ? 0 : result, failed ? result : 0, 0);
  }

  /** The call goes to the real kernel as it is. */
  proceed(): void {
    this.send(0, 0, FLAG_CONTINUE);
  }

  /** Puts a copy of `fd` into the program, at `at` or at its lowest free number: the number there, or -errno. */
  inject(fd: number, closeOnExec: boolean, at: number | null = null): number {
    const { addition, words } = this;
    addition[0] = words[0]!;
    addition[1] = words[1]!;
    addition[2] = at === null ? 0 : ADDFD_FLAG_SETFD;
    addition[3] = fd;
    addition[4] = at ?? 0;
    addition[5] = closeOnExec ? O_CLOEXEC : 0;
    return this.libc.ioctl(this.fd, NOTIF_ADDFD, this.injection);
  }

  private send(value: number, error: number, flags: number): void {
    const { answer, words } = this;
    answer[0] = words[0]! | 0;
    answer[1] = words[1]! | 0;
    answer[2] = value | 0;
    answer[3] = Math.floor(value / 2 ** 32) | 0;
    answer[4] = error;
    answer[5] = flags;
    // ENOENT: the program was killed while its call was served.
    this.libc.ioctl(this.fd, NOTIF_SEND, this.response);
  }
}
