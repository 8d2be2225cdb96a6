/** A real eventfd behind the EventFd port. */
import { readFileSync } from 'node:fs';
import type { Libc } from '../libc/index.ts';
import type { EventFdConsumer } from '../ports/eventfd.ts';
import type { EventFdHandle } from '../ports/kernel.ts';

export class LinuxEventFd implements EventFdHandle {
  readonly fd: number;
  private readonly libc: Libc;
  private readonly watchers = new Set<() => void>();
  private readonly hangUps = new Set<() => void>();
  private stopPolling: (() => void) | null = null;
  private closed = false;
  /** Somebody took the counter since the watchers were called. */
  private taken = false;

  constructor(libc: Libc, fd: number) {
    this.libc = libc;
    this.fd = fd;
  }

  /** The kernel's own number, as in /proc/self/fdinfo; -1 where the kernel does not tell it. */
  get id(): number {
    return this.info('id', 10) ?? -1;
  }

  /** Looks without taking; a look costs a file, unlike `drain`. 0 where the kernel does not tell it. */
  get count(): number {
    return this.info('count', 16) ?? 0;
  }

  /** @throws RangeError when it is closed: its number may be another file's by now */
  signal(): void {
    this.assertOpen();
    this.libc.eventfdWrite(this.fd, 1);
  }

  /** @throws RangeError when it is closed */
  drain(): number {
    this.assertOpen();
    const count = this.libc.eventfdRead(this.fd);
    this.wasRead();
    return count;
  }

  /** The counter was taken, here or by a read of the descriptor: a watcher that had left it standing is awake again. */
  wasRead(): void {
    this.taken = true;
    if (this.watchers.size > 0) this.startPolling();
  }

  /** Keeps the program alive while it waits. A watcher that does not drain is not called again before somebody does. */
  watch(watcher: () => void): () => void {
    this.assertOpen();
    this.watchers.add(watcher);
    this.startPolling();
    return () => {
      this.watchers.delete(watcher);
      if (this.watchers.size === 0) this.rest();
    };
  }

  /** Linux tells the poller of an eventfd of its end only inside of the kernel; here `Kernel.close` does. */
  onHangUp(watcher: () => void): () => void {
    this.hangUps.add(watcher);
    return () => this.hangUps.delete(watcher);
  }

  /** False: what the kernel consumes (KVM_IRQFD, a virqfd) is installed by requests with the descriptor. */
  setConsumer(consumer: EventFdConsumer | null): boolean {
    return consumer === null;
  }

  /** Called when the descriptor was closed. */
  hangUp(): void {
    this.closed = true;
    this.stopPolling = null;
    this.watchers.clear();
    for (const watcher of [...this.hangUps]) watcher();
    this.hangUps.clear();
  }

  private startPolling(): void {
    if (this.stopPolling !== null) return;
    const stop = this.libc.poller.watch(this.fd, () => this.readable());
    if (typeof stop === 'number') throw new RangeError(`eventfd ${this.fd} cannot be polled: errno ${-stop}`);
    this.stopPolling = stop;
  }

  private rest(): void {
    this.stopPolling?.();
    this.stopPolling = null;
  }

  private readable(): void {
    // The poll is level-triggered: it goes on when the counter was taken, also where it is above zero again by now; else it would call
    // for ever, and `drain` starts it again. Another process may have taken the counter: then there is nothing to rest for.
    this.taken = false;
    for (const watcher of [...this.watchers]) watcher();
    if (this.closed || this.taken || this.stopPolling === null) return;
    if (this.count > 0) this.rest();
  }

  private info(field: 'id' | 'count', radix: number): number | null {
    if (this.closed) return null;
    try {
      const text = readFileSync(`/proc/self/fdinfo/${this.fd}`, 'latin1');
      const found = new RegExp(`^eventfd-${field}:\\s*([0-9a-f]+)$`, 'm').exec(text);
      return found === null ? null : Number.parseInt(found[1]!, radix);
    } catch {
      return null;
    }
  }

  private assertOpen(): void {
    if (this.closed) throw new RangeError(`eventfd ${this.fd} is closed`);
  }
}
