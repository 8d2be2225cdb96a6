/** A file of this machine as a disk. */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import type { BlockStore } from '../ports/block-store.ts';

const PIECE = 2 ** 20;

/** Opens a file, whose size is the disk's. @throws RangeError when it cannot be opened, or is no regular file. */
export function openFileStore(path: string, readOnly: boolean): FileStore {
  let fd: number;
  try {
    fd = openSync(path, readOnly ? 'r' : 'r+');
  } catch (error) {
    throw new RangeError(`file: "${path}" cannot be opened: ${(error as Error).message}`);
  }
  const stat = fstatSync(fd);
  if (stat.isFile()) return new FileStore(fd, stat.size);
  closeSync(fd);
  throw new RangeError(`file: "${path}" is no regular file`);
}

export class FileStore implements BlockStore {
  readonly size: number;
  private readonly fd: number;

  constructor(fd: number, size: number) {
    this.fd = fd;
    this.size = size;
  }

  read(offset: number, into: Uint8Array): boolean {
    return this.whole(into.length, (done) => readSync(this.fd, into, done, into.length - done, offset + done));
  }

  write(offset: number, from: Uint8Array): boolean {
    return this.whole(from.length, (done) => writeSync(this.fd, from, done, from.length - done, offset + done));
  }

  zero(offset: number, length: number): boolean {
    const zeroes = new Uint8Array(Math.min(length, PIECE));
    return this.whole(length, (done) =>
      writeSync(this.fd, zeroes, 0, Math.min(zeroes.length, length - done), offset + done),
    );
  }

  flush(): boolean {
    try {
      fsyncSync(this.fd);
      return true;
    } catch {
      return false;
    }
  }

  /** Repeats a call that may do less than all. The medium failed when it threw, or when nothing moves any more. */
  private whole(length: number, some: (done: number) => number): boolean {
    try {
      for (let done = 0; done < length; ) {
        const moved = some(done);
        if (moved === 0) return false;
        done += moved;
      }
      return true;
    } catch {
      return false;
    }
  }
}
