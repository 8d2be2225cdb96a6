/**
 * Peer-to-peer: a request that a bus, a switch or a device of several functions may hand to a neighbour before the IOMMU sees it,
 * unless ACS redirects it (PCIe 6.12). It is what makes functions share an IOMMU group.
 *
 * Root ports do not route to each other here: what passes a root port is the root complex's, and reaches the IOMMU.
 */
import type { BarWindow } from './bar.ts';
import type { Bridge } from './bridge.ts';
import type { HostFunction } from './function.ts';
import type { PciBus } from './pci-bus.ts';

/** Functions that a request could reach at one level of its way up. */
interface Crossing {
  /** The port whose ACS decides; null where nothing can redirect (a conventional bus). */
  readonly port: Bridge | null;
  /** The function itself decides, in a slot of several functions. */
  readonly own: boolean;
  readonly peers: readonly HostFunction[];
}

export class PeerRouter {
  private readonly crossings = new Map<HostFunction, readonly Crossing[]>();
  private readonly everyone: readonly HostFunction[];

  constructor(root: PciBus) {
    this.everyone = [...root.all()];
    for (const bus of buses(root)) {
      for (const [devfn, each] of bus.functions) {
        const found = crossingsOf(bus, devfn, each);
        each.reachesPeers = found.length > 0;
        if (found.length > 0) this.crossings.set(each, found);
      }
    }
  }

  /** The peer's BAR that takes a request of `from` to the untranslated address {hi, lo}, or null when it goes up. */
  find(from: HostFunction, hi: number, lo: number): BarWindow | null {
    const crossings = this.crossings.get(from);
    if (crossings === undefined) return null;
    for (const crossing of crossings) {
      if (crossing.port?.redirects === true) continue;
      if (crossing.own && from.state.acs?.redirectsRequests === true) continue;
      for (const peer of crossing.peers) {
        const window = peer.claim(hi, lo);
        if (window !== null) return window;
      }
    }
    return null;
  }

  /** Is the physical address {hi, lo} in a BAR of some function? */
  owner(hi: number, lo: number): boolean {
    return this.everyone.some((each) => each.claim(hi, lo) !== null);
  }
}

function* buses(bus: PciBus): Generator<PciBus> {
  yield bus;
  for (const bridge of bus.bridges.values()) yield* buses(bridge.secondary);
}

function crossingsOf(bus: PciBus, devfn: number, self: HostFunction): Crossing[] {
  const found: Crossing[] = [];
  const add = (port: Bridge | null, own: boolean, peers: readonly HostFunction[]): void => {
    if (peers.length > 0) found.push({ port, own, peers });
  };
  if (self.spec.express !== undefined || bus.bridge !== null) {
    // Virtual functions hand nothing to each other: a device whose functions do has ACS in them (PCIe 6.12.1.2).
    const slot = [...bus.functions].filter(
      ([other, each]) => other >> 3 === devfn >> 3 && each !== self && !each.isVirtual && !self.isVirtual,
    );
    add(
      null,
      true,
      slot.map(([, each]) => each),
    );
  }
  for (let above = bus.bridge; above !== null; above = above.primary.bridge) {
    if (above.kind === 'pci-bridge') {
      add(
        null,
        false,
        [...above.secondary.all()].filter((each) => each !== self),
      );
    } else if (above.kind === 'switch-downstream') {
      const siblings = [...above.primary.bridges.values()].filter((port) => port !== above);
      add(
        above,
        false,
        siblings.flatMap((port) => [...port.secondary.all()]),
      );
    }
  }
  return found;
}
