/** The base address registers of one function: their masks, what answers behind them, and where they are decoded. */
import { Command, Header, Header0 } from '../../arch/pci/index.ts';
import { fromHalves } from '../../ports/address.ts';
import type { Bus } from '../../ports/bus.ts';
import type { FunctionSpec } from '../../ports/pci.ts';
import { BarWindow, CallArea, MemoryArea, RomImage } from './bar.ts';
import type { ConfigSpace } from './config-space.ts';
import type { MsixCapability } from './msix.ts';
import type { VirtualFunction } from './sriov.ts';

const ROM_INDEX = 6;

/** Says whether the bridges above let a range through, and where I/O ports are in the physical address space. */
export interface Decoder {
  readonly bus: Bus;
  /** Host-physical address of I/O port 0 of this segment. */
  readonly ioBase: number;
  reaches(base: number, size: number, kind: 'memory' | 'io'): boolean;
}

export class BaseAddresses {
  /** Sparse: index 0 to 5, and 6 for the ROM. */
  readonly windows: readonly (BarWindow | null)[];
  private readonly config: ConfigSpace;
  /** Whose windows the physical function places; null: by the function's own registers. */
  private readonly virtual: VirtualFunction | null;

  constructor(
    config: ConfigSpace,
    spec: FunctionSpec,
    msix: MsixCapability | null,
    virtual: VirtualFunction | null = null,
  ) {
    this.config = config;
    this.virtual = virtual;
    const windows: (BarWindow | null)[] = new Array<BarWindow | null>(ROM_INDEX + 1).fill(null);
    spec.bars.forEach((bar, index) => {
      if (bar === null) return;
      const window = new BarWindow(`${spec.name} BAR ${index}`, index, bar.type, bar.size, bar.prefetchable === true);
      if (msix?.tableBar === index) window.add(msix.tableArea());
      if (msix?.pbaBar === index) window.add(msix.pbaArea());
      for (const range of bar.ranges ?? []) {
        window.add(
          range.kind === 'memory'
            ? new MemoryArea(range.offset, range.size)
            : new CallArea(range.offset, range.size, range.registers),
        );
      }
      windows[index] = window;
      if (virtual === null) allowBar(config, window);
    });
    if (spec.rom !== undefined) {
      const rom = new BarWindow(`${spec.name} ROM`, ROM_INDEX, 'rom', spec.rom.size, false);
      rom.add(new CallArea(0, spec.rom.size, new RomImage(spec.rom.image)));
      windows[ROM_INDEX] = rom;
      config.allow(Header0.ROM, 4, (-spec.rom.size & ~0x7ff) | 1);
    }
    this.windows = windows;
  }

  /** What software programmed: address without type bits, and whether the ROM's own enable bit is set. */
  programmed(window: BarWindow): number {
    const { config } = this;
    if (window.index === ROM_INDEX) {
      const value = config.read(Header0.ROM, 4);
      return (value & 1) === 0 ? -1 : (value & ~0x7ff) >>> 0;
    }
    const at = Header.BAR0 + window.index * 4;
    const low = config.read(at, 4);
    if (window.kind === 'io') return (low & ~3) >>> 0;
    return fromHalves(window.kind === 'memory64' ? config.read(at + 4, 4) | 0 : 0, low & ~0xf);
  }

  /** Firmware's write of an address; the ROM's enable bit stays clear. */
  program(window: BarWindow, address: number): void {
    const at = window.index === ROM_INDEX ? Header0.ROM : Header.BAR0 + window.index * 4;
    this.config.write(at, 4, address | 0);
    if (window.kind === 'memory64') this.config.write(at + 4, 4, Math.floor(address / 2 ** 32));
  }

  /** Maps and unmaps after a change of COMMAND, of an address, of the power state or of a bridge above. */
  refresh(decoder: Decoder, powered: boolean): void {
    const command = this.config.read(Header.COMMAND, 2);
    for (const window of this.windows) {
      if (window === null) continue;
      const enabled =
        powered && (this.virtual !== null || (command & (window.kind === 'io' ? Command.IO : Command.MEMORY)) !== 0);
      window.place(decoder.bus, enabled ? this.target(window, decoder) : -1);
    }
  }

  private target(window: BarWindow, decoder: Decoder): number {
    const address = this.virtual === null ? this.programmed(window) : this.virtual.barBase(window.index);
    // Address zero is how firmware leaves a BAR that it could not place: Linux takes it for unassigned as well.
    if (address <= 0 || address + window.size > 2 ** 52) return -1;
    const kind = window.kind === 'io' ? 'io' : 'memory';
    if (!decoder.reaches(address, window.size, kind)) return -1;
    return kind === 'io' ? decoder.ioBase + address : address;
  }
}

/** The writable bits of a BAR are those above its size: that is how software learns it. */
function allowBar(config: ConfigSpace, window: BarWindow): void {
  const at = Header.BAR0 + window.index * 4;
  const low = window.size >= 2 ** 32 ? 0 : -window.size;
  config.allow(at, 4, low & (window.kind === 'io' ? ~3 : ~0xf));
  if (window.kind === 'memory64') config.allow(at + 4, 4, window.size >= 2 ** 32 ? -(window.size / 2 ** 32) : -1);
}
