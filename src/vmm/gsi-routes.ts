/** The VM's gsi routes: kept here, since KVM only replaces the whole table; changed in batches, committed once. */
import {
  KVM_IRQ_ROUTING_IRQCHIP,
  KVM_IRQ_ROUTING_MSI,
  KVM_MSI_VALID_DEVID,
  kvm_irq_routing_entry,
} from '../uapi/kvm.ts';
import type { KvmVm } from './kvm-vm.ts';

/** A message as the guest wrote it into a vector: any 64 bits, so the address is kept in unsigned halves. */
export interface RawMessage {
  readonly addressLo: number;
  readonly addressHi: number;
  readonly data: number;
}

const MAX_GSI = 4096;

/**
 * With an ITS or local APICs an MSI has a route of its own. With a GICv2m frame its data names an SPI, whose line exists already: there
 * the gsi follows from the message (QEMU: kvm_arch_msi_data_to_gsi).
 */
export class GsiRoutes {
  readonly #kvm: KvmVm;
  /** Entries as KVM takes them, by gsi. */
  readonly #entries = new Map<number, Uint8Array>();
  readonly #spi: boolean;
  readonly #devid: boolean;
  #dirty = false;
  /** Tables given to KVM. */
  commits = 0;

  constructor(kvm: KvmVm) {
    this.#kvm = kvm;
    const { interrupts } = kvm.map;
    this.#spi = interrupts.type === 'gic' && interrupts.its === undefined;
    this.#devid = interrupts.type === 'gic' && interrupts.its !== undefined;
    // The default table goes with the first commit, so the lines are part of every table from here on.
    for (let gsi = 0; gsi < kvm.firstFreeGsi; gsi++) {
      const irqchip = { irqchip: kvm.lineChip, pin: gsi };
      this.#entries.set(gsi, kvm_irq_routing_entry.bytes({ gsi, type: KVM_IRQ_ROUTING_IRQCHIP, u: { irqchip } }));
    }
  }

  /** Stages a route. @returns its gsi; -1 when the message leads nowhere or no gsi is left */
  add(message: RawMessage, devid: number): number {
    if (this.#spi) return this.#spiGsi(message);
    for (let gsi = this.#kvm.firstFreeGsi; gsi < MAX_GSI; gsi++) {
      if (this.#entries.has(gsi)) continue;
      this.#put(gsi, message, devid);
      return gsi;
    }
    return -1;
  }

  /** Stages a change. @returns the gsi from now on: another one with a GICv2m frame */
  change(gsi: number, message: RawMessage, devid: number): number {
    if (this.#spi) return this.#spiGsi(message);
    this.#put(gsi, message, devid);
    return gsi;
  }

  remove(gsi: number): void {
    if (gsi < this.#kvm.firstFreeGsi || !this.#entries.delete(gsi)) return;
    this.#dirty = true;
  }

  /** Gives the staged table to KVM, if it changed: before the irqfds that use it are armed. @throws VfioError */
  commit(): void {
    if (!this.#dirty) return;
    this.#kvm.setRouting([...this.#entries.values()]);
    this.#dirty = false;
    this.commits++;
  }

  #spiGsi({ data }: RawMessage): number {
    const gsi = (data & 0xffff) - 32;
    return gsi >= 0 && gsi < this.#kvm.firstFreeGsi ? gsi : -1;
  }

  #put(gsi: number, { addressLo, addressHi, data }: RawMessage, devid: number): void {
    const msi = {
      address_lo: addressLo,
      address_hi: addressHi,
      data,
      devid: this.#devid ? devid : 0,
    };
    const flags = this.#devid ? KVM_MSI_VALID_DEVID : 0;
    this.#entries.set(gsi, kvm_irq_routing_entry.bytes({ gsi, type: KVM_IRQ_ROUTING_MSI, flags, u: { msi } }));
    this.#dirty = true;
  }
}
