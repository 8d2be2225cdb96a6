/** VFIO_DEVICE_SET_IRQS: the checks in Linux's order (vfio_main.c vfio_set_irqs_validate_and_prepare), then the handler of the index. */
import { CapabilityId, Header, Msi, MsiFlags, Msix, msixVectors } from '../../arch/pci/index.ts';
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_REQ_IRQ_INDEX,
  vfio_irq_set,
} from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { Notification } from './err-req.ts';
import { VfioIntx } from './intx.ts';
import type { IrqSetCall } from './irq-set-call.ts';
import { VfioMsi } from './msi-trigger.ts';
import type { VfioPciState } from './state.ts';

const NOTHING = new Uint8Array(0);
const KNOWN_FLAGS = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK;

/** Bytes of payload for each interrupt, by the one data flag. */
const DATA_SIZE = new Map<number, number>([
  [VFIO_IRQ_SET_DATA_NONE, 0],
  [VFIO_IRQ_SET_DATA_BOOL, 1],
  [VFIO_IRQ_SET_DATA_EVENTFD, 4],
]);

type Header32 = { argsz: number; flags: number; index: number; start: number; count: number };

export class VfioPciIrqControl {
  readonly intx: VfioIntx;
  readonly msi: VfioMsi;
  readonly err: Notification;
  readonly req: Notification;
  private readonly state: VfioPciState;

  constructor(state: VfioPciState) {
    this.state = state;
    this.intx = new VfioIntx(state);
    this.msi = new VfioMsi(state);
    this.err = new Notification(state.context, 'ERR');
    this.req = new Notification(state.context, 'REQ');
  }

  /** vfio_pci_get_irq_count: what exists now; MSI and MSI-X are asked of the hardware each time. */
  count(index: number): number {
    const { state } = this;
    const { dev } = state;
    switch (index) {
      case VFIO_PCI_INTX_IRQ_INDEX:
        return state.vconfig[Header.INTERRUPT_PIN] === 0 ? 0 : 1;
      case VFIO_PCI_MSI_IRQ_INDEX: {
        const msi = dev.capability(CapabilityId.MSI);
        return msi === 0
          ? 0
          : 1 << ((dev.configRead(msi + Msi.FLAGS, 2) & MsiFlags.CAPABLE_MASK) >> MsiFlags.CAPABLE_SHIFT);
      }
      case VFIO_PCI_MSIX_IRQ_INDEX: {
        const msix = dev.capability(CapabilityId.MSIX);
        return msix === 0 ? 0 : msixVectors(dev.configRead(msix + Msix.FLAGS, 2));
      }
      case VFIO_PCI_ERR_IRQ_INDEX:
        return dev.isPcie ? 1 : 0;
      case VFIO_PCI_REQ_IRQ_INDEX:
        return 1;
      default:
        return 0;
    }
  }

  /** The ioctl. 0, -errno, or the positive number of vectors that exist. */
  setIrqs(process: Process, argument: number): number {
    const { refusals } = this.state.context;
    const bytes = new Uint8Array(vfio_irq_set.size);
    if (!process.memory.copyIn(argument, bytes))
      return refusals.refuse('EFAULT', 'struct vfio_irq_set is not readable', 'argument');
    const header = vfio_irq_set.read(bytes);
    const size = this.validate(header);
    if (size < 0) return size;
    const data = size === 0 ? NOTHING : new Uint8Array(size);
    if (size > 0 && !process.memory.copyIn(argument + vfio_irq_set.size, data)) {
      return refusals.refuse('EFAULT', `the ${size} bytes behind struct vfio_irq_set are not readable`, 'data');
    }
    return this.apply({
      process,
      flags: header.flags,
      index: header.index,
      start: header.start,
      count: header.count,
      data,
    });
  }

  /** vfio_pci_set_irqs_ioctl. */
  apply(call: IrqSetCall): number {
    const handler = this.handler(call.index, call.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK);
    if (handler !== null) return handler(call);
    const why = `interrupt index ${call.index} has no action 0x${(call.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK).toString(16)}: exactly one of MASK, UNMASK (INTx only) and TRIGGER`;
    return this.state.context.refusals.refuse('ENOTTY', why, 'flags');
  }

  /** What close does: the active kind goes. */
  disableActive(): void {
    if (this.state.irqType === VFIO_PCI_INTX_IRQ_INDEX) this.intx.disable();
    else if (this.state.irqType !== VFIO_PCI_NUM_IRQS) this.msi.disable();
  }

  private handler(index: number, action: number): ((call: IrqSetCall) => number) | null {
    const { intx, msi, err, req } = this;
    if (index === VFIO_PCI_INTX_IRQ_INDEX) {
      if (action === VFIO_IRQ_SET_ACTION_MASK) return (call) => intx.setMask(call);
      if (action === VFIO_IRQ_SET_ACTION_UNMASK) return (call) => intx.setUnmask(call);
      if (action === VFIO_IRQ_SET_ACTION_TRIGGER) return (call) => intx.setTrigger(call);
    }
    if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) return null;
    if (index === VFIO_PCI_MSI_IRQ_INDEX || index === VFIO_PCI_MSIX_IRQ_INDEX) return (call) => msi.setTrigger(call);
    if (index === VFIO_PCI_ERR_IRQ_INDEX && this.state.dev.isPcie) return (call) => err.setTrigger(call);
    return index === VFIO_PCI_REQ_IRQ_INDEX ? (call) => req.setTrigger(call) : null;
  }

  /** vfio_set_irqs_validate_and_prepare: bytes of payload, or -EINVAL. */
  private validate({ argsz, flags, index, start, count }: Header32): number {
    const { refusals } = this.state.context;
    const min = vfio_irq_set.size;
    const refuse = (why: string, field: string): number => refusals.refuse('EINVAL', why, field);
    if (argsz < min) return refuse(`argsz ${argsz} is less than the ${min} bytes of struct vfio_irq_set`, 'argsz');
    if (index >= VFIO_PCI_NUM_IRQS)
      return refuse(`index ${index}: PCI has ${VFIO_PCI_NUM_IRQS} interrupt indexes`, 'index');
    if (count >= 0xffff_ffff - start) return refuse(`start ${start} + count ${count} wraps`, 'count');
    if ((flags & ~KNOWN_FLAGS) !== 0)
      return refuse(`flags 0x${flags.toString(16)} has bits outside 0x${KNOWN_FLAGS.toString(16)}`, 'flags');
    const exist = this.count(index);
    if (start >= exist || start + count > exist) {
      return refuse(
        `vectors [${start}, ${start + count}) of index ${index}, which has ${exist}`,
        start >= exist ? 'start' : 'count',
      );
    }
    const each = DATA_SIZE.get(flags & VFIO_IRQ_SET_DATA_TYPE_MASK);
    if (each === undefined) return refuse('exactly one of DATA_NONE, DATA_BOOL and DATA_EVENTFD is needed', 'flags');
    const size = count * each;
    if (argsz - min < size)
      return refuse(`argsz ${argsz} leaves ${argsz - min} bytes for ${size} bytes of data`, 'argsz');
    return size;
  }
}
