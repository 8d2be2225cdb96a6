/** What stands behind a Linux irq number: the vector of a function, or a wire of a controller. */
export interface IrqLine {
  /** First part of the name in /proc/interrupts: `ITS-PCI-MSIX-0000:01:00.0`, `GICv3`. */
  readonly chip: string;
  /** The number that /proc/interrupts shows behind the chip: vector of an MSI, interrupt id of a wire. */
  readonly hwirq: number;
  /** A level stays asserted until its source is served; an edge is a message. */
  readonly level: boolean;
  mask(): void;
  unmask(): void;
}
