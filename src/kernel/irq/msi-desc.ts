/** One allocated MSI or MSI-X vector: Linux's struct msi_desc. */
import type { PciDev } from '../pci/pci-dev.ts';

/** An MSI message as it goes into a vector. Halves are signed or unsigned 32-bit. */
export interface MsiMessage {
  addressHi: number;
  addressLo: number;
  data: number;
}

export class MsiDesc {
  readonly dev: PciDev;
  readonly msix: boolean;
  /** Vector number within the function. */
  readonly index: number;
  /** Linux irq number. */
  readonly irq: number;
  /** The parent controller's interrupt, as it arrives at InterruptSink.interrupt: LPI, SPI, or x86's vector with its CPU. */
  hwirq = -1;
  /** Set by prepare: the doorbell's IOVA page (address >> shift << shift), and log2 of its size; shift 0: the message carries the physical address. */
  doorbellIova = 0;
  doorbellShift = 0;
  /** The message last composed. */
  readonly message: MsiMessage = { addressHi: 0, addressLo: 0, data: 0 };
  masked = true;

  constructor(dev: PciDev, msix: boolean, index: number, irq: number) {
    this.dev = dev;
    this.msix = msix;
    this.index = index;
    this.irq = irq;
  }
}
