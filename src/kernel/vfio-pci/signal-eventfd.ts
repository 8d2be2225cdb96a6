/** Eventfds of interrupts that are no messages of a function: INTx and loopback triggers. */
import { Count } from '../../ports/ledger.ts';
import type { KernelContext } from '../context.ts';
import type { EventFdContext } from '../files.ts';

/** eventfd_signal of an interrupt that no function raised as a message: it is sent here, and ends where the eventfd ends. */
export function signalEventfd(context: KernelContext, eventfd: EventFdContext): void {
  context.tap.ledger[Count.SENT]! += 1;
  eventfd.signal();
}

/** An s32 file descriptor of a SET_IRQS payload. */
export const fdAt = (data: Uint8Array, index: number): number =>
  new DataView(data.buffer, data.byteOffset, data.byteLength).getInt32(4 * index, true);
