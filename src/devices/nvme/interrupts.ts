/** The controller's interrupts (7.5): messages by the completion queue's vector, or the pin while a queue that interrupts has entries unseen. */
import type { PciPort } from '../../ports/pci.ts';
import type { CompletionQueue } from './queues.ts';

export class Interrupts {
  port: PciPort | null = null;
  /** INTMS and INTMC: vectors 0 to 31. */
  mask = 0;
  /** Messages that the mask held back. */
  private held = 0;
  private line = false;
  private readonly queues: () => Iterable<CompletionQueue>;

  constructor(queues: () => Iterable<CompletionQueue>) {
    this.queues = queues;
  }

  /** An entry of the queue has reached memory. */
  posted({ interrupts, vector }: CompletionQueue): void {
    const { port } = this;
    if (port === null || !interrupts) return;
    if (!port.messagesEnabled) this.refreshLine();
    else if (vector < 32 && (this.mask & (1 << vector)) !== 0) this.held |= 1 << vector;
    else port.raise(vector);
  }

  /** A head moved or the mask changed: the pin may have nothing more to say. */
  refreshLine(): void {
    const { port } = this;
    if (port === null) return;
    const wanted = !port.messagesEnabled && (this.mask & 1) === 0 && this.hasUnseen();
    if (wanted === this.line) return;
    this.line = wanted;
    port.setInterruptLine(wanted);
  }

  setMask(bits: number): void {
    this.mask |= bits;
    this.refreshLine();
  }

  clearMask(bits: number): void {
    this.mask &= ~bits;
    const free = this.held & ~this.mask;
    this.held &= this.mask;
    for (let vector = 0; vector < 32; vector++) if ((free & (1 << vector)) !== 0) this.port?.raise(vector);
    this.refreshLine();
  }

  reset(): void {
    this.mask = 0;
    this.held = 0;
    this.refreshLine();
  }

  private hasUnseen(): boolean {
    for (const queue of this.queues()) if (queue.interrupts && queue.isOccupied) return true;
    return false;
  }
}
