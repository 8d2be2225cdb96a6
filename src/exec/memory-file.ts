/** A memfd of the program, or another file of shared memory, as iommufd maps its pages (memfd_pin_folios). */
import { fstatSync, type Stats, statfsSync, statSync } from 'node:fs';
import { type File, fileCount } from '../kernel/files.ts';
import type { Libc } from '../libc/index.ts';
import type { PinnedPages } from '../ports/process.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { FrameWindow } from './frame-window.ts';
import { SharedPages } from './page-sources.ts';

const PAGE = 4096;
/** Magic numbers of statfs: tmpfs, where memfds and shared memory are, and hugetlbfs. */
const MEMORY = new Set([0x0102_1994, 0x9584_58f6]);

/** Is the file behind a path of /proc of a kind that memfd_pin_folios takes? */
export function isMemory(path: string): boolean {
  try {
    return MEMORY.has(statfsSync(path).type >>> 0);
  } catch {
    return false;
  }
}

/** What a file is called in /proc/PID/maps: device and inode; null when there is none. */
export function objectOf(path: string): string | null {
  try {
    return objectName(statSync(path));
  } catch {
    return null;
  }
}

function objectName({ dev, ino }: Stats): string {
  const hex = (value: number): string => value.toString(16).padStart(2, '0');
  return `${hex((dev >>> 8) & 0xfff)}:${hex((dev & 0xff) | ((dev >>> 12) & 0xfff00))} ${ino}`;
}

export class MemoryFile implements File {
  readonly name: string;
  private readonly libc: Libc;
  private readonly window: FrameWindow;
  private fd: number;

  /** @param fd a copy of the program's descriptor, which this owns */
  constructor(libc: Libc, window: FrameWindow, name: string, fd: number) {
    this.libc = libc;
    this.window = window;
    this.name = name;
    this.fd = fd;
  }

  pin(offset: number, length: number, write: boolean): PinnedPages | number {
    const facts = fstatSync(this.fd);
    if (offset + length > facts.size) return -ERRNO.EINVAL;
    const object = objectName(facts);
    const source = SharedPages.ofFile(this.libc, this.fd, object, offset, length, write);
    if (source === null) return -ERRNO.EINVAL;
    const frames = this.window.add(length, source);
    if (frames === null) return -ERRNO.ENOMEM;
    const runs = [{ pa: frames.pa, length }];
    return { runs, accountedPages: length / PAGE, deviceMemory: false, release: () => this.window.remove(frames) };
  }

  /** Nobody kept it: a look-up that came to nothing. */
  dropUnused(): void {
    if (fileCount(this) === 0) this.release();
  }

  release(): void {
    if (this.fd >= 0) this.libc.close(this.fd);
    this.fd = -1;
  }
}
