/**
 * BARs of plain memory that a program maps. The stand-in of the device's file gets the BAR's bytes at the region's own offset, so that the real
 * kernel's mmap maps them, and the model works on the same pages. While memory decoding is off the stand-in is cut short: accesses are SIGBUS, as on
 * Linux. A BAR of registers has no bytes: it is reached by pread and pwrite alone.
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

export class BarMemory {
  private readonly host: Host;
  private readonly libc: Libc;
  private readonly truncate: Native;
  private readonly shared = new Map<OpenFile, SharedBar[]>();

  constructor(host: Host, libc: Libc) {
    this.host = host;
    this.libc = libc;
    this.truncate = cLibrary(libc.koffi).func('int ftruncate(int fd, int64_t length)');
  }

  /** Can the BAR be mapped by a program? */
  mappable(open: OpenFile, index: number): boolean {
    return this.areaOf(open, index) !== null;
  }

  /** The program is about to map a part of the region at `offset`: 0, or -errno. `mapping` is what the simulated kernel allowed. */
  map(open: OpenFile, offset: number, mapping: FileMapping): number {
    const index = Math.floor(offset / STRIDE);
    const bars = this.shared.get(open) ?? [];
    if (bars.some((bar) => bar.index === index)) {
      mapping.close();
      return 0;
    }
    const { refusals } = this.host.context;
    const area = this.areaOf(open, index);
    if (area === null || !(mapping instanceof BarMapping)) {
      mapping.close();
      return refusals.refuse(
        'ENODEV',
        `region ${index} holds registers: only pread and pwrite reach it here`,
        'offset',
      );
    }
    for (const [other, held] of this.shared) {
      if (other === open || !held.some((bar) => bar.area === area)) continue;
      mapping.close();
      return refusals.refuse(
        'EBUSY',
        'another open file of the device has the BAR mapped, and one can at a time here',
        'fd',
      );
    }
    this.resize(open, REGIONS * STRIDE);
    const memory = this.libc.mapFile(open.backing, index * STRIDE, area.size, true);
    if (typeof memory === 'number') return memory;
    const bytes = new Uint8Array(memory.view());
    area.moveTo(bytes);
    const bar: SharedBar = { index, area, mapping, memory, bytes, kept: null };
    this.shared.set(open, [...bars, bar]);
    this.followFile(open, [...bars, bar]);
    return 0;
  }

  /** Host-physical address behind an offset of a stand-in that a program has mapped; null: it is no device's. */
  address(open: OpenFile | null, offset: number): number | null {
    if (open === null) return null;
    const bar = this.shared.get(open)?.find(({ index }) => index === Math.floor(offset / STRIDE));
    if (bar === undefined || !(open.file instanceof VfioDeviceFile)) return null;
    const resource = open.file.device.dev.resources[bar.index];
    return resource === undefined ? null : resource.base + (offset % STRIDE);
  }

  /** Memory decoding, power and reset decide whether mapped BARs answer: looked at after each call. */
  follow(): void {
    for (const [open, bars] of this.shared) this.followFile(open, bars);
  }

  /** The file goes: the model keeps the bytes. */
  release(open: OpenFile): void {
    for (const bar of this.shared.get(open) ?? []) {
      if (bar.kept === null) bar.area.moveTo(new Uint8Array(bar.area.size));
      bar.mapping.close();
      bar.memory.unmap();
    }
    this.shared.delete(open);
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
    this.resize(open, REGIONS * STRIDE);
    for (const bar of bars) {
      bar.area.moveTo(bar.bytes);
      bar.kept = null;
    }
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
