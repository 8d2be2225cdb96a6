/** A device model whose interrupts are looked at while they are raised: what a program lost can be told, and its DMA costs nothing more. */
import type { FunctionSpec, PciFunction, PciPort } from '../ports/pci.ts';

/** Runs `act`, an interrupt's whole way to its consumer. */
export type Watch = <Result>(act: () => Result) => Result;

/** The model, with `watch` around each interrupt that it or one of its virtual functions raises. */
export function watched(model: PciFunction, watch: Watch): PciFunction {
  return model.virtualFunction === undefined
    ? new WatchedFunction(model, watch)
    : new WatchedPhysicalFunction(model, watch);
}

class WatchedFunction implements PciFunction {
  protected readonly model: PciFunction;
  protected readonly watch: Watch;

  constructor(model: PciFunction, watch: Watch) {
    this.model = model;
    this.watch = watch;
  }

  get spec(): FunctionSpec {
    return this.model.spec;
  }

  connect(port: PciPort): void {
    const { watch } = this;
    this.model.connect({
      clock: port.clock,
      raise: (vector) => watch(() => port.raise(vector)),
      get messagesEnabled() {
        return port.messagesEnabled;
      },
      setInterruptLine: (asserted) => watch(() => port.setInterruptLine(asserted)),
      dmaRead: (iova, length, complete, pasid) => port.dmaRead(iova, length, complete, pasid),
      dmaWrite: (iova, bytes, complete, pasid) => port.dmaWrite(iova, bytes, complete, pasid),
      barMemory: (bar, offset, size) => port.barMemory(bar, offset, size),
    });
  }

  reset(): void {
    this.model.reset();
  }
}

class WatchedPhysicalFunction extends WatchedFunction {
  virtualFunction(index: number): PciFunction {
    const made = this.model.virtualFunction?.(index);
    if (made === undefined) throw new RangeError(`${this.spec.name}: the model makes no virtual functions`);
    return watched(made, this.watch);
  }
}
