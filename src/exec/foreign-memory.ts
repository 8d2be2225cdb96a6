/** The memory of an unmodified program as the simulated kernel sees it. */
import type { OwnedMemory } from '../kernel/process.ts';
import type { Libc } from '../libc/index.ts';
import type { ProcessMemory } from '../libc/process-memory.ts';
import type { PinnedPages } from '../ports/process.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { Frames, FrameWindow } from './frame-window.ts';
import { type Area, readMaps } from './maps.ts';
import { PrivatePages, SharedPages } from './page-sources.ts';

const PAGE = 4096;

export interface MemoryAccess {
  readonly libc: Libc;
  readonly memory: ProcessMemory;
  readonly window: FrameWindow;
  /** Host-physical address behind a mapping of a simulated device's file, or null when the path is no such file's. */
  deviceAddress(area: Area): number | null;
}

export class ForeignMemory implements OwnedMemory {
  /** Thread group id of the program. */
  readonly pid: number;
  private readonly access: MemoryAccess;
  private readonly privatePins = new Set<PrivatePages>();

  constructor(pid: number, access: MemoryAccess) {
    this.pid = pid;
    this.access = access;
  }

  copyIn(address: number, into: Uint8Array): boolean {
    return into.length === 0 || this.access.memory.read(this.pid, address, into) === into.length;
  }

  copyOut(address: number, from: Uint8Array): boolean {
    return from.length === 0 || this.access.memory.write(this.pid, address, from) === from.length;
  }

  pin(address: number, length: number, write: boolean): PinnedPages | number {
    const pieces = areasOf(readMaps(this.pid, address + length), address, length, write);
    if (pieces === null) return -ERRNO.EFAULT;
    const frames: Frames[] = [];
    const runs: { pa: number; length: number }[] = [];
    let accountedPages = 0;
    let deviceMemory = false;
    for (const { area, start, end } of pieces) {
      const device = this.access.deviceAddress(area);
      if (device !== null) {
        deviceMemory = true;
        runs.push({ pa: device + (start - area.start), length: end - start });
        continue;
      }
      const source = this.sourceOf(area, start, end);
      const added = this.access.window.add(end - start, source);
      if (added === null) {
        for (const each of frames) this.access.window.remove(each);
        return -ERRNO.ENOMEM;
      }
      frames.push(added);
      runs.push({ pa: added.pa, length: end - start });
      accountedPages += (end - start) / PAGE;
    }
    return new ForeignPins(runs, accountedPages, deviceMemory, frames, this.access.window);
  }

  /** What the byte at an address is of, as the sources of pinned pages name it; null: nothing is mapped there. */
  identity(address: number): { readonly object: string; readonly at: number } | null {
    const area = (readMaps(this.pid, address + 1) ?? []).find(({ start, end }) => start <= address && address < end);
    if (area === undefined) return null;
    if (!area.shared) return { object: `process ${this.pid}`, at: address };
    return { object: area.file, at: area.offset + (address - area.start) };
  }

  /** The program is about to unmap, replace or discard [start, start + length): what is pinned of it is taken over first. */
  aboutToLose(start: number, length: number): void {
    for (const pages of this.privatePins) pages.keep(start, start + length);
  }

  get hasPrivatePins(): boolean {
    return this.privatePins.size > 0;
  }

  /** The process is gone, and with it whatever was not taken over. */
  unmapAll(): void {}

  private sourceOf(area: Area, start: number, end: number): SharedPages | PrivatePages {
    const { libc, memory } = this.access;
    const shared = area.shared ? SharedPages.open(libc, this.pid, area, start - area.start, end - start) : null;
    if (shared !== null) return shared;
    const pages = new PrivatePages(memory, this.pid, start, end - start, (done) => this.privatePins.delete(done));
    this.privatePins.add(pages);
    return pages;
  }
}

class ForeignPins implements PinnedPages {
  readonly runs: readonly { readonly pa: number; readonly length: number }[];
  readonly accountedPages: number;
  readonly deviceMemory: boolean;
  private frames: readonly Frames[];
  private readonly window: FrameWindow;

  constructor(
    runs: readonly { readonly pa: number; readonly length: number }[],
    accountedPages: number,
    deviceMemory: boolean,
    frames: readonly Frames[],
    window: FrameWindow,
  ) {
    this.runs = runs;
    this.accountedPages = accountedPages;
    this.deviceMemory = deviceMemory;
    this.frames = frames;
    this.window = window;
  }

  release(): void {
    for (const each of this.frames) this.window.remove(each);
    this.frames = [];
  }
}

interface Piece {
  readonly area: Area;
  readonly start: number;
  readonly end: number;
}

/** The mapped pieces of a range in order; null when there is a hole, or one that cannot be read (or written where that is asked). */
function areasOf(
  areas: readonly Area[] | null,
  address: number,
  length: number,
  write: boolean,
): readonly Piece[] | null {
  const pieces: Piece[] = [];
  const end = address + length;
  let at = address;
  for (const area of areas ?? []) {
    if (area.end <= at) continue;
    if (area.start > at || at >= end) break;
    if (!area.readable || (write && !area.writable)) return null;
    pieces.push({ area, start: at, end: Math.min(end, area.end) });
    at = Math.min(end, area.end);
  }
  return at === end ? pieces : null;
}
