/** The two interrupts that are notifications of the kernel: ERR (AER) and REQ (the host wants the device back). */
import { VFIO_IRQ_SET_DATA_BOOL, VFIO_IRQ_SET_DATA_NONE } from '../../uapi/vfio.ts';
import type { KernelContext } from '../context.ts';
import { eventfdCtxFdget } from '../eventfd.ts';
import type { EventFdContext } from '../files.ts';
import type { IrqSetCall } from './irq-set-call.ts';
import { fdAt } from './signal-eventfd.ts';

export class Notification {
  private readonly context: KernelContext;
  /** `ERR` or `REQ`. */
  private readonly name: string;
  private eventfd: EventFdContext | null = null;

  constructor(context: KernelContext, name: string) {
    this.context = context;
    this.name = name;
  }

  get armed(): boolean {
    return this.eventfd !== null;
  }

  /** Without an eventfd nobody hears. It is no interrupt of the function, and the ledger knows nothing of it. */
  signal(): void {
    this.eventfd?.add(1);
  }

  clear(): void {
    this.eventfd?.put();
    this.eventfd = null;
  }

  /** vfio_pci_set_ctx_trigger_single. */
  setTrigger(call: IrqSetCall): number {
    const { refusals } = this.context;
    if (call.start !== 0 || call.count > 1) {
      return refusals.refuse(
        'EINVAL',
        `${this.name} is start 0 and at most count 1, not start ${call.start}, count ${call.count}`,
        'count',
      );
    }
    if ((call.flags & VFIO_IRQ_SET_DATA_NONE) !== 0) {
      if (this.eventfd === null)
        return refusals.refuse('EINVAL', `${this.name} has no eventfd to trigger or to remove`, 'index');
      if (call.count === 1) this.signal();
      else this.clear();
      return 0;
    }
    if (call.count === 0) return refusals.refuse('EINVAL', `${this.name} with data needs count 1`, 'count');
    if ((call.flags & VFIO_IRQ_SET_DATA_BOOL) !== 0) {
      if (call.data[0] !== 0) this.signal();
      return 0;
    }
    return this.replace(call);
  }

  private replace(call: IrqSetCall): number {
    const { refusals } = this.context;
    const fd = fdAt(call.data, 0);
    if (fd < -1) return refusals.refuse('EINVAL', `fd ${fd} is neither a descriptor nor -1`, 'data');
    const eventfd = fd === -1 ? null : eventfdCtxFdget(call.process, fd, refusals, 'data');
    if (typeof eventfd === 'number') return eventfd;
    this.clear();
    this.eventfd = eventfd;
    return 0;
  }
}
