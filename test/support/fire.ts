/** A device that rings while the kernel is at work: after every word that a CPU writes to memory or to registers. */
import type { Host } from '../../src/kernel/boot/boot.ts';

/** Calls `then` after each word that a CPU writes to memory or to registers, until it is undone; not for what is written because of `then`. */
export function afterEachWrite({ machine: { bus } }: Host, act: () => void): () => void {
  const { memory } = bus;
  let busy = false;
  const then = (): void => {
    if (busy) return;
    busy = true;
    act();
    busy = false;
  };
  const [write32, write64] = [bus.write32, memory.write64];
  bus.write32 = (pa, value) => {
    write32.call(bus, pa, value);
    then();
  };
  memory.write64 = (pa, lo, hi) => {
    const there = write64.call(memory, pa, lo, hi);
    then();
    return there;
  };
  return () => {
    bus.write32 = write32;
    memory.write64 = write64;
  };
}
