/** What a PCI driver (vfio-pci) asks of the interrupt core: drivers/pci/msi/api.c and kernel/irq/manage.c behind one interface. */
import type { PciDev } from '../pci/pci-dev.ts';
import type { MsiParent } from './msi-parent.ts';

/** A driver's interrupt handler. One object per vector, so that the hot path calls one shape. */
export interface IrqHandler {
  handleIrq(): void;
}

export type MsiMode = 'msi' | 'msix';

export interface PciIrqs {
  /**
   * pci_alloc_irq_vectors with one of PCI_IRQ_MSI and PCI_IRQ_MSIX: from `min` to `max` vectors, all masked, their messages written. The positive
   * number of vectors allocated (fewer than `max` when resources end), or -errno in the order of drivers/pci/msi/api.c.
   */
  allocIrqVectors(dev: PciDev, min: number, max: number, mode: MsiMode): number;
  /** pci_free_irq_vectors: masks, disables the capability, then gives back everything in reverse. Nothing allocated: no effect. */
  freeIrqVectors(dev: PciDev): void;
  /** pci_irq_vector: the Linux irq of an allocated vector, or -EINVAL. */
  irqVector(dev: PciDev, index: number): number;
  /** pci_msix_alloc_irq_at: one more vector while MSI-X is enabled. Its irq, or -errno (ENOTSUPP without dynamic MSI-X, EBUSY when taken). */
  msixAllocAt(dev: PciDev, index: number): number;
  /** pci_msix_free_irq. */
  msixFreeAt(dev: PciDev, index: number): void;
  /** Installs the handler and unmasks. 0, EINVAL (no such irq), EBUSY (it has a handler) as -errno. `name` is what /proc/interrupts shows. */
  requestIrq(irq: number, handler: IrqHandler, name: string, shared?: boolean): number;
  /** Masks, then removes the handler; of a shared irq only `handler` goes. */
  freeIrq(irq: number, handler?: IrqHandler | null): void;
  /** enable_irq and disable_irq nest: as many enables as disables before the interrupt is unmasked. */
  enableIrq(irq: number): void;
  disableIrq(irq: number): void;
  /** pci_write_msi_msg of the cached message: recovers a vector that a backdoor reset wiped. */
  rewriteMessage(irq: number): void;
  /** The controller that takes the device's MSIs, or null when the platform has none for it. */
  msiParent(dev: PciDev): MsiParent | null;
}
