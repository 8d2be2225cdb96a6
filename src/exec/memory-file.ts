/** A memfd of the program, as iommufd maps its pages (memfd_pin_folios). */
import { fstatSync } from 'node:fs';
import { type File, fileCount } from '../kernel/files.ts';
import type { Libc } from '../libc/index.ts';
import type { PinnedPages } from '../ports/process.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { FrameWindow } from './frame-window.ts';
import { SharedPages } from './page-sources.ts';

const PAGE = 4096;

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
    const { dev, ino, size } = fstatSync(this.fd);
    if (offset + length > Math.ceil(size / PAGE) * PAGE) return -ERRNO.EINVAL;
    const hex = (value: number): string => value.toString(16).padStart(2, '0');
    const object = `${hex((dev >>> 8) & 0xfff)}:${hex((dev & 0xff) | ((dev >>> 12) & 0xfff00))} ${ino}`;
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
