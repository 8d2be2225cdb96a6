/** A bus and what sits on it, by device and function number. */
import type { Bridge } from './bridge.ts';
import type { HostFunction } from './function.ts';

/** Whatever answers configuration cycles at a device and function number. */
export interface ConfigNode {
  configRead(offset: number, size: number): number;
  configWrite(offset: number, size: number, value: number): void;
}

export class PciBus {
  /** The bridge above, or null for the root bus. */
  readonly bridge: Bridge | null;
  private readonly rootNumber: number;
  readonly functions = new Map<number, HostFunction>();
  readonly bridges = new Map<number, Bridge>();

  constructor(bridge: Bridge | null, rootNumber = 0) {
    this.bridge = bridge;
    this.rootNumber = rootNumber;
  }

  /** As software configured it. */
  get number(): number {
    return this.bridge === null ? this.rootNumber : this.bridge.secondaryNumber;
  }

  node(devfn: number): ConfigNode | null {
    return this.functions.get(devfn) ?? this.bridges.get(devfn) ?? null;
  }

  /** Everything on the bus in the order of device and function. */
  get devfns(): number[] {
    return [...this.functions.keys(), ...this.bridges.keys()].sort((a, b) => a - b);
  }

  /** Every function on the bus and below it. */
  *all(): Generator<HostFunction> {
    for (const devfn of this.devfns) {
      const here = this.functions.get(devfn);
      if (here !== undefined) yield here;
      else yield* this.bridges.get(devfn)!.secondary.all();
    }
  }

  /** The bus that a configuration cycle for bus `number` reaches from here, or null. */
  route(number: number): PciBus | null {
    if (number === this.number) return this;
    for (const bridge of this.bridges.values()) {
      if (bridge.forwardsConfig(number)) return bridge.secondary.route(number);
    }
    return null;
  }

  /** Something above changed: addresses, decoding and forwarding of all below follow. */
  changed(): void {
    for (const each of this.all()) each.placeChanged();
  }

  /** Conventional reset of all below. */
  reset(): void {
    for (const bridge of this.bridges.values()) bridge.reset();
    for (const each of this.functions.values()) each.reset();
  }
}
