/** The handlers of one shared wire (IRQF_SHARED): each is asked, in the order in which they came. */
import type { IrqHandler } from './pci-irqs.ts';

export class SharedHandlers implements IrqHandler {
  private readonly entries: { readonly handler: IrqHandler; readonly name: string }[] = [];

  constructor(handler: IrqHandler, name: string) {
    this.add(handler, name);
  }

  get names(): string {
    return this.entries.map((entry) => entry.name).join(', ');
  }

  add(handler: IrqHandler, name: string): void {
    this.entries.push({ handler, name });
  }

  /** Takes the handler out; false when it was the last, which the caller then frees. */
  remove(handler: IrqHandler): boolean {
    if (this.entries.length === 1) return false;
    const at = this.entries.findIndex((entry) => entry.handler === handler);
    if (at >= 0) this.entries.splice(at, 1);
    return true;
  }

  handleIrq(): void {
    for (const entry of this.entries) entry.handler.handleIrq();
  }
}
