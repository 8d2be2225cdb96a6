/** INTx of one function (vfio_pci_intrs.c): a level that is masked with each interrupt until the user unmasks it. */
import { Command, Header } from '../../arch/pci/index.ts';
import {
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
} from '../../uapi/vfio.ts';
import { eventfdCtxFdget } from '../eventfd.ts';
import type { EventFdContext } from '../files.ts';
import type { IrqHandler } from '../irq/pci-irqs.ts';
import type { IrqSetCall } from './irq-set-call.ts';
import { fdAt, signalEventfd } from './signal-eventfd.ts';
import type { VfioPciState } from './state.ts';
import { VirqfdSlot, type VirqfdTarget } from './virqfd.ts';

/** The context of an enabled INTx: xarray slot 0 in Linux. */
class IntxContext implements IrqHandler, VirqfdTarget {
  readonly unmask = new VirqfdSlot();
  trigger: EventFdContext | null;
  masked: boolean;
  /** disable_irq calls that no enable_irq has undone (functions without DisINTx). */
  disabled = 0;
  private readonly owner: VfioIntx;

  constructor(owner: VfioIntx, trigger: EventFdContext | null, masked: boolean) {
    this.owner = owner;
    this.trigger = trigger;
    this.masked = masked;
  }

  handleIrq(): void {
    this.owner.interrupt(this);
  }

  /** The unmask eventfd was signalled: true when the line is still asserted and the user must hear of it again. */
  handler(): boolean {
    return this.owner.unmaskHandler();
  }

  thread(): void {
    this.owner.send(this);
  }
}

export class VfioIntx {
  private readonly state: VfioPciState;
  private context: IntxContext | null = null;

  constructor(state: VfioPciState) {
    this.state = state;
  }

  get active(): boolean {
    return this.state.irqType === VFIO_PCI_INTX_IRQ_INDEX;
  }

  get masked(): boolean {
    return this.context?.masked ?? false;
  }

  /** vfio_pci_set_intx_trigger. */
  setTrigger(call: IrqSetCall): number {
    const { state } = this;
    const { refusals } = state.context;
    if (this.active && call.count === 0 && (call.flags & VFIO_IRQ_SET_DATA_NONE) !== 0) {
      this.disable();
      return 0;
    }
    if ((!this.active && state.irqType !== VFIO_PCI_NUM_IRQS) || call.start !== 0 || call.count !== 1) {
      return refusals.refuse('EINVAL', this.whyNotOne(call), 'start');
    }
    if ((call.flags & VFIO_IRQ_SET_DATA_EVENTFD) !== 0) return this.setEventfd(call);
    if (!this.active || this.context === null)
      return refusals.refuse('EINVAL', 'INTx is not enabled, so there is nothing to trigger', 'index');
    const loopback = (call.flags & VFIO_IRQ_SET_DATA_NONE) !== 0 || call.data[0] !== 0;
    if (loopback) this.send(this.context);
    return 0;
  }

  /** vfio_pci_set_intx_mask. */
  setMask(call: IrqSetCall): number {
    const error = this.checkMasking(call);
    if (error !== 0) return error;
    if ((call.flags & VFIO_IRQ_SET_DATA_EVENTFD) !== 0) {
      return this.state.context.refusals.refuse('ENOTTY', 'masking through an eventfd is not in Linux 7.2', 'flags');
    }
    if ((call.flags & VFIO_IRQ_SET_DATA_NONE) !== 0 || call.data[0] !== 0) this.mask();
    return 0;
  }

  /** vfio_pci_set_intx_unmask. */
  setUnmask(call: IrqSetCall): number {
    const error = this.checkMasking(call);
    if (error !== 0 || this.context === null) return error;
    if ((call.flags & VFIO_IRQ_SET_DATA_EVENTFD) === 0) {
      if ((call.flags & VFIO_IRQ_SET_DATA_BOOL) === 0 || call.data[0] !== 0) this.unmask();
      return 0;
    }
    const fd = fdAt(call.data, 0);
    if (fd >= 0) return this.context.unmask.enable(this.state.context, call.process, fd, this.context);
    this.context.unmask.disable();
    return 0;
  }

  /** Also called for the virtual INTX_DISABLE bit: without INTx in use the real bit then follows it. True when this call masked an INTx in use. */
  mask(): boolean {
    const { state, context } = this;
    if (context === null) {
      if (state.pci23) state.dev.intx(false);
      return false;
    }
    if (context.masked) return false;
    this.maskHardware(context);
    context.masked = true;
    return true;
  }

  unmask(): void {
    const { context } = this;
    if (this.unmaskHandler() && context !== null) this.send(context);
  }

  /** vfio_pci_intx_unmask_handler: true when an interrupt waits, which stays masked and is told again. */
  unmaskHandler(): boolean {
    const { state, context } = this;
    if (context === null) {
      if (state.pci23) state.dev.intx(true);
      return false;
    }
    if (!context.masked || state.virqDisabled) return false;
    if (state.pci23) {
      if (state.dev.intxPending) return true;
      context.masked = false;
      state.dev.intx(true);
      return false;
    }
    context.masked = false;
    while (context.disabled > 0) {
      context.disabled -= 1;
      state.irqs.enableIrq(state.dev.irq);
    }
    return false;
  }

  /** vfio_intx_handler. */
  interrupt(context: IntxContext): void {
    const { state } = this;
    if (state.pci23) {
      // The line may be shared: STATUS says whether it was this function.
      if (context.masked || !state.dev.intxPending) return;
      context.masked = true;
      state.dev.intx(false);
    } else {
      context.masked = true;
      this.maskHardware(context);
    }
    this.send(context);
  }

  /** vfio_send_intx_eventfd. */
  send(context: IntxContext): void {
    if (!this.active || this.state.virqDisabled || context.trigger === null) return;
    signalEventfd(this.state.context, context.trigger);
  }

  /** vfio_intx_disable. */
  disable(): void {
    const { state, context } = this;
    if (context === null) return;
    context.unmask.disable();
    state.irqs.freeIrq(state.dev.irq, context);
    context.trigger?.put();
    state.irqType = VFIO_PCI_NUM_IRQS;
    this.context = null;
  }

  private maskHardware(context: IntxContext): void {
    const { state } = this;
    if (state.pci23) {
      state.dev.intx(false);
      return;
    }
    context.disabled += 1;
    state.irqs.disableIrq(state.dev.irq);
  }

  private checkMasking(call: IrqSetCall): number {
    const { refusals } = this.state.context;
    if (!this.active)
      return refusals.refuse('EINVAL', 'INTx is not enabled, so it cannot be masked or unmasked', 'index');
    if (call.start === 0 && call.count === 1) return 0;
    return refusals.refuse('EINVAL', `INTx is start 0, count 1, not start ${call.start}, count ${call.count}`, 'count');
  }

  private whyNotOne(call: IrqSetCall): string {
    if (!this.active && this.state.irqType !== VFIO_PCI_NUM_IRQS) {
      return `interrupt index ${this.state.irqType} is enabled; disable it before INTx`;
    }
    return `INTx is start 0, count 1, not start ${call.start}, count ${call.count}`;
  }

  private setEventfd(call: IrqSetCall): number {
    const fd = fdAt(call.data, 0);
    const trigger = fd < 0 ? null : eventfdCtxFdget(call.process, fd, this.state.context.refusals, 'data');
    if (typeof trigger === 'number') return trigger;
    const error = this.context === null ? this.enable(trigger) : this.swap(this.context, trigger);
    if (error !== 0) trigger?.put();
    return error;
  }

  /** vfio_intx_set_signal: the line stays requested, so nothing is lost between the two eventfds. */
  private swap(context: IntxContext, trigger: EventFdContext | null): number {
    const old = context.trigger;
    context.trigger = trigger;
    old?.put();
    return 0;
  }

  /** vfio_intx_enable. */
  private enable(trigger: EventFdContext | null): number {
    const { state } = this;
    const { dev, irqs } = state;
    if (dev.irq === 0)
      return state.context.refusals.refuse('ENODEV', `${dev.name} has no INTx interrupt on this host`, 'index');
    const context = new IntxContext(this, trigger, state.virqDisabled);
    this.context = context;
    state.irqType = VFIO_PCI_INTX_IRQ_INDEX;
    if (state.pci23) dev.intx(!context.masked);
    const error = irqs.requestIrq(dev.irq, context, `vfio-intx(${dev.name})`, state.pci23);
    if (error !== 0) {
      this.context = null;
      state.irqType = VFIO_PCI_NUM_IRQS;
      return error;
    }
    // IRQF_NO_AUTOEN: a function that cannot mask itself starts masked at the controller.
    if (!state.pci23 && context.masked && context.disabled === 0) this.maskHardware(context);
    return 0;
  }
}

/** pci_intx_mask_supported: INTX_DISABLE changes when it is written. The bit ends as it was. */
export function intxMaskSupported(state: VfioPciState): boolean {
  const { dev } = state;
  const original = dev.configRead(Header.COMMAND, 2);
  dev.configWrite(Header.COMMAND, 2, original ^ Command.INTX_DISABLE);
  const toggled = dev.configRead(Header.COMMAND, 2);
  if (((toggled ^ original) & Command.INTX_DISABLE) === 0) return false;
  dev.configWrite(Header.COMMAND, 2, original);
  return true;
}
