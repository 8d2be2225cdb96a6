/** A PCI segment: the host bridge, its buses, and every function below. Configuration cycles enter here, and INTx leaves. */

import { Header, HeaderType } from '../../arch/pci/index.ts';
import type { Bus, MmioTarget } from '../../ports/bus.ts';
import type { Iommu } from '../../ports/iommu.ts';
import { type ConfigAccess, type PciFunction, pciName } from '../../ports/pci.ts';
import type { Tap } from '../../ports/tap.ts';
import type { Clock, WorkQueue } from '../../ports/work.ts';
import type { SlotSpec } from '../spec.ts';
import { Bridge, type BridgeKind } from './bridge.ts';
import { type Apertures, assignAddresses, numberBuses } from './firmware.ts';
import { HostFunction } from './function.ts';
import { PciBus } from './pci-bus.ts';
import { PeerRouter } from './peers.ts';
import { type Segment, Slot } from './slot.ts';
import { Upstream } from './upstream.ts';

export interface PciRootOptions extends Apertures {
  readonly segment: number;
  /** The physical address space that BARs appear in and that requests end in. */
  readonly bus: Bus;
  readonly tap: Tap;
  readonly work: WorkQueue;
  readonly clock: Clock;
  /** null: addresses that functions emit are physical. */
  readonly iommu: Iommu | null;
  /** Told when one of the host bridge's four interrupt lines changes its level. */
  readonly setIntx?: (line: number, asserted: boolean) => void;
}

export class PciRoot implements ConfigAccess, Segment {
  readonly segment: number;
  readonly bus: Bus;
  readonly ioBase: number;
  readonly rootBus = new PciBus(null, 0);
  readonly upstream: Upstream;
  /** In the order in which they were added. */
  readonly functions: HostFunction[] = [];
  private readonly options: PciRootOptions;
  /** Pins that assert each line. */
  private readonly lines = [0, 0, 0, 0];
  private started = false;

  constructor(options: PciRootOptions) {
    this.options = options;
    this.segment = options.segment;
    this.bus = options.bus;
    this.ioBase = options.io.base;
    this.upstream = new Upstream(options);
  }

  /**
   * Adds a bridge. `devfn` is device << 3 | function.
   * @throws RangeError for a place that is taken, or where such a bridge cannot be.
   */
  addBridge(on: PciBus, devfn: number, kind: BridgeKind, acs = false): Bridge {
    this.checkPlace(on, devfn, kind);
    const bridge = new Bridge(kind, acs, on, devfn);
    on.bridges.set(devfn, bridge);
    return bridge;
  }

  /** Adds a function and connects its model. @throws RangeError as {@link addBridge}, and for a model whose declaration cannot be. */
  addFunction(on: PciBus, devfn: number, model: PciFunction): HostFunction {
    this.checkPlace(on, devfn, 'function');
    const added = new HostFunction(model, new Slot(this, on, devfn), this.upstream);
    on.functions.set(devfn, added);
    this.functions.push(added);
    return added;
  }

  /**
   * Adds a whole tree of slots; `create` makes a model of a slot's device and options.
   * @throws RangeError naming the slot, from the slots themselves or from `create`.
   */
  addSlots(
    slots: readonly SlotSpec[],
    create: (device: string, options: Readonly<Record<string, number | string | boolean>>) => PciFunction,
    on: PciBus = this.rootBus,
  ): void {
    for (const slot of slots) {
      const [device, fn] = slot.at.split('.');
      const devfn = (Number.parseInt(device ?? '', 16) << 3) | Number.parseInt(fn ?? '', 16);
      if (slot.kind === 'function') {
        this.addFunction(on, devfn, create(slot.device, slot.options ?? {}));
      } else {
        const bridge = this.addBridge(on, devfn, slot.kind, slot.kind !== 'pci-bridge' && slot.acs);
        this.addSlots(slot.below, create, bridge.secondary);
      }
    }
  }

  /** Firmware: numbers buses and assigns addresses. Call it once, when everything is added. @throws RangeError when something does not fit. */
  start(): void {
    if (this.started) throw new RangeError('a segment starts once');
    this.started = true;
    markMultiFunction(this.rootBus);
    checkVirtualPlaces(this.rootBus);
    numberBuses(this.rootBus);
    assignAddresses(this.rootBus, this.options);
    this.upstream.peers = new PeerRouter(this.rootBus);
  }

  /** The function at `0000:01:00.0` as the buses are numbered now, or null. */
  function(name: string): HostFunction | null {
    return this.functions.find((each) => pciName(each.address) === name) ?? null;
  }

  configRead(requester: number, offset: number, size: number): number {
    const node = this.node(requester);
    return node === null ? (size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff) : node.configRead(offset, size);
  }

  configWrite(requester: number, offset: number, size: number, value: number): void {
    this.node(requester)?.configWrite(offset, size, value);
  }

  private node(requester: number): ReturnType<PciBus['node']> {
    if (requester >>> 16 !== this.segment) return null;
    return this.rootBus.route((requester >>> 8) & 0xff)?.node(requester & 0xff) ?? null;
  }

  /** The enhanced configuration access mechanism: 4 KiB for each function, 1 MiB for each bus (PCIe 7.2.2). */
  readonly ecam: MmioTarget = {
    name: 'ecam',
    read: (offset, size) => this.configRead((this.segment << 16) | (offset >>> 12), offset & 0xfff, size),
    write: (offset, size, value) =>
      this.configWrite((this.segment << 16) | (offset >>> 12), offset & 0xfff, size, value),
  };

  routePin(device: number, pin: number, asserted: boolean): void {
    const line = (pin - 1 + device) & 3;
    const before = this.lines[line];
    this.lines[line] = before + (asserted ? 1 : -1);
    if ((before === 0) !== (this.lines[line] === 0)) this.options.setIntx?.(line, asserted);
  }

  attachVirtual(on: PciBus, devfn: number, fn: HostFunction): void {
    on.functions.set(devfn, fn);
    this.functions.push(fn);
    this.upstream.peers = new PeerRouter(this.rootBus);
  }

  detachVirtual(on: PciBus, devfn: number, fn: HostFunction): void {
    on.functions.delete(devfn);
    this.functions.splice(this.functions.indexOf(fn), 1);
    this.upstream.peers = new PeerRouter(this.rootBus);
  }

  private checkPlace(on: PciBus, devfn: number, kind: BridgeKind | 'function'): void {
    const at = `slot ${(devfn >> 3).toString(16).padStart(2, '0')}.${devfn & 7}`;
    if (this.started) throw new RangeError(`${at}: the segment has started; nothing is added to it now`);
    if (!(Number.isInteger(devfn) && devfn >= 0 && devfn < 256))
      throw new RangeError(`${at}: expected devices 00 to 1f, functions 0 to 7`);
    if (on.node(devfn) !== null) throw new RangeError(`${at}: is taken already`);
    const above = on.bridge?.kind ?? null;
    if (above === 'switch-upstream' && kind !== 'switch-downstream') {
      throw new RangeError(`${at}: below a switch's upstream port there are only downstream ports`);
    }
    if (kind === 'switch-downstream' && above !== 'switch-upstream') {
      throw new RangeError(`${at}: a downstream port belongs below a switch's upstream port`);
    }
    if (kind === 'switch-upstream' && above !== 'root-port' && above !== 'switch-downstream') {
      throw new RangeError(`${at}: a switch's upstream port belongs below a root port or another switch`);
    }
    if (kind === 'root-port' && above !== null) throw new RangeError(`${at}: a root port belongs on the root bus`);
    if ((above === 'root-port' || above === 'switch-downstream') && devfn > 7) {
      throw new RangeError(`${at}: a link has one device, 00, with functions 0 to 7`);
    }
  }
}

/** @throws RangeError where a virtual function would have the place of something else, or one beyond the end of the bus. */
function checkVirtualPlaces(bus: PciBus): void {
  const taken = new Set(bus.devfns);
  for (const [devfn, { spec }] of bus.functions) {
    const { totalVfs, offset, stride } = spec.sriov ?? { totalVfs: 0, offset: 0, stride: 0 };
    for (let index = 0; index < totalVfs; index += 1) {
      const at = devfn + offset + stride * index;
      if (at > 255 || taken.has(at))
        throw new RangeError(
          `${spec.name}: sriov.offset: the place of VF ${index} is ${at > 255 ? 'no longer on the bus' : 'taken'}`,
        );
      taken.add(at);
    }
  }
  for (const bridge of bus.bridges.values()) checkVirtualPlaces(bridge.secondary);
}

/** Function 0 of a slot tells that there are more (PCI 3.0, 6.2.1). @throws RangeError for a slot without a function 0. */
function markMultiFunction(bus: PciBus): void {
  const { devfns } = bus;
  for (const device of new Set(devfns.map((devfn) => devfn >> 3))) {
    const slot = devfns.filter((devfn) => devfn >> 3 === device);
    if (slot[0] !== device << 3)
      throw new RangeError(`slot ${device.toString(16)}: has functions, but no function 0 that could be found`);
    for (const devfn of slot) {
      const { config } = (bus.functions.get(devfn) ?? bus.bridges.get(devfn))!;
      const type = config.read(Header.HEADER_TYPE, 1) & HeaderType.LAYOUT_MASK;
      config.set(Header.HEADER_TYPE, 1, slot.length > 1 ? type | HeaderType.MULTI_FUNCTION : type);
      config.seal();
    }
  }
  for (const bridge of bus.bridges.values()) markMultiFunction(bridge.secondary);
}
