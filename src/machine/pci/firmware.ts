/** What firmware does before the kernel: bus numbers, BAR addresses and bridge windows, the same on every start. */
import { Command, Header, Header1, Window } from '../../arch/pci/index.ts';
import { hex } from '../../ports/address.ts';
import type { BarWindow } from './bar.ts';
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

  take(size: number, who: string): number {
    const base = Math.ceil(this.next / size) * size;
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
  const wanted: { window: BarWindow; owner: HostFunction }[] = [];
  for (const owner of bus.functions.values()) {
    for (const window of owner.bars.windows) if (window !== null) wanted.push({ window, owner });
  }
  // Largest first leaves no gaps; the sort is stable, so that equals keep the order of their functions.
  wanted.sort((a, b) => b.window.size - a.window.size);
  for (const { window, owner } of wanted) placeBar(window, owner, bus.bridge === null, cursors);
  for (const devfn of bus.devfns) {
    const bridge = bus.bridges.get(devfn);
    if (bridge !== undefined) assignBridge(bridge, cursors);
  }
}

function placeBar(
  window: BarWindow,
  owner: HostFunction,
  onRootBus: boolean,
  cursors: Record<WindowName, Cursor>,
): void {
  const who = `${owner.spec.name} BAR ${window.index}`;
  if (window.kind === 'io') {
    // Ports are scarce: a function whose BAR finds none is left without, as on real machines.
    if (cursors.io.fits(window.size)) owner.bars.program(window, cursors.io.take(window.size, who));
    return;
  }
  // A bridge's non-prefetchable window ends at 4 GiB; only what may be prefetched can sit above, except on the root bus.
  const high = window.kind === 'memory64' && (window.prefetchable || onRootBus);
  // A page of its own, so that a BAR can be mapped without its neighbour.
  const size = Math.max(window.size, 4096);
  owner.bars.program(window, cursors[high ? 'prefetch' : 'memory'].take(size, who));
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
