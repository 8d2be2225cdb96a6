/** A wired interrupt behind a Linux irq: an input of a controller's IrqChip. */
import { IRQ_TYPE, type IrqChip, type IrqType } from './irq-chip.ts';
import type { IrqLine } from './irq-line.ts';

export class WireLine implements IrqLine {
  readonly hwirq: number;
  readonly level: boolean;
  private readonly controller: IrqChip;

  constructor(controller: IrqChip, hwirq: number, type: IrqType) {
    this.controller = controller;
    this.hwirq = hwirq;
    this.level = type === IRQ_TYPE.LEVEL_HIGH;
  }

  get chip(): string {
    return this.controller.name;
  }

  mask(): void {
    this.controller.mask(this.hwirq);
  }

  unmask(): void {
    this.controller.unmask(this.hwirq);
  }
}
