/**
 * Pages of drivers in the simulated kernel that programs map through a simulated file: they are pages of the file's stand-in, so that the real
 * kernel's mmap maps them, and physical memory shows the same bytes.
 */
import type { File, FileMapping } from '../kernel/files.ts';
import type { Libc, MappedMemory } from '../libc/index.ts';
import type { Native } from '../libc/koffi.ts';
import { cLibrary } from '../libc/library.ts';
import type { FrameWindow, PageSource } from './frame-window.ts';
import type { DriverPages, PagePlacer } from './iommufd-mock/driver-pages.ts';
import { readMaps } from './maps.ts';
import type { OpenFile, OpenFiles } from './open-files.ts';

interface Held {
  readonly open: OpenFile;
  readonly offset: number;
  readonly mapping: FileMapping;
}

export class MappedPages implements PagePlacer {
  private readonly libc: Libc;
  private readonly files: OpenFiles;
  private readonly window: FrameWindow;
  private readonly truncate: Native;
  /** Bytes of each stand-in. */
  private readonly sizes = new WeakMap<OpenFile, number>();
  private held: readonly Held[] = [];
  private made = 0;

  constructor(libc: Libc, files: OpenFiles, window: FrameWindow) {
    this.libc = libc;
    this.files = files;
    this.window = window;
    this.truncate = cLibrary(libc.koffi).func('int ftruncate(int fd, int64_t length)');
  }

  alloc(file: File, length: number): DriverPages | null {
    const open = this.files.of(file);
    if (open === null || open.backing < 0) return null;
    const source = new StandInPages(`driver pages ${this.made}`);
    this.made += 1;
    const frames = this.window.add(length, source);
    if (frames === null) return null;
    return {
      pa: frames.pa,
      placeAt: (offset) => {
        const size = Math.max(this.sizes.get(open) ?? 0, offset + length);
        if (this.truncate(open.backing, size) !== 0) return false;
        this.sizes.set(open, size);
        const memory = this.libc.mapFile(open.backing, offset, length, true);
        if (typeof memory === 'number') return false;
        source.use(memory);
        return true;
      },
      release: () => this.window.remove(frames),
    };
  }

  /** A program is about to map what the simulated kernel allowed. */
  map(open: OpenFile, offset: number, mapping: FileMapping): void {
    this.held = [...this.held, { open, offset, mapping }];
  }

  /** Mappings that no program has any more are closed: looked at before each call, since programs unmap without telling. */
  follow(pids: () => Iterable<number>): void {
    if (this.held.length === 0) return;
    const areas = [...pids()].flatMap((pid) => readMaps(pid) ?? []);
    const lives = ({ open, offset, mapping }: Held): boolean =>
      areas.some(
        (area) =>
          this.files.named(area.path) === open &&
          area.offset < offset + mapping.length &&
          offset < area.offset + (area.end - area.start),
      );
    this.close((held) => !lives(held));
  }

  /** The file goes. */
  release(open: OpenFile): void {
    this.close((held) => held.open === open);
  }

  private close(which: (held: Held) => boolean): void {
    const gone = this.held.filter(which);
    this.held = this.held.filter((held) => !which(held));
    for (const { mapping } of gone) mapping.close();
  }
}

class StandInPages implements PageSource {
  readonly identity: { readonly object: string; readonly at: number };
  private memory: MappedMemory | null = null;
  private bytes = new Uint8Array(0);

  constructor(object: string) {
    this.identity = { object, at: 0 };
  }

  /** What was there is an earlier owner's. */
  use(memory: MappedMemory): void {
    this.memory = memory;
    this.bytes = new Uint8Array(memory.view());
    this.bytes.fill(0);
  }

  read(offset: number, into: Uint8Array): boolean {
    if (this.memory === null) return false;
    into.set(this.bytes.subarray(offset, offset + into.length));
    return true;
  }

  write(offset: number, from: Uint8Array): boolean {
    if (this.memory === null) return false;
    this.bytes.set(from, offset);
    return true;
  }

  release(): void {
    this.memory?.unmap();
    this.memory = null;
  }
}
