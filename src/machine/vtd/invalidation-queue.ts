/** The invalidation queue in memory (VT-d 6.5.2): consumed at once when software moves the tail. */
import { getInPlace, getNumber } from '../../arch/bits.ts';
import { IQA, QI_DESCRIPTOR_SIZE, QI_INDEX_MASK } from '../../arch/vtd/queue.ts';
import { fromHalves } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';

/** Carries out one descriptor, given as halves; false when it is not one. */
export type DescriptorSink = (w0lo: number, w0hi: number, w1lo: number, w1hi: number) => boolean;

export class InvalidationQueue {
  enabled = false;
  address = 0n;
  head = 0;
  tail = 0;
  private readonly memory: PhysicalMemory;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  enable(on: boolean): void {
    // Turning it on starts at descriptor 0.
    if (on && !this.enabled) this.head = 0;
    this.enabled = on;
  }

  /** False when it stopped at a descriptor that cannot be read or is none: the head stays there (IQE). */
  consume(sink: DescriptorSink): boolean {
    const { memory } = this;
    const base = Number(getInPlace([this.address], IQA.ADDR));
    const bytes = QI_DESCRIPTOR_SIZE * 2 ** (8 + getNumber([this.address], IQA.QS));
    if (this.enabled && this.tail >= bytes) return false;
    while (this.enabled && this.head !== this.tail) {
      const at = base + (this.head & QI_INDEX_MASK);
      const hi = (at / 4294967296) | 0;
      if (!memory.locate(hi, at | 0)) return false;
      const w0lo = memory.words[memory.at];
      const w0hi = memory.words[memory.at + 1];
      if (!memory.locate(hi, (at + 8) | 0)) return false;
      if (!sink(w0lo, w0hi, memory.words[memory.at], memory.words[memory.at + 1])) return false;
      this.head = (this.head + QI_DESCRIPTOR_SIZE) % bytes;
    }
    return true;
  }

  /** The wait descriptor's status write. */
  writeStatus(hi: number, lo: number, data: number): void {
    this.memory.write32(fromHalves(hi, lo & -4), data);
  }
}
