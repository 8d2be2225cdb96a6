/** A stand-in for a device's MSI-X behind VFIO: vectors with a mask, a latch and an eventfd, as vfio-pci has them. Only for tests. */
import type { EventFdContext } from '../../kernel/files.ts';
import type { Process } from '../../kernel/process.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import type { HostInterrupts } from '../host-interrupts.ts';

export class FakeHost implements HostInterrupts {
  /** Every request: `program 0 [5,-1]`, `disable`. */
  readonly log: string[] = [];
  readonly #process: Process;
  readonly #ledger: Float64Array;
  readonly #targets: (EventFdContext | null)[];
  readonly #pending: boolean[];
  readonly #resizable: boolean;
  /** Vectors that the host can give. */
  available: number;
  allocated = 0;

  constructor(process: Process, ledger: Float64Array, count: number, resizable: boolean, available = count) {
    this.#process = process;
    this.#ledger = ledger;
    this.#targets = new Array<EventFdContext | null>(count).fill(null);
    this.#pending = new Array<boolean>(count).fill(false);
    this.#resizable = resizable;
    this.available = available;
  }

  info(): { count: number; resizable: boolean } {
    return { count: this.#targets.length, resizable: this.#resizable };
  }

  program(start: number, fds: readonly number[]): number {
    this.log.push(`program ${start} [${fds.map((fd) => (fd < 0 ? '-' : 'e')).join('')}]`);
    const end = start + fds.length;
    if (this.allocated === 0 || this.#resizable) {
      if (end > this.available) return this.available;
      this.allocated = Math.max(this.allocated, end);
    } else if (end > this.allocated) throw new Error(`vector ${end - 1} beyond ${this.allocated}: EINVAL`);
    for (const [i, fd] of fds.entries())
      this.#set(start + i, fd < 0 ? null : (this.#process.file(fd)?.eventfd ?? null));
    return 0;
  }

  disable(): void {
    this.log.push('disable');
    this.allocated = 0;
    this.#targets.fill(null);
    for (const [i, pending] of this.#pending.entries()) {
      if (!pending) continue;
      this.#pending[i] = false;
      this.#ledger[Count.PENDING]! -= 1;
      this.#ledger[Count.LOST + Loss.TORN_DOWN]! += 1;
    }
  }

  /** The device raises a vector: a masked one waits in the pending bits, once. */
  fire(vector: number): void {
    this.#ledger[Count.SENT]! += 1;
    const target = this.#targets[vector];
    if (vector >= this.allocated) this.#ledger[Count.LOST + Loss.NOT_ENABLED]! += 1;
    else if (target !== null) target.signal();
    else if (this.#pending[vector]) this.#ledger[Count.COALESCED]! += 1;
    else {
      this.#pending[vector] = true;
      this.#ledger[Count.PENDING]! += 1;
    }
  }

  pendingBits(offset: number): number {
    let value = 0;
    for (let i = 0; i < 32; i += 1) if (this.#pending[offset * 8 + i]) value += 2 ** i;
    return value;
  }

  #set(vector: number, target: EventFdContext | null): void {
    this.#targets[vector] = target;
    if (target === null || !this.#pending[vector]) return;
    this.#pending[vector] = false;
    this.#ledger[Count.PENDING]! -= 1;
    target.signal();
  }
}

/** sent = delivered + coalesced + pending + lost, as both sides of the equation. */
export function balance(ledger: Float64Array): { sent: number; ended: number } {
  const lost = ledger.subarray(Count.LOST).reduce((sum, count) => sum + count, 0);
  return {
    sent: ledger[Count.SENT],
    ended: ledger[Count.DELIVERED] + ledger[Count.COALESCED] + ledger[Count.PENDING] + lost,
  };
}
