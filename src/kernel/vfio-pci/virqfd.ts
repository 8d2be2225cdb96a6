/** An eventfd that user space signals and the kernel acts on (drivers/vfio/virqfd.c): INTx unmask, ioeventfd. */
import type { EventFdConsumer } from '../../ports/eventfd.ts';
import type { Job } from '../../ports/work.ts';
import type { KernelContext } from '../context.ts';
import { eventfdCtxFdget } from '../eventfd.ts';
import type { EventFdContext } from '../files.ts';
import type { Process } from '../process.ts';

export interface VirqfdTarget {
  /** Runs inside the signal; true asks for `thread` once the walk is over. */
  handler(): boolean;
  thread(): void;
}

/** A place for at most one armed eventfd. */
export class VirqfdSlot {
  private armed: Virqfd | null = null;

  get isArmed(): boolean {
    return this.armed !== null;
  }

  /** vfio_virqfd_enable: EBADF and EINVAL of the descriptor come before EBUSY. A count that waits fires at once. */
  enable(context: KernelContext, process: Process, fd: number, target: VirqfdTarget): number {
    const eventfd = eventfdCtxFdget(process, fd, context.refusals);
    if (typeof eventfd === 'number') return eventfd;
    if (this.armed !== null) {
      eventfd.put();
      return context.refusals.refuse('EBUSY', 'an eventfd is armed here already; disarm it with fd -1 first', 'fd');
    }
    const virqfd = new Virqfd(context, eventfd, target, () => this.disable());
    this.armed = virqfd;
    if (virqfd.arm()) return 0;
    this.armed = null;
    eventfd.put();
    return context.refusals.refuse('EBUSY', `eventfd ${eventfd.id} has a consumer in the kernel already`, 'fd');
  }

  /** vfio_virqfd_disable. */
  disable(): void {
    const virqfd = this.armed;
    this.armed = null;
    virqfd?.disarm();
  }
}

class Virqfd implements EventFdConsumer, Job {
  readonly control = true;
  private readonly context: KernelContext;
  private readonly eventfd: EventFdContext;
  private readonly target: VirqfdTarget;
  private readonly stopHangUp: () => void;
  private live = true;

  constructor(context: KernelContext, eventfd: EventFdContext, target: VirqfdTarget, onHangUp: () => void) {
    this.context = context;
    this.eventfd = eventfd;
    this.target = target;
    this.stopHangUp = eventfd.onHangUp(onHangUp);
  }

  arm(): boolean {
    if (this.eventfd.setConsumer(this)) return true;
    this.stopHangUp();
    return false;
  }

  disarm(): void {
    this.live = false;
    this.stopHangUp();
    this.eventfd.setConsumer(null);
    this.eventfd.put();
  }

  signalled(): void {
    if (this.live && this.target.handler()) this.context.work.post(this);
  }

  /** The deferred half. */
  run(): void {
    if (this.live) this.target.thread();
  }
}
