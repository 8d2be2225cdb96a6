/** readlink(2) without exceptions: what /proc says of descriptors is asked for often, and "there is none" is an answer. */
import type { Native } from './koffi.ts';
import type { Libc } from './libc.ts';
import { cLibrary } from './library.ts';

const LONGEST = 4096;

export class Links {
  private readonly call: Native;
  private readonly bytes = new Uint8Array(new ArrayBuffer(LONGEST));
  private readonly text = Buffer.from(this.bytes.buffer);

  constructor(libc: Libc) {
    this.call = cLibrary(libc.koffi).func('int readlink(const char *path, void *into, size_t size)');
  }

  /** The target, or null: no such path, no link, or no permission. */
  read(path: string): string | null {
    const length = Number(this.call(path, this.bytes, LONGEST));
    return length < 0 ? null : this.text.toString('utf8', 0, length);
  }
}
