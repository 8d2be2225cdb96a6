/** One MSI or MSI-X vector of an assigned device, on its way into the guest: QEMU's VFIOMSIVector. */
import type { EventFdHandle } from '../ports/kernel.ts';
import type { GsiRoutes, RawMessage } from './gsi-routes.ts';
import type { KvmVm } from './kvm-vm.ts';

/**
 * Two eventfds: `bypass` is an irqfd, by which an interrupt goes from the host's handler into the guest without this program;
 * `held` is read by this program, and takes the device's interrupts while the guest masks the vector.
 */
export class Vector {
  readonly index: number;
  readonly bypass: EventFdHandle;
  readonly held: EventFdHandle;
  gsi = -1;
  readonly #kvm: KvmVm;
  readonly #routes: GsiRoutes;
  #armed = false;
  #message: RawMessage = { addressLo: 0, addressHi: 0, data: 0 };

  constructor(kvm: KvmVm, routes: GsiRoutes, index: number) {
    this.#kvm = kvm;
    this.#routes = routes;
    this.index = index;
    this.bypass = kvm.eventfd();
    this.held = kvm.eventfd();
  }

  /** Stages the route for the guest's message; nothing when it is the same as before. */
  stage(message: RawMessage, devid: number): void {
    if (this.gsi >= 0 && sameMessage(this.#message, message)) return;
    this.#message = message;
    const before = this.gsi;
    const gsi = before < 0 ? this.#routes.add(message, devid) : this.#routes.change(before, message, devid);
    if (gsi !== before) this.#disarm();
    this.gsi = gsi;
  }

  /** Makes `bypass` an irqfd. Its route must be committed by now: an interrupt that is there already is injected at once. */
  arm(): void {
    if (this.#armed || this.gsi < 0) return;
    this.#kvm.assignIrqfd(this.bypass, this.gsi);
    this.#armed = true;
  }

  /** What arrived in this program's eventfd since the last call. */
  takeHeld(): number {
    return this.held.drain();
  }

  /** Sends an interrupt that was held into the guest, by the way that the device's own take. */
  forward(): void {
    this.bypass.signal();
  }

  /** Takes the irqfd and the route away (the route with the next commit), and closes the eventfds. */
  close(): void {
    this.#disarm();
    if (this.gsi >= 0) this.#routes.remove(this.gsi);
    this.gsi = -1;
    this.#kvm.kernel.close(this.bypass.fd);
    this.#kvm.kernel.close(this.held.fd);
  }

  #disarm(): void {
    if (!this.#armed) return;
    this.#kvm.deassignIrqfd(this.bypass, this.gsi);
    this.#armed = false;
  }
}

export const sameMessage = (a: RawMessage, b: RawMessage): boolean =>
  a.addressLo === b.addressLo && a.addressHi === b.addressHi && a.data === b.data;
