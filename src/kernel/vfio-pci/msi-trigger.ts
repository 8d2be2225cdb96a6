/** MSI and MSI-X of one function (vfio_pci_intrs.c): vectors and the eventfds behind them. */
import {
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
} from '../../uapi/vfio.ts';
import { eventfdCtxFdget } from '../eventfd.ts';
import type { EventFdContext } from '../files.ts';
import type { IrqHandler } from '../irq/pci-irqs.ts';
import type { IrqSetCall } from './irq-set-call.ts';
import { fdAt, signalEventfd } from './signal-eventfd.ts';
import type { VfioPciState } from './state.ts';

/** A vector with an eventfd. Its `handleIrq` is on the way of every interrupt. */
export class VfioMsiVector implements IrqHandler {
  readonly eventfd: EventFdContext;
  readonly irq: number;

  constructor(eventfd: EventFdContext, irq: number) {
    this.eventfd = eventfd;
    this.irq = irq;
  }

  handleIrq(): void {
    this.eventfd.signal();
  }
}

export class VfioMsi {
  private readonly state: VfioPciState;
  /** Vectors that have an eventfd; one with fd -1 is allocated but not here. */
  private readonly vectors = new Map<number, VfioMsiVector>();

  constructor(state: VfioPciState) {
    this.state = state;
  }

  /** The eventfd of a vector, for those who look. */
  vector(index: number): VfioMsiVector | null {
    return this.vectors.get(index) ?? null;
  }

  /** vfio_pci_set_msi_trigger. 0, -errno, or the positive number of vectors that exist when there are fewer than asked for. */
  setTrigger(call: IrqSetCall): number {
    const { state } = this;
    const { refusals } = state.context;
    const active = state.irqType === call.index;
    if (active && call.count === 0 && (call.flags & VFIO_IRQ_SET_DATA_NONE) !== 0) {
      this.disable();
      return 0;
    }
    if (!active && state.irqType !== VFIO_PCI_NUM_IRQS) {
      return refusals.refuse(
        'EINVAL',
        `interrupt index ${state.irqType} is enabled; disable it before index ${call.index}`,
        'index',
      );
    }
    if ((call.flags & VFIO_IRQ_SET_DATA_EVENTFD) !== 0) return active ? this.setBlock(call) : this.enableAndSet(call);
    if (!active) {
      return refusals.refuse(
        'EINVAL',
        `interrupt index ${call.index} is not enabled: there is nothing to disable or to trigger`,
        'index',
      );
    }
    this.loopback(call);
    return 0;
  }

  /** vfio_msi_disable. */
  disable(): void {
    const { state } = this;
    for (const vector of [...this.vectors.keys()]) this.tearDown(vector);
    state.withMemory(() => state.irqs.freeIrqVectors(state.dev));
    if (state.nointx) state.dev.intx(false);
    state.irqType = VFIO_PCI_NUM_IRQS;
  }

  private enableAndSet(call: IrqSetCall): number {
    const error = this.enable(call.start + call.count, call.index);
    if (error !== 0) return error;
    const result = this.setBlock(call);
    if (result !== 0) this.disable();
    return result;
  }

  /** vfio_msi_enable: fewer vectors than asked for are given back, and their number is the answer. */
  private enable(count: number, index: number): number {
    const { state } = this;
    const msix = index === VFIO_PCI_MSIX_IRQ_INDEX;
    const got = state.withMemory(() => {
      const allocated = state.irqs.allocIrqVectors(state.dev, 1, count, msix ? 'msix' : 'msi');
      if (allocated > 0 && allocated < count) state.irqs.freeIrqVectors(state.dev);
      return allocated;
    });
    if (got < count) return got;
    state.irqType = index;
    if (index === VFIO_PCI_MSI_IRQ_INDEX) state.msiQmax = Math.ceil(Math.log2(count));
    return 0;
  }

  /** vfio_msi_set_block: a failure tears down all of the block up to the failing vector, also what worked before. */
  private setBlock(call: IrqSetCall): number {
    for (let i = 0; i < call.count; i += 1) {
      const error = this.setVector(call, call.start + i, fdAt(call.data, i));
      if (error === 0) continue;
      for (let undo = 0; undo <= i; undo += 1) this.tearDown(call.start + undo);
      return error;
    }
    return 0;
  }

  /** vfio_msi_set_vector_signal. The old handler goes first: edges until the new one is there wait in the pending bits. */
  private setVector(call: IrqSetCall, vector: number, fd: number): number {
    const { state } = this;
    const { irqs, context } = state;
    const old = this.tearDown(vector);
    if (fd < 0) return 0;
    const irq = old ?? this.allocateVector(vector, call.index);
    if (irq < 0) return irq;
    const eventfd = eventfdCtxFdget(call.process, fd, context.refusals, `data[${vector - call.start}]`);
    if (typeof eventfd === 'number') return eventfd;
    const entry = new VfioMsiVector(eventfd, irq);
    const msix = call.index === VFIO_PCI_MSIX_IRQ_INDEX;
    const error = state.withMemory(() => {
      if (msix) irqs.rewriteMessage(irq);
      return irqs.requestIrq(irq, entry, `vfio-msi${msix ? 'x' : ''}[${vector}](${state.dev.name})`);
    });
    if (error !== 0) eventfd.put();
    else this.vectors.set(vector, entry);
    return error;
  }

  /** vfio_msi_alloc_irq: an allocated vector's irq, or one more where the controller can. */
  private allocateVector(vector: number, index: number): number {
    const { state } = this;
    const { refusals } = state.context;
    const before = refusals.last;
    const irq = state.irqs.irqVector(state.dev, vector);
    if (irq > 0) return irq;
    // Not there is no failure yet: what counts is whether one more can be had.
    refusals.last = before;
    if (index === VFIO_PCI_MSIX_IRQ_INDEX && state.hasDynMsix) return state.irqs.msixAllocAt(state.dev, vector);
    const why = `vector ${vector} is beyond those that were enabled, and this host cannot add vectors to an enabled function`;
    return state.context.refusals.refuse(
      'EINVAL',
      why,
      'start',
      'disable the index, then enable as many vectors as are needed',
    );
  }

  /** Removes the handler, which masks the entry; the Linux irq stays. Its number, or null when there was no handler. */
  private tearDown(vector: number): number | null {
    const { state } = this;
    const entry = this.vectors.get(vector);
    if (entry === undefined) return null;
    state.withMemory(() => state.irqs.freeIrq(entry.irq));
    this.vectors.delete(vector);
    entry.eventfd.put();
    return entry.irq;
  }

  /** Signals as if the vectors had fired; vectors without an eventfd are skipped. */
  private loopback(call: IrqSetCall): void {
    for (let i = 0; i < call.count; i += 1) {
      const entry = this.vectors.get(call.start + i);
      if (entry === undefined) continue;
      if ((call.flags & VFIO_IRQ_SET_DATA_BOOL) !== 0 && call.data[i] === 0) continue;
      signalEventfd(this.state.context, entry.eventfd);
    }
  }
}
