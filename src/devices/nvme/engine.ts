/**
 * The queues at work: doorbells, fetching in bursts, answers into completion queues, what waits for room there. A submission entry that cannot be
 * fetched and a completion entry that cannot be written leave the controller without a way to say so: both are fatal (CSTS.CFS).
 */
import type { HostMemory } from './host-memory.ts';
import type { Interrupts } from './interrupts.ts';
import { type Command, type Completion, CompletionQueue, SubmissionQueue } from './queues.ts';
import { CQ_ENTRY, NvmeStatus, SQ_ENTRY } from './registers.ts';

/** Commands fetched at once from one queue. */
const BURST = 16;

export interface EngineOwner {
  readonly memory: HostMemory;
  readonly interrupts: Interrupts;
  execute(command: Command): void;
  /** An answer is about to be given. */
  answered(command: Command, status: number): void;
  fatal(): void;
}

export class QueueEngine {
  readonly submissions = new Map<number, SubmissionQueue>();
  readonly completions = new Map<number, CompletionQueue>();
  private readonly owner: EngineOwner;

  constructor(owner: EngineOwner) {
    this.owner = owner;
  }

  /** The admin queues, as AQA, ASQ and ACQ place them. */
  start(sq: { base: number; size: number }, cq: { base: number; size: number }): void {
    const completion = new CompletionQueue(0, cq.base, cq.size, 0, true);
    this.completions.set(0, completion);
    this.submissions.set(0, new SubmissionQueue(0, sq.base, sq.size, completion));
  }

  stop(): void {
    for (const queue of this.submissions.values()) queue.deleted = true;
    this.submissions.clear();
    this.completions.clear();
  }

  get hasIoQueues(): boolean {
    return this.submissions.size > 1 || this.completions.size > 1;
  }

  /** Writes of the tail doorbell. False for a value that it cannot have; null without such a queue. */
  ringTail(id: number, tail: number): boolean | null {
    const queue = this.submissions.get(id);
    if (queue === undefined) return null;
    if (!queue.ring(tail)) return false;
    this.pump(queue);
    return true;
  }

  /** Writes of the head doorbell: makes room for what waits, and for further commands. */
  ringHead(id: number, head: number): boolean | null {
    const queue = this.completions.get(id);
    if (queue === undefined) return null;
    if (!queue.ring(head)) return false;
    while (queue.waiting.length > 0 && !queue.isFull) this.write(queue, queue.waiting.shift()!);
    this.owner.interrupts.refreshLine();
    for (const submission of this.submissions.values()) if (submission.completion === queue) this.pump(submission);
    return true;
  }

  /** Answers a command, unless it was answered already. */
  answer(command: Command, status: number, result = 0): void {
    if (command.done) return;
    command.done = true;
    command.queue.outstanding.delete(command);
    this.owner.answered(command, status);
    const queue = command.queue.completion;
    const completion = { command, status, result };
    if (queue.waiting.length > 0 || queue.isFull) queue.waiting.push(completion);
    else this.write(queue, completion);
  }

  /** Ends a submission queue: what was fetched from it is aborted (5.6). */
  remove(queue: SubmissionQueue): void {
    for (const command of [...queue.outstanding]) this.answer(command, NvmeStatus.ABORTED_SQ_DELETION);
    queue.deleted = true;
    this.submissions.delete(queue.id);
  }

  private pump(queue: SubmissionQueue): void {
    const count = queue.ready(BURST);
    const { waiting, size } = queue.completion;
    // With as many answers waiting as the completion queue holds, its host is far behind.
    if (queue.fetching || queue.deleted || count === 0 || waiting.length >= size) return;
    queue.fetching = true;
    this.owner.memory.read(queue.base + queue.head * SQ_ENTRY, count * SQ_ENTRY, (ok, bytes) => {
      queue.fetching = false;
      if (queue.deleted) return;
      if (!ok) {
        this.owner.fatal();
        return;
      }
      for (let index = 0; index < count && !queue.deleted; index++) this.begin(queue.take(bytes, index));
      this.pump(queue);
    });
  }

  private begin(command: Command): void {
    const { outstanding } = command.queue;
    let conflict = false;
    for (const { id } of outstanding) if (id === command.id) conflict = true;
    outstanding.add(command);
    if (conflict) this.answer(command, NvmeStatus.COMMAND_ID_CONFLICT);
    else this.owner.execute(command);
  }

  private write(queue: CompletionQueue, completion: Completion): void {
    const { at, bytes } = queue.entry(completion);
    this.owner.memory.write(at, bytes, (ok) => {
      if (!ok) {
        this.owner.fatal();
        return;
      }
      queue.written = (queue.written + bytes.length / CQ_ENTRY) % queue.size;
      this.owner.interrupts.posted(queue);
    });
  }
}
