/** eventfd (fs/eventfd.c): a counter that the kernel signals and user space drains. */
import type { EventFdConsumer } from '../ports/eventfd.ts';
import { Count, Loss } from '../ports/ledger.ts';
import type { Tap } from '../ports/tap.ts';
import type { Job, WorkQueue } from '../ports/work.ts';
import type { EventFdContext, File } from './files.ts';
import type { Process } from './process.ts';
import type { RefusalLog } from './refusal.ts';

/** EPOLLIN and EPOLLOUT. */
const READABLE = 1;
const WRITABLE = 4;
const LIMIT = Number.MAX_SAFE_INTEGER;

/**
 * The counter with its kernel-side references. `signal` is what an interrupt's handler calls and is accounted in the
 * ledger; `add` is a counter rising for any other reason (user space's write, the REQ and ERR notifications).
 */
export class SimEventFd implements EventFdContext, Job {
  readonly id: number;
  count = 0;
  private consumer: EventFdConsumer | null = null;
  private readonly tap: Tap;
  private readonly work: WorkQueue;
  /** Is one of the signals behind `count` an interrupt that the ledger holds as pending? */
  private pending = false;
  private references = 0;
  private readonly watchers = new Set<() => void>();
  private readonly hangUps = new Set<() => void>();

  constructor(id: number, initial: number, tap: Tap, work: WorkQueue) {
    this.id = id;
    this.count = initial;
    this.tap = tap;
    this.work = work;
  }

  /** Hot: with a consumer, two loads and a call. */
  signal(): void {
    if (this.tap.observer !== null) this.observe();
    const consumer = this.consumer;
    if (consumer !== null) consumer.signalled();
    else this.rise();
  }

  /** Raises the counter without an interrupt behind it. With a consumer of interrupts each call is one that user space sent. */
  add(value: number): void {
    if (value === 0) return;
    if (this.consumer !== null) {
      if (this.consumer.control === undefined) this.tap.ledger[Count.SENT]! += 1;
      this.consumer.signalled();
      return;
    }
    this.count = Math.min(this.count + value, LIMIT);
    this.wake();
  }

  drain(): number {
    const count = this.count;
    this.count = 0;
    this.settle(Count.DELIVERED);
    return count;
  }

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    if (this.count > 0) this.work.post(this);
    return () => this.watchers.delete(watcher);
  }

  onHangUp(watcher: () => void): () => void {
    this.hangUps.add(watcher);
    return () => this.hangUps.delete(watcher);
  }

  /** A count that waits goes to the new consumer as one signal, as KVM_IRQFD does with an eventfd that is already readable. */
  setConsumer(consumer: EventFdConsumer | null): boolean {
    if (consumer !== null && this.consumer !== null) return false;
    this.consumer = consumer;
    if (consumer !== null && this.count > 0) {
      this.count = 0;
      if (consumer.control !== undefined) this.settle(Count.DELIVERED);
      else if (this.pending) {
        this.pending = false;
        this.tap.ledger[Count.PENDING]! -= 1;
      } else this.tap.ledger[Count.SENT]! += 1;
      consumer.signalled();
    }
    return true;
  }

  get(): void {
    this.references += 1;
  }

  /** The last reference, of files and kernel together, takes with it what nobody read. */
  put(): void {
    this.references -= 1;
    if (this.references > 0) return;
    this.settle(Count.LOST + Loss.EVENTFD_CLOSED);
    this.count = 0;
    this.watchers.clear();
    this.hangUps.clear();
  }

  /** The last descriptor was closed (EPOLLHUP): at once, since what listens detaches itself (irqfd, virqfd). */
  hangUp(): void {
    for (const watcher of [...this.hangUps]) watcher();
    this.put();
  }

  /** The queue's side of `watch`. */
  run(): void {
    if (this.count === 0) return;
    for (const watcher of [...this.watchers]) watcher();
  }

  private rise(): void {
    if (this.count < LIMIT) this.count += 1;
    if (this.pending) this.tap.ledger[Count.COALESCED]! += 1;
    else {
      this.pending = true;
      this.tap.ledger[Count.PENDING]! += 1;
    }
    this.wake();
  }

  private wake(): void {
    if (this.watchers.size > 0) this.work.post(this);
  }

  /** What was pending ends in `slot`. */
  private settle(slot: number): void {
    if (!this.pending) return;
    this.pending = false;
    this.tap.ledger[Count.PENDING]! -= 1;
    this.tap.ledger[slot]! += 1;
  }

  private observe(): void {
    this.tap.observer?.hop({ at: 'eventfd', id: this.id, count: this.count + 1 });
  }
}

/** The open file of an eventfd. Its release is the hang-up; the counter lives on while the kernel keeps it. */
export class EventFdFile implements File {
  readonly name = 'anon_inode:[eventfd]';
  readonly eventfd: SimEventFd;
  private readonly refusals: RefusalLog;

  constructor(eventfd: SimEventFd, refusals: RefusalLog) {
    this.eventfd = eventfd;
    this.refusals = refusals;
    eventfd.get();
  }

  read(process: Process, address: number, count: number): number {
    if (count < 8) return this.refusals.refuse('EINVAL', `an eventfd is read 8 bytes at a time, not ${count}`, 'count');
    if (this.eventfd.count === 0) {
      return this.refusals.refuse(
        'EAGAIN',
        'the counter is zero, and reads never wait here: watch the descriptor instead',
        'fd',
      );
    }
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(this.eventfd.drain()), true);
    if (process.memory.copyOut(address, bytes)) return 8;
    return this.refusals.refuse('EFAULT', 'the buffer is not writable', 'buffer');
  }

  write(process: Process, address: number, count: number): number {
    if (count < 8)
      return this.refusals.refuse('EINVAL', `an eventfd is written 8 bytes at a time, not ${count}`, 'count');
    const bytes = new Uint8Array(8);
    if (!process.memory.copyIn(address, bytes))
      return this.refusals.refuse('EFAULT', 'the buffer is not readable', 'buffer');
    const value = new DataView(bytes.buffer).getBigUint64(0, true);
    if (value === 0xffff_ffff_ffff_ffffn)
      return this.refusals.refuse('EINVAL', 'an eventfd cannot be raised by 2^64 - 1', 'value');
    this.eventfd.add(Number(value));
    return 8;
  }

  poll(): number {
    return WRITABLE | (this.eventfd.count > 0 ? READABLE : 0);
  }

  release(): void {
    this.eventfd.hangUp();
  }
}

/** eventfd_ctx_fdget: the eventfd behind a descriptor, with a reference taken (give it back with `put`); -EBADF, -EINVAL. */
export function eventfdCtxFdget(
  process: Process,
  fd: number,
  refusals: RefusalLog,
  field = 'fd',
): EventFdContext | number {
  const file = process.file(fd);
  if (file === null) return refusals.refuse('EBADF', `file descriptor ${fd} is not open`, field);
  if (file.eventfd === undefined)
    return refusals.refuse('EINVAL', `file descriptor ${fd} (${file.name}) is not an eventfd`, field);
  file.eventfd.get();
  return file.eventfd;
}
