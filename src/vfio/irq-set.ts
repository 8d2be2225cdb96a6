/** VFIO_DEVICE_SET_IRQS: one request, three kinds of data, three actions. */
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  vfio_irq_set,
} from '../uapi/vfio-irq.ts';
import { fitting, refuseArgument } from './argument.ts';

const REQUEST = 'VFIO_DEVICE_SET_IRQS';

const ACTIONS = {
  mask: VFIO_IRQ_SET_ACTION_MASK,
  unmask: VFIO_IRQ_SET_ACTION_UNMASK,
  trigger: VFIO_IRQ_SET_ACTION_TRIGGER,
} as const;
export type IrqAction = keyof typeof ACTIONS;

/** What goes with the action: nothing for `count` interrupts, a yes or no each, or a file descriptor (-1: none) each. */
export type IrqData =
  | { readonly count: number }
  | { readonly flags: readonly boolean[] }
  | { readonly fds: readonly number[] };

/** The request's bytes. */
export function irqSetBytes(index: number, action: IrqAction, start: number, data: IrqData): Uint8Array {
  const { kind, count, payload } = encode(data);
  const argsz = vfio_irq_set.size + payload.length;
  const bytes = new Uint8Array(argsz);
  fitting(REQUEST, () => vfio_irq_set.patch(bytes, { argsz, flags: ACTIONS[action] | kind, index, start, count }));
  bytes.set(payload, vfio_irq_set.size);
  return bytes;
}

function encode(data: IrqData): { kind: number; count: number; payload: Uint8Array } {
  if ('count' in data) return { kind: VFIO_IRQ_SET_DATA_NONE, count: data.count, payload: new Uint8Array(0) };
  if ('flags' in data) {
    const payload = Uint8Array.from(data.flags, (flag) => (flag ? 1 : 0));
    return { kind: VFIO_IRQ_SET_DATA_BOOL, count: data.flags.length, payload };
  }
  if (!Array.isArray(data.fds)) refuseArgument(REQUEST, 'fds', 'a list of file descriptors', data.fds);
  const payload = new Uint8Array(data.fds.length * 4);
  const view = new DataView(payload.buffer);
  for (const [i, fd] of data.fds.entries()) {
    if (typeof fd !== 'number' || (fd | 0) !== fd) refuseArgument(REQUEST, `fds[${i}]`, 'a file descriptor, or -1', fd);
    view.setInt32(i * 4, fd, true);
  }
  return { kind: VFIO_IRQ_SET_DATA_EVENTFD, count: data.fds.length, payload };
}
