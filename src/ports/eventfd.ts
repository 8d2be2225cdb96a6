/**
 * An eventfd, simulated or real: the same to kernel/ and devices/.
 *
 * Reads never block: waiting is watching. Watchers are user space and run after the walk that signalled, never inside
 * it; the one consumer is the kernel's (an irqfd) and runs inside the signal, as KVM's wake-up function does.
 */
export interface EventFd {
  /** Number for people: unique among the live eventfds of one kernel. */
  readonly id: number;
  /** Adds 1 to the counter (saturating at 2^53 - 1 here; 2^64 - 2 on Linux). */
  signal(): void;
  /** Reads and zeroes the counter; 0 when nothing was there. */
  drain(): number;
  readonly count: number;
  /** Calls back after a walk in which the counter became non-zero, and again for each such walk. Returns the way to stop. */
  watch(watcher: () => void): () => void;
  /** Calls back when the last file descriptor of it was closed (EPOLLHUP). Returns the way to stop. */
  onHangUp(watcher: () => void): () => void;
  /**
   * Installs the kernel-side consumer; false when there is one already, or when this eventfd cannot carry one.
   * The consumer is called with each signal instead of the counter rising, and user-space watchers see nothing.
   */
  setConsumer(consumer: EventFdConsumer | null): boolean;
}

export interface EventFdConsumer {
  /** Signals are requests (unmask this line), not interrupts on their way: the ledger does not count them. */
  readonly control?: true;
  signalled(): void;
}
