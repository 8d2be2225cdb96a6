/**
 * BARs that a program maps. The stand-in of the device's file gets the bytes of plain memory at the region's own offset, so that the real kernel's mmap
 * maps them, and the model works on the same pages; while memory decoding is off the stand-in is cut short: accesses are SIGBUS, as on Linux. Registers
 * have no bytes: the stand-in ends before them, and what its SIGBUS stops is an access to the device (register-access.ts). Since a file has one end,
 * memory BARs behind the lowest BAR of mapped registers are then reached access by access as well.
 */
import type { Host } from '../kernel/boot/boot.ts';
import type { FileMapping } from '../kernel/files.ts';
import { VfioDeviceFile } from '../kernel/vfio/device.ts';
import { BarMapping } from '../kernel/vfio-pci/bar-mapping.ts';
import type { Libc, MappedMemory } from '../libc/index.ts';
import type { Native } from '../libc/koffi.ts';
import { cLibrary } from '../libc/library.ts';
import type { MemoryArea } from '../machine/pci/bar.ts';
import type { OpenFile } from './open-files.ts';

/** offset = index << 40 | position, for the nine regions of a PCI function. */
const STRIDE = 2 ** 40;
const REGIONS = 9;

interface SharedBar {
  readonly index: number;
  readonly area: MemoryArea;
  /** What says whether accesses would be SIGBUS now. */
  readonly mapping: BarMapping;
  readonly memory: MappedMemory;
  readonly bytes: Uint8Array;
  /** The bytes while nobody can reach them. */
  kept: Uint8Array | null;
}

/** A BAR whose every access stops. */
export interface TrappedBar {
  readonly index: number;
  readonly file: VfioDeviceFile;
  readonly mapping: BarMapping;
}

/** Makes the accesses of the program that is mapping stop: 0, or -errno with its reason told. */
export type Trap = () => number;

export class BarMemory {
  private readonly host: Host;
  private readonly libc: Libc;
  private readonly truncate: Native;
  private readonly shared = new Map<OpenFile, SharedBar[]>();
  private readonly traps = new Map<OpenFile, TrappedBar[]>();

  constructor(host: Host, libc: Libc) {
    this.host = host;
    this.libc = libc;
    this.truncate = cLibrary(libc.koffi).func('int ftruncate(int fd, int64_t length)');
  }

  /** Has a program that maps the BAR its bytes, without a stop for each access? */
  isMemory(open: OpenFile, index: number): boolean {
    return this.areaOf(open, index) !== null;
  }

  /** The program is about to map a part of the region at `offset`: 0, or -errno. `mapping` is what the simulated kernel allowed. */
  map(open: OpenFile, offset: number, mapping: FileMapping, trap: Trap): number {
    const index = Math.floor(offset / STRIDE);
    if (this.shared.get(open)?.some((bar) => bar.index === index) === true) {
      mapping.close();
      return 0;
    }
    if (!(mapping instanceof BarMapping) || !(open.file instanceof VfioDeviceFile)) {
      mapping.close();
      return this.host.context.refusals.refuse('ENODEV', `region ${index} is no BAR`, 'offset');
    }
    const area = this.areaOf(open, index);
    const native = area !== null && index < this.lowestTrapped(open) && !this.sharedElsewhere(open, area);
    if (native) return this.share(open, index, area, mapping);
    const result = trap();
    if (result < 0 || this.traps.get(open)?.some((bar) => bar.index === index) === true) {
      mapping.close();
      return result;
    }
    this.trap(open, { index, file: open.file, mapping });
    return 0;
  }

  /** The BAR behind an offset of a stand-in, when accesses to it stop; null: it is another one, or none. */
  trapped(open: OpenFile, offset: number): TrappedBar | null {
    const index = Math.floor(offset / STRIDE);
    return this.traps.get(open)?.find((bar) => bar.index === index) ?? null;
  }

  /** Host-physical address behind an offset of a trapped BAR; null while an access is a SIGBUS. */
  physical({ index, file, mapping }: TrappedBar, offset: number): number | null {
    const resource = file.device.dev.resources[index];
    if (mapping.revoked || resource === undefined) return null;
    return resource.base + (offset % STRIDE);
  }

  /** Host-physical address behind an offset of a stand-in that a program has mapped; null: it is no device's. */
  address(open: OpenFile | null, offset: number): number | null {
    if (open === null || !(open.file instanceof VfioDeviceFile)) return null;
    const index = Math.floor(offset / STRIDE);
    const mapped = [...(this.shared.get(open) ?? []), ...(this.traps.get(open) ?? [])];
    const resource = open.file.device.dev.resources[index];
    if (resource === undefined || !mapped.some((bar) => bar.index === index)) return null;
    return resource.base + (offset % STRIDE);
  }

  /** Memory decoding, power and reset decide whether mapped BARs answer: looked at after each call. */
  follow(): void {
    for (const [open, bars] of this.shared) this.followFile(open, bars);
  }

  /** The file goes: the model keeps the bytes. */
  release(open: OpenFile): void {
    for (const bar of this.shared.get(open) ?? []) {
      this.takeBack(bar);
      bar.mapping.close();
    }
    for (const { mapping } of this.traps.get(open) ?? []) mapping.close();
    this.shared.delete(open);
    this.traps.delete(open);
  }

  private share(open: OpenFile, index: number, area: MemoryArea, mapping: BarMapping): number {
    const bars = this.shared.get(open) ?? [];
    this.resize(open, this.end(open));
    const memory = this.libc.mapFile(open.backing, index * STRIDE, area.size, true);
    if (typeof memory === 'number') return memory;
    const bytes = new Uint8Array(memory.view());
    area.moveTo(bytes);
    const bar: SharedBar = { index, area, mapping, memory, bytes, kept: null };
    this.shared.set(open, [...bars, bar]);
    this.followFile(open, [...bars, bar]);
    return 0;
  }

  private trap(open: OpenFile, bar: TrappedBar): void {
    const traps = [...(this.traps.get(open) ?? []), bar];
    const below: SharedBar[] = [];
    for (const other of this.shared.get(open) ?? []) {
      if (other.index < bar.index) below.push(other);
      else {
        this.takeBack(other);
        traps.push({ index: other.index, file: bar.file, mapping: other.mapping });
      }
    }
    this.traps.set(open, traps);
    if (below.length > 0) this.shared.set(open, below);
    else this.shared.delete(open);
    const revoked = below.some(({ kept }) => kept !== null);
    this.resize(open, below.length === 0 || revoked ? 0 : this.end(open));
  }

  /** The model has its bytes for itself again. */
  private takeBack(bar: SharedBar): void {
    if (bar.kept === null) bar.area.moveTo(new Uint8Array(bar.area.size));
    bar.memory.unmap();
  }

  private followFile(open: OpenFile, bars: readonly SharedBar[]): void {
    const revoked = bars.some(({ mapping }) => mapping.revoked);
    if (revoked === bars.every(({ kept }) => kept !== null)) return;
    if (revoked) {
      for (const bar of bars) {
        if (bar.kept !== null) continue;
        bar.kept = new Uint8Array(bar.area.size);
        bar.area.moveTo(bar.kept);
      }
      this.resize(open, 0);
      return;
    }
    this.resize(open, this.end(open));
    for (const bar of bars) {
      bar.area.moveTo(bar.bytes);
      bar.kept = null;
    }
  }

  /** Where the stand-in ends while memory is decoded. */
  private end(open: OpenFile): number {
    return Math.min(REGIONS, this.lowestTrapped(open)) * STRIDE;
  }

  private lowestTrapped(open: OpenFile): number {
    return Math.min(Infinity, ...(this.traps.get(open) ?? []).map(({ index }) => index));
  }

  private sharedElsewhere(open: OpenFile, area: MemoryArea): boolean {
    for (const [other, held] of this.shared) if (other !== open && held.some((bar) => bar.area === area)) return true;
    return false;
  }

  private resize(open: OpenFile, size: number): void {
    this.truncate(open.backing, size);
  }

  private areaOf({ file }: OpenFile, index: number): MemoryArea | null {
    if (!(file instanceof VfioDeviceFile)) return null;
    const { dev } = file.device;
    const { address } = dev;
    const fn = this.host.machine.pci.functions.find(
      ({ address: at }) =>
        at.bus === address.bus &&
        at.device === address.device &&
        at.function === address.function &&
        at.segment === address.segment,
    );
    return fn?.bars.windows[index]?.plainMemory ?? null;
  }
}
