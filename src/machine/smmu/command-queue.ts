/** The command queue in memory (IHI 0070 4.1, 4.8): consumed at once when software moves PROD. */
import { bits32, getInPlace, getNumber, hi32, lo32 } from '../../arch/bits.ts';
import { COMMAND_SIZE } from '../../arch/smmuv3/commands.ts';
import { CMDQ_CONS_ERR_SHIFT, CommandError, QUEUE_BASE } from '../../arch/smmuv3/registers.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';

/** Carries out one command, given as four halves, and answers a CommandError. */
export type CommandSink = (op: number, w0lo: number, w0hi: number, w1lo: number, w1hi: number) => number;

export class CommandQueue {
  enabled = false;
  prod = 0;
  /** Index and wrap bit; ERR in bits 30:24. */
  cons = 0;
  /** Consumption stops at an error until software acknowledges it in GERRORN. */
  stopped = false;
  private readonly memory: PhysicalMemory;
  private readonly maximum: number;
  private register = 0n;
  // What CMDQ_BASE says, so that consuming looks at numbers alone.
  private startHi = 0;
  private startLo = 0;
  private log2 = 0;

  constructor(memory: PhysicalMemory, maximumLog2: number) {
    this.memory = memory;
    this.maximum = maximumLog2;
  }

  /** CMDQ_BASE. */
  get base(): bigint {
    return this.register;
  }

  set base(value: bigint) {
    this.register = value;
    this.log2 = Math.min(getNumber([value], QUEUE_BASE.LOG2SIZE), this.maximum);
    const start = getInPlace([value], QUEUE_BASE.ADDR);
    this.startHi = hi32(start);
    // The queue is aligned to its size.
    this.startLo = lo32(start) & -(COMMAND_SIZE << this.log2);
  }

  /** Runs what waits. True when it stopped at an error, with CONS at the command and ERR set. */
  consume(sink: CommandSink): boolean {
    const wrapMask = (2 << this.log2) - 1;
    // PROD beyond a full queue cannot mean more than one round.
    for (let budget = 1 << this.log2; budget > 0; budget--) {
      if (!this.enabled || this.stopped || ((this.prod ^ this.cons) & wrapMask) === 0) return false;
      const index = this.cons & wrapMask;
      const error = this.one((index & (wrapMask >> 1)) * COMMAND_SIZE, sink);
      if (error !== CommandError.NONE) {
        this.cons = index | (error << CMDQ_CONS_ERR_SHIFT);
        this.stopped = true;
        return true;
      }
      this.cons = (index + 1) & wrapMask;
    }
    return false;
  }

  private one(offset: number, sink: CommandSink): number {
    const { memory, startHi } = this;
    const lo = this.startLo | offset;
    if (!memory.locate(startHi, lo)) return CommandError.ABT;
    const w0lo = memory.words[memory.at];
    const w0hi = memory.words[memory.at + 1];
    if (!memory.locate(startHi, lo | 8)) return CommandError.ABT;
    return sink(bits32(w0lo, 7, 0), w0lo, w0hi, memory.words[memory.at], memory.words[memory.at + 1]);
  }
}

/** Replaces a half of a 64-bit register. */
export function withHalf(register: bigint, high: boolean, value: number): bigint {
  const half = BigInt(value >>> 0);
  return high ? (register & 0xffffffffn) | (half << 32n) : (register & ~0xffffffffn) | half;
}

/** A half of a 64-bit register. */
export const halfOf = (register: bigint, high: boolean): number => (high ? hi32(register) : lo32(register));
