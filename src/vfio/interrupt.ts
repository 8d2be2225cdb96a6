/** One interrupt of a device, arriving on an eventfd. */
import type { EventFdHandle, Kernel } from '../ports/kernel.ts';
import { closed } from './error.ts';
import type { Interrupts } from './interrupts.ts';
import { Resource } from './resource.ts';

/** `count` interrupts arrived since the last call; they merge while nobody looks. */
export type InterruptListener = (count: number) => void;

/**
 * Counts are never lost between listeners: whoever looks first takes all, and every listener and iterator is told.
 *
 * @example
 * const { vectors: [vector] } = device.msix.enable(1);
 * for await (const count of vector) console.log(`${count} interrupts`);
 */
export class Interrupt extends Resource {
  /** Its number among the interrupts of its kind: the MSI-X vector. */
  readonly vector: number;
  readonly eventfd: EventFdHandle;
  readonly #kernel: Kernel;
  readonly #owner: Interrupts;
  readonly #listeners = new Set<InterruptListener>();
  readonly #streams = new Set<Stream>();
  #stopWatching: (() => void) | null = null;
  /** Arrived at an iterator that was left before it gave them out. */
  #kept = 0;
  #fd: number;

  /** Made by {@link Interrupts.enable}. */
  constructor(kernel: Kernel, owner: Interrupts, vector: number, eventfd: EventFdHandle) {
    super();
    this.#kernel = kernel;
    this.#owner = owner;
    this.vector = vector;
    this.eventfd = eventfd;
    this.#fd = eventfd.fd;
  }

  get label(): string {
    return `${this.#owner.kind} ${this.vector} of ${this.#owner.deviceName}`;
  }

  /** The file descriptor that the kernel signals: its own eventfd's, another after `redirect`, -1 for none. */
  get target(): number {
    return this.#fd;
  }

  /** Takes what arrived and answers how many, without waiting. @throws VfioError EBADF after close */
  take(): number {
    this.assertOpen('read(eventfd)');
    return this.#collect();
  }

  /** Calls `listener` whenever interrupts arrived. Returns the way to stop. @throws VfioError EBADF after close */
  onInterrupt(listener: InterruptListener): () => void {
    this.assertOpen('watch(eventfd)');
    this.#listeners.add(listener);
    this.#watch();
    return () => {
      this.#listeners.delete(listener);
      this.#rest();
    };
  }

  /** The next arrival. Rejects with VfioError EBADF when the interrupt is disabled or closed first. */
  async next(): Promise<number> {
    for await (const count of this) return count;
    throw closed(this.label, 'read(eventfd)');
  }

  /** Yields the number that arrived, each time some did; ends when the interrupt is disabled or closed. */
  [Symbol.asyncIterator](): AsyncIterableIterator<number> {
    const stream = new Stream((ended, undelivered) => {
      this.#streams.delete(ended);
      if (this.#streams.size === 0 && this.#listeners.size === 0) this.#kept += undelivered;
      this.#rest();
    });
    if (this.isClosed) {
      stream.end();
    } else {
      this.#streams.add(stream);
      this.#watch();
    }
    return stream;
  }

  /** Loopback: the kernel signals the eventfd as if the device had raised the interrupt. @throws VfioError */
  trigger(): void {
    this.assertOpen('VFIO_DEVICE_SET_IRQS');
    this.#owner.trigger(this.vector);
  }

  /**
   * Lets the kernel signal another eventfd (an irqfd's, say); null for none. The kernel takes the handler away for a moment
   * (vfio_pci_intrs.c `vfio_msi_set_vector_signal`): an edge in between waits in the device, or is lost.
   * @throws VfioError; then this vector has no handler any more
   */
  redirect(target: EventFdHandle | number | null): void {
    this.assertOpen('VFIO_DEVICE_SET_IRQS');
    const fd = target === null ? -1 : typeof target === 'number' ? target : target.fd;
    this.#fd = -1;
    this.#owner.program(this.vector, [fd]);
    this.#fd = fd;
  }

  /** Back to its own eventfd. @throws VfioError */
  restore(): void {
    this.redirect(this.eventfd);
  }

  protected override release(): void {
    this.#stopWatching?.();
    this.#stopWatching = null;
    this.#listeners.clear();
    for (const stream of [...this.#streams]) stream.end();
    this.#kernel.close(this.eventfd.fd);
  }

  #watch(): void {
    if (this.#stopWatching !== null) return;
    this.#stopWatching = this.eventfd.watch(() => this.#deliver());
    // What arrived before anybody looked makes no further wake-up.
    queueMicrotask(() => {
      if (!this.isClosed && this.#stopWatching !== null) this.#deliver();
    });
  }

  #rest(): void {
    if (this.#listeners.size > 0 || this.#streams.size > 0) return;
    this.#stopWatching?.();
    this.#stopWatching = null;
  }

  #deliver(): void {
    const count = this.#collect();
    if (count === 0) return;
    for (const stream of this.#streams) stream.push(count);
    for (const listener of [...this.#listeners]) listener(count);
  }

  #collect(): number {
    const count = this.#kept + this.eventfd.drain();
    this.#kept = 0;
    return count;
  }
}

/** An async iterator that adds up what arrives while nobody awaits. */
class Stream implements AsyncIterableIterator<number> {
  readonly #onEnd: (stream: Stream, undelivered: number) => void;
  #waiting: ((result: IteratorResult<number>) => void)[] = [];
  #arrived = 0;
  #ended = false;

  constructor(onEnd: (stream: Stream, undelivered: number) => void) {
    this.#onEnd = onEnd;
  }

  push(count: number): void {
    this.#arrived += count;
    const [first, ...others] = this.#waiting;
    if (first === undefined) return;
    this.#waiting = others;
    first({ done: false, value: this.#takeAll() });
  }

  /** No more will come; what did come is still given out. */
  end(): void {
    this.#finish(0);
  }

  next(): Promise<IteratorResult<number>> {
    if (this.#arrived > 0) return Promise.resolve({ done: false, value: this.#takeAll() });
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** The reader leaves; what it did not take goes back. */
  return(): Promise<IteratorResult<number>> {
    this.#finish(this.#takeAll());
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #finish(undelivered: number): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const resolve of this.#waiting) resolve({ done: true, value: undefined });
    this.#waiting = [];
    this.#onEnd(this, undelivered);
  }

  #takeAll(): number {
    const count = this.#arrived;
    this.#arrived = 0;
    return count;
  }
}
