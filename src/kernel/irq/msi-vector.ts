/** An allocated vector with everything that acts on it: its descriptor, its registers, its controller. The MSI core's irq_chip. */
import type { IrqLine } from './irq-line.ts';
import type { MsiDesc } from './msi-desc.ts';
import type { MsiHardware } from './msi-hardware.ts';
import type { MsiParent } from './msi-parent.ts';

export class MsiVector implements IrqLine {
  readonly desc: MsiDesc;
  readonly level = false;
  readonly chip: string;
  /** Physical address of the doorbell, as prepare was told; -1 where the platform never prepares (x86). */
  doorbell = -1;
  private readonly hardware: MsiHardware;
  private readonly parent: MsiParent;

  constructor(desc: MsiDesc, hardware: MsiHardware, parent: MsiParent) {
    this.desc = desc;
    this.hardware = hardware;
    this.parent = parent;
    this.chip = `${parent.name}-PCI-${desc.msix ? 'MSIX' : 'MSI'}-${desc.dev.name}`;
  }

  /** /proc/interrupts shows the index within the device's own domain. */
  get hwirq(): number {
    return this.desc.index;
  }

  get masked(): boolean {
    return this.desc.masked;
  }

  /** pci_irq_mask_msix: the function first, then the controller. */
  mask(): void {
    this.desc.masked = true;
    if (this.hardware.canMask) this.hardware.setMask(this.desc.index, true);
    this.parent.mask(this.desc);
  }

  /** The controller first, so that what the function sends at once is not lost. */
  unmask(): void {
    this.desc.masked = false;
    this.parent.unmask(this.desc);
    if (this.hardware.canMask) this.hardware.setMask(this.desc.index, false);
  }

  /** Composes the message anew from what prepare left, and writes it. An affinity change ends here, and keeps the IOVA. */
  recompose(): void {
    this.parent.compose(this.desc, this.desc.message);
    this.rewrite();
  }

  /** Writes the cached message. The entry is masked meanwhile (PCIe 6.1.4.2: changing an unmasked entry is undefined). */
  rewrite(): void {
    const open = !this.desc.masked && this.hardware.canMask;
    if (open) this.hardware.setMask(this.desc.index, true);
    this.hardware.write(this.desc.index, this.desc.message);
    if (open) this.hardware.setMask(this.desc.index, false);
    this.hardware.flush();
  }
}
