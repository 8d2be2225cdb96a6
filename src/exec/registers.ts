/** The registers of a stopped thread on x86-64: user_regs_struct (sys/user.h) and, when an instruction needs them, the FXSAVE image. */
import type { Ptrace } from '../libc/ptrace.ts';
import { NT_PRFPREG, NT_PRSTATUS } from '../libc/ptrace.ts';
import type { Registers } from './x86/execute.ts';

/** Where user_regs_struct has the hardware's numbers 0 to 15, in words of 8 bytes. */
const GENERAL = [10, 11, 12, 5, 19, 4, 13, 14, 9, 8, 7, 6, 3, 2, 1, 0];
const ORIG_RAX = 15;
const RIP = 16;
const CS = 17;
const FLAGS = 18;
const FS_BASE = 21;
const GS_BASE = 22;
const WORDS = 27;
/** Bytes of the FXSAVE image, and xmm0 in it. */
const FXSAVE = 512;
const XMM0 = 160;
/** 64-bit code; the other one is that of 32-bit programs. */
const USER_CS = 0x33n;

export class ThreadRegisters implements Registers {
  private readonly ptrace: Ptrace;
  private readonly area;
  private readonly words: BigUint64Array;
  private readonly vectorArea;
  private readonly vectors: DataView;
  private thread = 0;
  private vectorsRead = false;
  private vectorsChanged = false;

  constructor(ptrace: Ptrace) {
    this.ptrace = ptrace;
    this.area = ptrace.area(8 * WORDS);
    this.words = new BigUint64Array(this.area.bytes.buffer, 0, WORDS);
    this.vectorArea = ptrace.area(FXSAVE);
    this.vectors = new DataView(this.vectorArea.bytes.buffer);
  }

  /** Takes the registers of a stopped thread; false when it is gone, or runs no 64-bit code. */
  take(thread: number): boolean {
    this.thread = thread;
    this.vectorsRead = false;
    this.vectorsChanged = false;
    return this.ptrace.getRegisters(thread, NT_PRSTATUS, this.area) === 8 * WORDS && this.words[CS] === USER_CS;
  }

  /** Gives them back as they are now. */
  put(): boolean {
    // The thread stopped for a fault, in no system call.
    this.words[ORIG_RAX] = 2n ** 64n - 1n;
    if (this.ptrace.setRegisters(this.thread, NT_PRSTATUS, this.area, 8 * WORDS) < 0) return false;
    if (!this.vectorsChanged) return true;
    return this.ptrace.setRegisters(this.thread, NT_PRFPREG, this.vectorArea, FXSAVE) >= 0;
  }

  general(number: number): bigint {
    return this.words[GENERAL[number]!]!;
  }

  setGeneral(number: number, value: bigint): void {
    this.words[GENERAL[number]!] = value;
  }

  get rip(): bigint {
    return this.words[RIP]!;
  }

  set rip(value: bigint) {
    this.words[RIP] = value;
  }

  get flags(): bigint {
    return this.words[FLAGS]!;
  }

  set flags(value: bigint) {
    this.words[FLAGS] = value;
  }

  get fsBase(): bigint {
    return this.words[FS_BASE]!;
  }

  get gsBase(): bigint {
    return this.words[GS_BASE]!;
  }

  vector(number: number): bigint {
    this.readVectors();
    const at = XMM0 + 16 * number;
    return (this.vectors.getBigUint64(at + 8, true) << 64n) | this.vectors.getBigUint64(at, true);
  }

  setVector(number: number, value: bigint): void {
    this.readVectors();
    const at = XMM0 + 16 * number;
    this.vectors.setBigUint64(at, BigInt.asUintN(64, value), true);
    this.vectors.setBigUint64(at + 8, value >> 64n, true);
    this.vectorsChanged = true;
  }

  private readVectors(): void {
    if (this.vectorsRead) return;
    this.ptrace.getRegisters(this.thread, NT_PRFPREG, this.vectorArea);
    this.vectorsRead = true;
  }
}
