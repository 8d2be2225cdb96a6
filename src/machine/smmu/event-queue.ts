/** The event queue in memory: a ring with wrap bits, and the overflow handshake (IHI 0070 7.1, 7.2, 7.4). */
import { getInPlace, getNumber, hi32, lo32, word64 } from '../../arch/bits.ts';
import { EVENT_SIZE, EVENT_WORDS } from '../../arch/smmuv3/events.ts';
import { QUEUE_BASE, QUEUE_OVERFLOW } from '../../arch/smmuv3/registers.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';

/** What became of a record. */
export const Written = { YES: 0, FULL: 1, ABORTED: 2, OFF: 3 } as const;

export class EventQueue {
  enabled = false;
  base = 0n;
  /** PROD: index and wrap bit, OVFLG in bit 31. */
  prod = 0;
  /** CONS: index and wrap bit, OVACKFLG in bit 31. */
  cons = 0;
  private readonly memory: PhysicalMemory;
  private readonly maximum: number;

  constructor(memory: PhysicalMemory, maximumLog2: number) {
    this.memory = memory;
    this.maximum = maximumLog2;
  }

  get log2(): number {
    return Math.min(getNumber([this.base], QUEUE_BASE.LOG2SIZE), this.maximum);
  }

  get empty(): boolean {
    return ((this.prod ^ this.cons) & this.indexMask) === 0;
  }

  get full(): boolean {
    return ((this.prod ^ this.cons) & this.indexMask) === 1 << this.log2;
  }

  /** FULL toggles OVFLG unless an earlier overflow waits to be acknowledged; the record is lost. */
  write(words: readonly bigint[]): number {
    if (!this.enabled) return Written.OFF;
    if (this.full) {
      if (((this.prod ^ this.cons) & QUEUE_OVERFLOW) === 0) this.prod ^= QUEUE_OVERFLOW;
      return Written.FULL;
    }
    const { log2, memory } = this;
    const at = getInPlace([this.base], QUEUE_BASE.ADDR) + BigInt((this.prod & ((1 << log2) - 1)) * EVENT_SIZE);
    for (let i = 0; i < EVENT_WORDS; i++) {
      if (!memory.write64(Number(at) + i * 8, lo32(words[i]), hi32(words[i]))) return Written.ABORTED;
    }
    this.prod = (this.prod & QUEUE_OVERFLOW) | ((this.prod + 1) & this.indexMask);
    return Written.YES;
  }

  /** Index bits with the wrap bit above them. */
  private get indexMask(): number {
    return (2 << this.log2) - 1;
  }
}

/** Reads one record from a queue in memory, as software does. */
export function readRecord(memory: PhysicalMemory, at: number): bigint[] {
  const words: bigint[] = [];
  for (let i = 0; i < EVENT_WORDS; i++) words.push(word64(memory.read32(at + i * 8), memory.read32(at + i * 8 + 4)));
  return words;
}
