/** The vectors of one device while MSI or MSI-X is in use, and how one of them is made and unmade. */
import { Power } from '../../arch/pci/power.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { IrqCore } from './irq-core.ts';
import { MsiDesc } from './msi-desc.ts';
import { type MsiHardware, powerState } from './msi-hardware.ts';
import type { MsiParent, PrepareMsi } from './msi-parent.ts';
import { MsiVector } from './msi-vector.ts';
import type { MsiMode } from './pci-irqs.ts';

const NO_MESSAGE = { addressHi: 0, addressLo: 0, data: 0 };

/** What the device's vectors need of the kernel around them. */
export interface MsiServices {
  readonly irqs: IrqCore;
  prepare(desc: MsiDesc, doorbell: number): number;
  unprepare(desc: MsiDesc): void;
}

export class DeviceMsi {
  readonly dev: PciDev;
  readonly mode: MsiMode;
  readonly parent: MsiParent;
  readonly hardware: MsiHardware;
  /** In order of allocation; `index` of a vector says where it stands in the function. */
  readonly vectors: MsiVector[] = [];
  private readonly byIndex = new Map<number, MsiVector>();
  private readonly services: MsiServices;
  /** Vectors whose doorbell was prepared: what a failure behind prepare must give back. */
  private readonly preparedDescs = new Set<MsiDesc>();
  private readonly prepare: PrepareMsi;
  private making: readonly MsiVector[] = [];

  constructor(dev: PciDev, mode: MsiMode, parent: MsiParent, hardware: MsiHardware, services: MsiServices) {
    this.dev = dev;
    this.mode = mode;
    this.parent = parent;
    this.hardware = hardware;
    this.services = services;
    this.prepare = (desc, doorbell) => this.prepareOne(desc, doorbell);
  }

  at(index: number): MsiVector | null {
    return this.byIndex.get(index) ?? null;
  }

  /** Allocates vectors [first, first + count): one block of the parent. 0, or -errno with nothing left behind. */
  add(first: number, count: number): number {
    const { irqs } = this.services;
    const irq = irqs.allocate(count);
    const made = Array.from(
      { length: count },
      (_, i) =>
        new MsiVector(new MsiDesc(this.dev, this.mode === 'msix', first + i, irq + i), this.hardware, this.parent),
    );
    for (const vector of made) irqs.setLine(vector.desc.irq, vector);
    this.making = made;
    const error = this.parent.allocate(
      this.dev,
      made.map((vector) => vector.desc),
      this.prepare,
    );
    this.making = [];
    if (error < 0) {
      for (const vector of made.reverse()) this.forget(vector);
      return error;
    }
    for (const vector of made) this.start(vector);
    return 0;
  }

  /** Masks, takes the handler away, clears the message and gives everything back. */
  remove(vectors: readonly MsiVector[]): void {
    const { irqs } = this.services;
    for (const vector of vectors) {
      irqs.freeIrq(vector.desc.irq);
      if (!vector.masked) vector.mask();
    }
    this.hardware.flush();
    const reachable = powerState(this.dev) === Power.D0;
    for (const { desc } of vectors) {
      this.parent.deactivate(desc);
      // msi_domain_deactivate: what the function would send next is no address of a doorbell any more. A function in D3 is left alone (__pci_write_msi_msg).
      if (reachable) this.hardware.write(desc.index, NO_MESSAGE);
      this.services.irqs.dissociate(desc.hwirq);
    }
    this.parent.free(
      this.dev,
      vectors.map((vector) => vector.desc),
    );
    for (const vector of vectors) this.forget(vector);
  }

  private start(vector: MsiVector): void {
    this.vectors.push(vector);
    this.byIndex.set(vector.desc.index, vector);
    this.services.irqs.associate(vector.desc.hwirq, vector.desc.irq);
    this.parent.activate(vector.desc);
    vector.recompose();
  }

  private forget(vector: MsiVector): void {
    const { desc } = vector;
    const at = this.vectors.lastIndexOf(vector);
    if (at >= 0) {
      this.vectors.splice(at, 1);
      this.byIndex.delete(desc.index);
    }
    if (this.preparedDescs.delete(desc)) this.services.unprepare(desc);
    this.services.irqs.release(desc.irq);
  }

  private prepareOne(desc: MsiDesc, doorbell: number): number {
    const vector = this.making.find((candidate) => candidate.desc === desc);
    if (vector !== undefined) vector.doorbell = doorbell;
    const result = this.services.prepare(desc, doorbell);
    if (result >= 0) this.preparedDescs.add(desc);
    return result;
  }
}
