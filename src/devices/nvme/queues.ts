/** Queues and the commands in them (4.1, 4.2, 4.6). */
import { SQ_ENTRY } from './registers.ts';

export class Command {
  readonly queue: SubmissionQueue;
  /** The submission entry's sixteen words. */
  readonly words: Uint32Array;
  /** Answered, or aborted: nothing more is said of it. */
  done = false;

  constructor(queue: SubmissionQueue, words: Uint32Array) {
    this.queue = queue;
    this.words = words;
  }

  get opcode(): number {
    return this.words[0] & 0xff;
  }
  /** FUSE and PSDT: zero for a command of its own whose data is told by PRPs. */
  get flags(): number {
    return (this.words[0] >>> 8) & 0xff;
  }
  get id(): number {
    return this.words[0] >>> 16;
  }
  get namespace(): number {
    return this.words[1];
  }
  get prps(): readonly [number, number] {
    const { words } = this;
    return [words[7] * 2 ** 32 + words[6], words[9] * 2 ** 32 + words[8]];
  }
  /** Command word `n`, 10 to 15. */
  word(n: number): number {
    return this.words[n];
  }
}

export class SubmissionQueue {
  readonly id: number;
  readonly base: number;
  readonly size: number;
  readonly completion: CompletionQueue;
  head = 0;
  tail = 0;
  fetching = false;
  deleted = false;
  /** Fetched and not answered. */
  readonly outstanding = new Set<Command>();

  constructor(id: number, base: number, size: number, completion: CompletionQueue) {
    this.id = id;
    this.base = base;
    this.size = size;
    this.completion = completion;
  }

  /** Entries from the head that lie together and wait, up to `most`. */
  ready(most: number): number {
    const { head, tail, size } = this;
    return Math.min(most, tail >= head ? tail - head : size - head);
  }

  /** Takes a doorbell's value; false when it is no possible tail. */
  ring(tail: number): boolean {
    const { size } = this;
    if (tail >= size) return false;
    const waiting = (this.tail - this.head + size) % size;
    const added = (tail - this.tail + size) % size;
    if (waiting + added >= size) return false;
    this.tail = tail;
    return true;
  }

  /** The entry at the head, which moves on. */
  take(bytes: Uint8Array, index: number): Command {
    const view = new DataView(bytes.buffer, bytes.byteOffset + index * SQ_ENTRY, SQ_ENTRY);
    this.head = (this.head + 1) % this.size;
    return new Command(
      this,
      Uint32Array.from({ length: SQ_ENTRY / 4 }, (_, word) => view.getUint32(word * 4, true)),
    );
  }
}

/** What a completion entry says. */
export interface Completion {
  readonly command: Command;
  readonly status: number;
  readonly result: number;
}

export class CompletionQueue {
  readonly id: number;
  readonly base: number;
  readonly size: number;
  readonly vector: number;
  readonly interrupts: boolean;
  head = 0;
  /** Where the next entry goes. */
  tail = 0;
  /** Up to here the entries are in memory. */
  written = 0;
  private phase = 1;
  /** Completions for which the queue had no room. */
  readonly waiting: Completion[] = [];

  constructor(id: number, base: number, size: number, vector: number, interrupts: boolean) {
    this.id = id;
    this.base = base;
    this.size = size;
    this.vector = vector;
    this.interrupts = interrupts;
  }

  get isFull(): boolean {
    return (this.tail + 1) % this.size === this.head;
  }

  /** Has the host entries to look at? */
  get isOccupied(): boolean {
    return this.written !== this.head;
  }

  /** Takes a doorbell's value; false when the host cannot have come so far. */
  ring(head: number): boolean {
    const { size } = this;
    if (head >= size || (head - this.head + size) % size > (this.written - this.head + size) % size) return false;
    this.head = head;
    return true;
  }

  /** The next entry's bytes and place; the queue must have room. */
  entry({ command, status, result }: Completion): { at: number; bytes: Uint8Array } {
    const { queue } = command;
    const at = this.base + this.tail * 16;
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, result, true);
    view.setUint16(8, queue.head, true);
    view.setUint16(10, queue.id, true);
    view.setUint16(12, command.id, true);
    view.setUint16(14, (status << 1) | this.phase, true);
    this.tail = (this.tail + 1) % this.size;
    if (this.tail === 0) this.phase ^= 1;
    return { at, bytes };
  }
}
