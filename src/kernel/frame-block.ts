/** A physically contiguous block of frames behind a process's mapping, counted so that pinned frames outlive the mapping. */
import type { PhysicalMemory } from '../ports/memory.ts';

export class FrameBlock {
  readonly pa: number;
  readonly length: number;
  private readonly memory: PhysicalMemory;
  /** One for the mapping, one for each pin. */
  private references = 1;

  constructor(memory: PhysicalMemory, pa: number, length: number) {
    this.memory = memory;
    this.pa = pa;
    this.length = length;
  }

  /** Zeroed frames, or null when the machine has no such block left. */
  static allocate(memory: PhysicalMemory, length: number, alignment: number): FrameBlock | null {
    const pa = memory.allocate(length, alignment);
    return pa === null ? null : new FrameBlock(memory, pa, length);
  }

  get(): void {
    this.references += 1;
  }

  /** The last reference gives the frames back to the machine. */
  put(): void {
    this.references -= 1;
    if (this.references === 0) this.memory.free(this.pa, this.length);
  }
}
