/** What the emulation needs of the host's side of an interrupt kind: src/vfio's `Interrupts`, or a stand-in of a test. */
import type { EventFdHandle } from '../ports/kernel.ts';

export interface HostInterrupts {
  info(): { readonly count: number; readonly resizable: boolean };
  /** VFIO_DEVICE_SET_IRQS with eventfds, -1 for none. 0, or the smaller number that the kernel can give. */
  program(start: number, fds: readonly number[]): number;
  disable(): void;
}

/** Of INTx. */
export interface HostLine extends HostInterrupts {
  mask(): void;
  unmask(): void;
  resample(eventfd: EventFdHandle | null): void;
}
