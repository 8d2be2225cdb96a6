/** What firmware does before the kernel: bus numbers, BAR addresses and bridge windows, the same on every start. */
import { Command, Header, Header1, Window } from '../../arch/pci/index.ts';
import { hex } from '../../ports/address.ts';
import type { BarKind } from './bar.ts';
import type { Bridge } from './bridge.ts';
import type { HostFunction } from './function.ts';
import type { PciBus } from './pci-bus.ts';

export interface AddressRange {
  readonly base: number;
  readonly size: number;
}

export interface Apertures {
  readonly mmio32: AddressRange;
  readonly mmio64: AddressRange;
  /** Where I/O ports 0 and up appear in the physical address space. */
  readonly io: AddressRange;
}

type WindowName = 'io' | 'memory' | 'prefetch';

/** Ports below this are left alone, as PC firmware does. */
const FIRST_PORT = 0x1000;
const IO_LIMIT = 0x1_0000;

/** Numbers buses depth first. @throws RangeError when there are more than 256. */
export function numberBuses(root: PciBus): void {
  let last = root.number;
  const below = (bus: PciBus): void => {
    for (const devfn of bus.devfns) {
      const bridge = bus.bridges.get(devfn);
      if (bridge === undefined) continue;
      if (last >= 255) throw new RangeError('slots: more than 256 buses, which is all that a segment has');
      const own = ++last;
      bridge.config.write(Header1.PRIMARY_BUS, 1, bus.number);
      bridge.config.write(Header1.SECONDARY_BUS, 1, own);
      bridge.config.write(Header1.SUBORDINATE_BUS, 1, 255);
      below(bridge.secondary);
      bridge.config.write(Header1.SUBORDINATE_BUS, 1, last);
    }
  };
  below(root);
}

/** Hands out addresses upwards, each naturally aligned. */
class Cursor {
  next: number;
  readonly end: number;
  private readonly name: string;

  constructor(name: string, base: number, end: number) {
    this.name = name;
    this.next = base;
    this.end = end;
  }

  take(size: number, who: string, alignment = size): number {
    const base = Math.ceil(this.next / alignment) * alignment;
    if (base + size > this.end) {
      throw new RangeError(`${who}: ${hex(size)} bytes do not fit ${this.name}, which ends at ${hex(this.end)}`);
    }
    this.next = base + size;
    return base;
  }

  fits(size: number): boolean {
    return Math.ceil(this.next / size) * size + size <= this.end;
  }

  align(size: number): number {
    this.next = Math.ceil(this.next / size) * size;
    return this.next;
  }
}

/** @throws RangeError naming the device whose memory BAR does not fit. */
export function assignAddresses(root: PciBus, apertures: Apertures): void {
  const { mmio32, mmio64, io } = apertures;
  const cursors: Record<WindowName, Cursor> = {
    io: new Cursor('pci.io', FIRST_PORT, Math.min(io.size, IO_LIMIT)),
    memory: new Cursor('pci.mmio32', mmio32.base, mmio32.base + mmio32.size),
    prefetch: new Cursor('pci.mmio64', mmio64.base, mmio64.base + mmio64.size),
  };
  assignBus(root, cursors);
}

function assignBus(bus: PciBus, cursors: Record<WindowName, Cursor>): void {
  const wanted = [...bus.functions.values()].flatMap((owner) => [...ownBars(owner), ...virtualBars(owner)]);
  // Largest first leaves no gaps; the sort is stable, so that equals keep the order of their functions.
  wanted.sort((a, b) => b.size - a.size);
  for (const each of wanted) placeBar(each, bus.bridge === null, cursors);
  for (const devfn of bus.devfns) {
    const bridge = bus.bridges.get(devfn);
    if (bridge !== undefined) assignBridge(bridge, cursors);
  }
}

/** A stretch of addresses that somebody wants. */
interface Wanted {
  readonly who: string;
  readonly kind: BarKind;
  readonly prefetchable: boolean;
  readonly size: number;
  readonly alignment: number;
  program(address: number): void;
}

const ownBars = (owner: HostFunction): Wanted[] =>
  owner.bars.windows.flatMap((window) =>
    window === null
      ? []
      : {
          who: `${owner.spec.name} BAR ${window.index}`,
          kind: window.kind,
          prefetchable: window.prefetchable,
          size: window.size,
          alignment: window.size,
          program: (address) => owner.bars.program(window, address),
        },
  );

/** One window for all the virtual functions that a physical one could have, aligned as one of them. */
function virtualBars(owner: HostFunction): Wanted[] {
  const { sriov } = owner;
  if (sriov === null) return [];
  return sriov.spec.bars.flatMap((bar, index) =>
    bar === null
      ? []
      : {
          who: `${owner.spec.name} VF BAR ${index}`,
          kind: bar.type,
          prefetchable: bar.prefetchable === true,
          size: sriov.windowSize(index),
          alignment: bar.size,
          program: (address) => sriov.program(index, address),
        },
  );
}

function placeBar(wanted: Wanted, onRootBus: boolean, cursors: Record<WindowName, Cursor>): void {
  const { who, kind, size, alignment } = wanted;
  if (kind === 'io') {
    // Ports are scarce: a function whose BAR finds none is left without, as on real machines.
    if (cursors.io.fits(size)) wanted.program(cursors.io.take(size, who));
    return;
  }
  // A bridge's non-prefetchable window ends at 4 GiB; only what may be prefetched can sit above, except on the root bus.
  const high = kind === 'memory64' && (wanted.prefetchable || onRootBus);
  // A page of its own, so that a BAR can be mapped without its neighbour.
  wanted.program(cursors[high ? 'prefetch' : 'memory'].take(Math.max(size, 4096), who, Math.max(alignment, 4096)));
}

function assignBridge(bridge: Bridge, cursors: Record<WindowName, Cursor>): void {
  const { config } = bridge;
  const memory = cursors.memory.align(Window.MEMORY_GRANULE);
  const prefetch = cursors.prefetch.align(Window.MEMORY_GRANULE);
  const io = cursors.io.align(Window.IO_GRANULE);
  assignBus(bridge.secondary, cursors);
  if (cursors.memory.next > memory) {
    const end = cursors.memory.align(Window.MEMORY_GRANULE) - 1;
    config.write(Header1.MEMORY_BASE, 2, memory / 0x1_0000);
    config.write(Header1.MEMORY_LIMIT, 2, Math.floor(end / 0x1_0000));
  }
  if (cursors.prefetch.next > prefetch) {
    const end = cursors.prefetch.align(Window.MEMORY_GRANULE) - 1;
    config.write(Header1.PREFETCH_BASE_UPPER, 4, Math.floor(prefetch / 2 ** 32));
    config.write(Header1.PREFETCH_LIMIT_UPPER, 4, Math.floor(end / 2 ** 32));
    config.write(Header1.PREFETCH_BASE, 2, (prefetch % 2 ** 32) / 0x1_0000);
    config.write(Header1.PREFETCH_LIMIT, 2, Math.floor((end % 2 ** 32) / 0x1_0000));
  }
  if (cursors.io.next > io) {
    const end = cursors.io.align(Window.IO_GRANULE) - 1;
    config.write(Header1.IO_BASE, 1, io / 0x100);
    config.write(Header1.IO_LIMIT, 1, Math.floor(end / 0x100));
  }
  config.write(Header.COMMAND, 2, Command.IO | Command.MEMORY | Command.BUS_MASTER);
}
