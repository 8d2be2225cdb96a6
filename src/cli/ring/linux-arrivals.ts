/** The interrupts of a vector as events of the loop: counted, and awaited for a while. */
import type { Interrupt } from '../../vfio/index.ts';

export class Arrivals {
  private count = 0;
  private wake: (() => void) | null = null;
  private readonly stop: () => void;

  constructor(interrupt: Interrupt) {
    this.stop = interrupt.onInterrupt((count) => {
      this.count += count;
      this.wake?.();
    });
  }

  /** Takes what arrived, at once. */
  take(): number {
    const { count } = this;
    this.count = 0;
    return count;
  }

  /** Takes what arrives within `patience` ms: 0 when nothing did. */
  async within(patience: number): Promise<number> {
    if (this.count === 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, patience);
        this.wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.wake = null;
    }
    return this.take();
  }

  close(): void {
    this.stop();
  }
}
