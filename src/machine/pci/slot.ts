/** The place of a function in the tree of buses: its address, its requester id, and what the bridges above let through. */
import type { Bus } from '../../ports/bus.ts';
import { type PciAddress, pciName, requesterId } from '../../ports/pci.ts';
import type { HostFunction } from './function.ts';
import { swizzle } from './intx.ts';
import type { PciBus } from './pci-bus.ts';
import type { FunctionPlace } from './place.ts';

/** What a slot needs of its segment. */
export interface Segment {
  readonly segment: number;
  readonly bus: Bus;
  readonly ioBase: number;
  /** A pin at a device of the root bus: 1 to 4. */
  routePin(device: number, pin: number, asserted: boolean): void;
  /** A virtual function came to, or left, a bus. */
  attachVirtual(on: PciBus, devfn: number, fn: HostFunction): void;
  detachVirtual(on: PciBus, devfn: number, fn: HostFunction): void;
}

export class Slot implements FunctionPlace {
  private readonly segment: Segment;
  private readonly pciBus: PciBus;
  private readonly devfn: number;

  constructor(segment: Segment, pciBus: PciBus, devfn: number) {
    this.segment = segment;
    this.pciBus = pciBus;
    this.devfn = devfn;
  }

  get bus(): Bus {
    return this.segment.bus;
  }

  get ioBase(): number {
    return this.segment.ioBase;
  }

  get address(): PciAddress {
    const { devfn } = this;
    return { segment: this.segment.segment, bus: this.pciBus.number, device: devfn >> 3, function: devfn & 7 };
  }

  get name(): string {
    return pciName(this.address);
  }

  /**
   * Below a PCIe-to-PCI bridge no request tells its sender: the bridge takes ownership with its secondary bus number and
   * devfn 0 (PCIe to PCI/PCI-X Bridge 1.0, 2.3). With several bridges, the one nearest the root decides.
   */
  get streamId(): number {
    let id = requesterId(this.address);
    for (let above = this.pciBus.bridge; above !== null; above = above.primary.bridge) {
      if (above.kind !== 'pci-bridge') continue;
      id =
        (this.segment.segment << 16) |
        (above.isExpress ? above.secondaryNumber << 8 : (above.primary.number << 8) | above.devfn);
    }
    return id;
  }

  get forwardsUpstream(): boolean {
    for (let above = this.pciBus.bridge; above !== null; above = above.primary.bridge) {
      if (!above.forwardsRequests) return false;
    }
    return true;
  }

  reaches(base: number, size: number, kind: 'memory' | 'io'): boolean {
    for (let above = this.pciBus.bridge; above !== null; above = above.primary.bridge) {
      if (!above.passes(base, size, kind)) return false;
    }
    return true;
  }

  beside(distance: number): Slot {
    return new Slot(this.segment, this.pciBus, this.devfn + distance);
  }

  attach(fn: HostFunction): void {
    this.segment.attachVirtual(this.pciBus, this.devfn, fn);
  }

  detach(fn: HostFunction): void {
    this.segment.detachVirtual(this.pciBus, this.devfn, fn);
  }

  routeInterrupt(pin: number, asserted: boolean): void {
    let device = this.devfn >> 3;
    let here = pin;
    for (let above = this.pciBus.bridge; above !== null; above = above.primary.bridge) {
      here = swizzle(here, device);
      device = above.devfn >> 3;
    }
    this.segment.routePin(device, here, asserted);
  }
}
