/** INTx of an assigned device: a level that the host's handler masks at once, and that the guest's end of interrupt lets fire again. */
import type { EventFdHandle } from '../ports/kernel.ts';
import type { HostLine } from './host-interrupts.ts';
import type { KvmVm } from './kvm-vm.ts';

/**
 * Both ways bypass this program: the trigger eventfd is an irqfd with RESAMPLE, and KVM's resample eventfd unmasks the line in vfio-pci
 * (QEMU vfio_intx_enable_kvm).
 */
export class Intx {
  /** The guest's gsi. */
  readonly gsi: number;
  readonly #kvm: KvmVm;
  readonly #host: HostLine;
  #trigger: EventFdHandle | null = null;
  #resample: EventFdHandle | null = null;

  constructor(kvm: KvmVm, host: HostLine, gsi: number) {
    this.#kvm = kvm;
    this.#host = host;
    this.gsi = gsi;
  }

  get enabled(): boolean {
    return this.#trigger !== null;
  }

  /** The irqfd is armed before the device may fire. @throws VfioError */
  enable(): void {
    if (this.enabled) return;
    const trigger = this.#kvm.eventfd();
    const resample = this.#kvm.eventfd();
    this.#trigger = trigger;
    this.#resample = resample;
    this.#kvm.assignIrqfd(trigger, this.gsi, resample);
    this.#host.program(0, [trigger.fd]);
    this.#host.resample(resample);
  }

  /** VFIO allows one kind at a time: off before MSI or MSI-X goes on. @throws VfioError */
  disable(): void {
    if (this.#trigger === null || this.#resample === null) return;
    this.#host.resample(null);
    this.#host.disable();
    this.#kvm.deassignIrqfd(this.#trigger, this.gsi);
    this.#kvm.setLine(this.gsi, false);
    this.#kvm.kernel.close(this.#trigger.fd);
    this.#kvm.kernel.close(this.#resample.fd);
    this.#trigger = null;
    this.#resample = null;
  }
}
