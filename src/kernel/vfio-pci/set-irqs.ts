/** VFIO_DEVICE_SET_IRQS: the checks in Linux's order (vfio_main.c vfio_set_irqs_validate_and_prepare), then the handler of the index. */
import { CapabilityId, Header, Msi, MsiFlags, Msix, msixVectors } from '../../arch/pci/index.ts';
import { VFIO_IRQ_SET_ACTION_PREPARE, VFIO_IRQ_SET_DATA_MSI_IOVA } from '../../uapi/belfry.ts';
import { ERRNO } from '../../uapi/errno.ts';
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
import { userDoorbell } from '../irq/user-doorbell.ts';
import type { Process } from '../process.ts';
import { Notification } from './err-req.ts';
import { VfioIntx } from './intx.ts';
import type { IrqSetCall } from './irq-set-call.ts';
import { VfioMsi } from './msi-trigger.ts';
import type { VfioPciState } from './state.ts';

const NOTHING = new Uint8Array(0);

/** Bits of the flags that an ABI has. */
interface FlagMasks {
  readonly data: number;
  readonly action: number;
}
const LINUX_FLAGS: FlagMasks = { data: VFIO_IRQ_SET_DATA_TYPE_MASK, action: VFIO_IRQ_SET_ACTION_TYPE_MASK };
/** With PREPARE as posted for Linux, and not merged. */
const BELFRY_FLAGS: FlagMasks = {
  data: LINUX_FLAGS.data | VFIO_IRQ_SET_DATA_MSI_IOVA,
  action: LINUX_FLAGS.action | VFIO_IRQ_SET_ACTION_PREPARE,
};

/** Bytes of payload for each interrupt, by the one data flag. */
const DATA_SIZE = new Map<number, number>([
  [VFIO_IRQ_SET_DATA_NONE, 0],
  [VFIO_IRQ_SET_DATA_BOOL, 1],
  [VFIO_IRQ_SET_DATA_EVENTFD, 4],
  [VFIO_IRQ_SET_DATA_MSI_IOVA, 8],
]);

type Header32 = { argsz: number; flags: number; index: number; start: number; count: number };

export class VfioPciIrqControl {
  readonly intx: VfioIntx;
  readonly msi: VfioMsi;
  readonly err: Notification;
  readonly req: Notification;
  private readonly state: VfioPciState;
  private readonly flags: FlagMasks;

  constructor(state: VfioPciState) {
    this.state = state;
    this.flags = state.context.abi === 'belfry' ? BELFRY_FLAGS : LINUX_FLAGS;
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
    const action = call.flags & this.flags.action;
    const handler = this.handler(call.index, action);
    if (handler !== null && (call.flags & VFIO_IRQ_SET_DATA_MSI_IOVA) !== 0 && action !== VFIO_IRQ_SET_ACTION_PREPARE) {
      return this.state.context.refusals.refuse('EINVAL', 'DATA_MSI_IOVA goes with PREPARE alone', 'flags');
    }
    if (handler !== null) return handler(call);
    const why = `interrupt index ${call.index} has no action 0x${action.toString(16)}: exactly one of MASK, UNMASK (INTx only) and TRIGGER`;
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
    const isMsi = index === VFIO_PCI_MSI_IRQ_INDEX || index === VFIO_PCI_MSIX_IRQ_INDEX;
    if (action === VFIO_IRQ_SET_ACTION_PREPARE && isMsi) return (call) => this.prepare(call);
    if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) return null;
    if (isMsi) return (call) => msi.setTrigger(call);
    if (index === VFIO_PCI_ERR_IRQ_INDEX && this.state.dev.isPcie) return (call) => err.setTrigger(call);
    return index === VFIO_PCI_REQ_IRQ_INDEX ? (call) => req.setTrigger(call) : null;
  }

  /** vfio_pci_set_msi_prepare as posted: EOPNOTSUPP, EINVAL, EOPNOTSUPP in this order. Vectors that are allocated keep what they have. */
  private prepare({ index, start, count, flags, data }: IrqSetCall): number {
    const { context, dev, irqType } = this.state;
    const { refusals } = context;
    const mode = index === VFIO_PCI_MSI_IRQ_INDEX ? 'msi' : 'msix';
    const control = userDoorbell(dev);
    // Is the device one whose stage 1 user space owns? An empty request asks just that.
    const refused = control?.prepareStage1?.(mode, start, [], 0) ?? -ERRNO.EOPNOTSUPP;
    if (refused < 0) return refusals.passOn(refused, `${dev.name} has no doorbell that user space could place`);
    if (irqType !== index && irqType !== VFIO_PCI_NUM_IRQS) {
      return refusals.refuse('EINVAL', `interrupt index ${irqType} is enabled, not ${index}`, 'index');
    }
    if ((flags & VFIO_IRQ_SET_DATA_NONE) !== 0) {
      if (count === 0) return refusals.refuse('EINVAL', 'count 0: DATA_NONE un-sets vectors, and names which', 'count');
      return control?.prepareStage1?.(mode, start, null, count) ?? 0;
    }
    if ((flags & VFIO_IRQ_SET_DATA_MSI_IOVA) === 0) {
      return refusals.refuse('EOPNOTSUPP', 'PREPARE takes DATA_MSI_IOVA, or DATA_NONE to un-set', 'flags');
    }
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const iovas = Array.from({ length: count }, (_, i) => view.getBigUint64(i * 8, true));
    return control?.prepareStage1?.(mode, start, iovas) ?? 0;
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
    const known = this.flags.data | this.flags.action;
    if ((flags & ~known) !== 0)
      return refuse(`flags 0x${flags.toString(16)} has bits outside 0x${known.toString(16)}`, 'flags');
    const exist = this.count(index);
    if (start >= exist || start + count > exist) {
      return refuse(
        `vectors [${start}, ${start + count}) of index ${index}, which has ${exist}`,
        start >= exist ? 'start' : 'count',
      );
    }
    const each = DATA_SIZE.get(flags & this.flags.data);
    if (each === undefined) return refuse('exactly one of DATA_NONE, DATA_BOOL and DATA_EVENTFD is needed', 'flags');
    const size = count * each;
    if (argsz - min < size)
      return refuse(`argsz ${argsz} leaves ${argsz - min} bytes for ${size} bytes of data`, 'argsz');
    return size;
  }
}
