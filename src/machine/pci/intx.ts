/** INTx: a level on a pin (PCI 3.0 sections 2.2.6 and 6.2.3; PCIe 6.1.2 carries it as messages). */
import { Command, Header, PciStatus } from '../../arch/pci/index.ts';
import type { ConfigSpace } from './config-space.ts';

export interface PinOwner {
  readonly messagesEnabled: boolean;
  routeInterrupt(asserted: boolean): void;
}

export class IntxPin {
  /** What the device wants; STATUS shows it whether or not the pin may be driven. */
  private wanted = false;
  /** What the pin is driven to. */
  asserted = false;
  private readonly config: ConfigSpace;
  private readonly owner: PinOwner;

  constructor(config: ConfigSpace, owner: PinOwner) {
    this.config = config;
    this.owner = owner;
  }

  drive(wanted: boolean): void {
    if (this.config.read(Header.INTERRUPT_PIN, 1) === 0) return;
    this.wanted = wanted;
    const status = this.config.read(Header.STATUS, 2);
    this.config.set(Header.STATUS, 2, wanted ? status | PciStatus.INTERRUPT : status & ~PciStatus.INTERRUPT);
    this.refresh();
  }

  /** After a change of COMMAND or of the MSI enables: a function with MSI or MSI-X enabled shall not use its pin. */
  refresh(): void {
    const disabled = (this.config.read(Header.COMMAND, 2) & Command.INTX_DISABLE) !== 0 || this.owner.messagesEnabled;
    const asserted = this.wanted && !disabled;
    if (asserted === this.asserted) return;
    this.asserted = asserted;
    this.owner.routeInterrupt(asserted);
  }

  reset(): void {
    this.drive(false);
  }
}

/** The pin that `pin` of device `device` becomes on the bus above its bridge: each slot is turned by one (PCI-to-PCI Bridge 1.2, 9.1). */
export const swizzle = (pin: number, device: number): number => ((pin - 1 + device) & 3) + 1;
