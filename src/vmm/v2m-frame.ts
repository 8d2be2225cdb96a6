/** The guest's GICv2m frame: KVM has no model of it, so the VMM answers (Arm SBSA, appendix E; QEMU hw/intc/arm_gicv2m.c). */
import { V2M_MSI_IIDR, V2M_MSI_SETSPI_NS, V2M_MSI_TYPER, V2M_SIZE, v2mType } from '../arch/gic/v2m.ts';
import type { KvmVm } from './kvm-vm.ts';

export class GuestV2mFrame {
  readonly base: number;
  readonly #kvm: KvmVm;
  readonly #spiBase: number;
  readonly #spiCount: number;

  constructor(kvm: KvmVm, frame: { base: number; spiBase: number; spiCount: number }) {
    this.#kvm = kvm;
    this.base = frame.base;
    this.#spiBase = frame.spiBase;
    this.#spiCount = frame.spiCount;
  }

  covers(gpa: number): boolean {
    return gpa >= this.base && gpa < this.base + V2M_SIZE;
  }

  read(offset: number): number {
    if (offset === V2M_MSI_TYPER) return v2mType(this.#spiBase, this.#spiCount);
    return offset === V2M_MSI_IIDR ? 0x0053_0000 : 0;
  }

  /** A write of an SPI's number to SETSPI pulses its line; an identifier outside of the frame does nothing. */
  write(offset: number, value: number): void {
    const spi = value & 0x3ff;
    if (offset !== V2M_MSI_SETSPI_NS || spi < this.#spiBase || spi >= this.#spiBase + this.#spiCount) return;
    this.#kvm.setLine(spi - 32, true);
    this.#kvm.setLine(spi - 32, false);
  }
}
