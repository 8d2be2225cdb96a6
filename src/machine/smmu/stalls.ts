/** Transactions that the SMMU holds until software resumes or terminates them (IHI 0070 3.12.2). */
import { Transaction } from '../../ports/transaction.ts';

/** More than this many at once are terminated instead; hardware would let its upstream wait. */
export const STALL_LIMIT = 1024;

export interface Stalled {
  readonly tag: number;
  readonly tx: Transaction;
  /** The event record that waits for room in the queue, or null when it was written: a stall's record is never lost. */
  record: readonly bigint[] | null;
}

export class Stalls {
  private readonly held = new Map<number, Stalled>();
  private next = 0;

  get size(): number {
    return this.held.size;
  }

  get full(): boolean {
    return this.held.size >= STALL_LIMIT;
  }

  /** The tag that the next stall gets. */
  get nextTag(): number {
    let tag = this.next;
    while (this.held.has(tag)) tag = (tag + 1) & 0xffff;
    return tag;
  }

  /** Holds a copy of the transaction: the caller's object is reused. */
  hold(tx: Transaction): Stalled {
    const stalled: Stalled = { tag: this.nextTag, tx: copyOf(tx), record: null };
    this.next = (stalled.tag + 1) & 0xffff;
    this.held.set(stalled.tag, stalled);
    return stalled;
  }

  /** Takes the transaction of a RESUME; null when the tag is not held for that stream. */
  take(sid: number, tag: number): Stalled | null {
    const stalled = this.held.get(tag);
    if (stalled === undefined || stalled.tx.requester !== sid) return null;
    this.held.delete(tag);
    return stalled;
  }

  /** Takes all of a stream (CMD_STALL_TERM). */
  takeStream(sid: number): Stalled[] {
    const taken = [...this.held.values()].filter(({ tx }) => tx.requester === sid);
    for (const { tag } of taken) this.held.delete(tag);
    return taken;
  }

  /** Those whose record has not been written, oldest first. */
  unrecorded(): Stalled[] {
    return [...this.held.values()].filter(({ record }) => record !== null);
  }
}

function copyOf(tx: Transaction): Transaction {
  return Object.assign(new Transaction(), tx);
}
