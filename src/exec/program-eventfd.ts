/** An eventfd of the program, as the simulated kernel holds it: a descriptor of the same open file. */
import type { EventFdContext, File } from '../kernel/files.ts';
import type { Libc } from '../libc/index.ts';
import type { EventFdConsumer } from '../ports/eventfd.ts';
import { Count } from '../ports/ledger.ts';
import type { Tap } from '../ports/tap.ts';

/** Who waits for descriptors on behalf of the kernel. */
export interface Waiter {
  wait(fd: number, readable: () => void): void;
  stop(fd: number): void;
}

export class ProgramEventFd implements EventFdContext, File {
  readonly name = 'anon_inode:[eventfd]';
  /** The real kernel's number of it. */
  readonly id: number;
  private readonly fd: number;
  private readonly libc: Libc;
  private readonly tap: Tap;
  private readonly waiter: Waiter;
  private readonly onGone: () => void;
  private consumer: EventFdConsumer | null = null;
  private references = 0;

  constructor(id: number, fd: number, libc: Libc, tap: Tap, waiter: Waiter, onGone: () => void) {
    this.id = id;
    this.fd = fd;
    this.libc = libc;
    this.tap = tap;
    this.waiter = waiter;
    this.onGone = onGone;
  }

  get eventfd(): EventFdContext {
    return this;
  }

  /** The program drains the counter unseen: an interrupt is delivered when it is written. */
  signal(): void {
    const { consumer, tap } = this;
    if (tap.observer !== null) tap.observer.hop({ at: 'eventfd', id: this.id, count: 1 });
    if (consumer !== null) {
      consumer.signalled();
      return;
    }
    this.libc.eventfdWrite(this.fd, 1);
    tap.ledger[Count.DELIVERED]! += 1;
  }

  add(value: number): void {
    if (value > 0) this.libc.eventfdWrite(this.fd, value);
  }

  /** Takes the counter, without waiting on a blocking descriptor: only called when it is readable. */
  drain(): number {
    return this.libc.eventfdRead(this.fd);
  }

  /** Not known without taking it. */
  get count(): number {
    return 0;
  }

  watch(): () => void {
    return () => {};
  }

  /** The real kernel tells nobody that the program has closed it while this descriptor is open: never called. */
  onHangUp(): () => void {
    return () => {};
  }

  setConsumer(consumer: EventFdConsumer | null): boolean {
    if (consumer !== null && this.consumer !== null) return false;
    if (this.consumer === null && consumer !== null) {
      this.waiter.wait(this.fd, () => {
        if (this.drain() > 0) this.consumer?.signalled();
      });
    } else if (consumer === null && this.consumer !== null) this.waiter.stop(this.fd);
    this.consumer = consumer;
    return true;
  }

  get(): void {
    this.references += 1;
  }

  put(): void {
    this.references -= 1;
    if (this.references <= 0) this.close();
  }

  /** Nobody took it: a look-up that came to nothing. */
  dropUnused(): void {
    if (this.references <= 0) this.close();
  }

  release(): void {}

  private close(): void {
    if (this.consumer !== null) this.setConsumer(null);
    this.libc.close(this.fd);
    this.onGone();
  }
}
