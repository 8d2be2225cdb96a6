/** Hardware updates of translation table descriptors (HTTU, IHI 0070 3.13): gathered by a walk, written when the access is permitted. */
import { fromHalves } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';

/** Each: the high and low half of the descriptor's address, and the bits of its low half to set and to clear. */
const WORDS = 4;
/** A stage 2 leaf under each of four stage 1 tables and two levels of CD tables, one more for the write to a stage 1 leaf, and both leaves. */
const MOST = 9;

export class DescriptorUpdates {
  count = 0;
  private readonly list = new Int32Array(WORDS * MOST);

  add(hi: number, lo: number, set: number, clear: number): void {
    const at = this.count * WORDS;
    this.list[at] = hi;
    this.list[at + 1] = lo;
    this.list[at + 2] = set;
    this.list[at + 3] = clear;
    this.count += 1;
  }

  /** Writes them, each reading the descriptor as it is then: one may be in the list twice. */
  commit(memory: PhysicalMemory): void {
    const { list, count } = this;
    for (let at = 0; at < count * WORDS; at += WORDS) {
      if (!memory.locate(list[at], list[at + 1])) continue;
      const lo = (memory.words[memory.at] | list[at + 2]) & ~list[at + 3];
      memory.write64(fromHalves(list[at], list[at + 1]), lo, memory.words[memory.at + 1]);
    }
    this.count = 0;
  }
}
