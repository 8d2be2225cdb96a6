/** An eventfd whose signals are a guest's interrupts (virt/kvm/eventfd.c struct kvm_kernel_irqfd). */
import type { EventFdConsumer } from '../../ports/eventfd.ts';
import { Count, Loss, type LossCode } from '../../ports/ledger.ts';
import type { Tap } from '../../ports/tap.ts';
import { ERRNO, errnoName } from '../../uapi/errno.ts';
import { KVM_IRQ_ROUTING_MSI } from '../../uapi/kvm.ts';
import type { EventFdContext } from '../files.ts';
import type { InjectTarget } from './irqchip.ts';
import { type RoutingEntry, soleEntry } from './routing.ts';
import type { Vm } from './vm.ts';

/**
 * Hot: a signal goes to the target that the last resolution found, for as long as nothing in the VM changed that could
 * move it (route, ITS table, collection, enable bit). Everything else resolves again.
 */
export class Irqfd implements EventFdConsumer {
  readonly eventfd: EventFdContext;
  readonly gsi: number;
  /** Signalled at the guest's EOI, when the irqfd was made with RESAMPLE. */
  readonly resamplefd: EventFdContext | null;
  private readonly vm: Vm;
  private readonly tap: Tap;
  private route: RoutingEntry | null = null;
  private target: InjectTarget | null = null;
  private epoch = 0;
  private stopHangUp: () => void = () => {};

  constructor(vm: Vm, eventfd: EventFdContext, gsi: number, resamplefd: EventFdContext | null) {
    this.vm = vm;
    this.tap = vm.context.tap;
    this.eventfd = eventfd;
    this.gsi = gsi;
    this.resamplefd = resamplefd;
  }

  /** Takes over the eventfd; a count that waits is injected at once. False: it has an irqfd already. */
  activate(onHangUp: () => void): boolean {
    this.update();
    if (!this.eventfd.setConsumer(this)) return false;
    this.stopHangUp = this.eventfd.onHangUp(onHangUp);
    return true;
  }

  deactivate(): void {
    this.stopHangUp();
    this.eventfd.setConsumer(null);
    this.eventfd.put();
    this.resamplefd?.put();
  }

  /** irqfd_update: the table was replaced. */
  update(): void {
    this.route = soleEntry(this.vm.routing, this.gsi);
    this.target = null;
  }

  signalled(): void {
    if (this.tap.observer !== null) this.observe();
    const target = this.target;
    if (target !== null && this.epoch === this.vm.epoch) target.inject();
    else this.resolve();
  }

  private resolve(): void {
    const { irqchip } = this.vm;
    const route = this.route;
    if (route === null || irqchip === null) {
      const entries = this.vm.routing.get(this.gsi)?.length ?? 0;
      this.lose(Loss.NO_ROUTE, () => `gsi ${this.gsi} has ${entries} routing entries`);
      return;
    }
    const target = irqchip.resolve(route);
    if (typeof target === 'number') {
      this.loseRefused(target, route);
      return;
    }
    this.target = target;
    this.epoch = this.vm.epoch;
    target.inject();
  }

  private loseRefused(code: number, route: RoutingEntry): void {
    const msi = `MSI ${hex(route.addressHi)}:${hex(route.addressLo)} data ${route.data >>> 0} device ${hex(route.devid)}`;
    if (code > 0) this.lose(Loss.GUEST_NOT_MAPPED, () => `${msi}: the guest's controller answers ${hex(code)}`);
    else if (code === -ERRNO.EBUSY)
      this.lose(Loss.GUEST_CONTROLLER_OFF, () => `${msi}: EBUSY, the guest has it disabled`);
    else this.lose(Loss.ROUTE_REFUSED, () => `${msi}: ${errnoName(code)}`);
  }

  private lose(loss: LossCode, why: () => string): void {
    this.tap.ledger[Count.LOST + loss]! += 1;
    this.tap.observer?.hop({ at: 'lost', where: 'irqfd', loss, why: why() });
  }

  private observe(): void {
    const route = this.route;
    const msi = route !== null && route.type === KVM_IRQ_ROUTING_MSI;
    this.tap.observer?.hop({
      at: 'irqfd',
      gsi: this.gsi,
      address: msi ? (route.addressHi >>> 0) * 4294967296 + (route.addressLo >>> 0) : 0,
      data: route === null ? 0 : msi ? route.data >>> 0 : route.pin,
      deviceId: msi ? route.devid : -1,
    });
  }
}

const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;
