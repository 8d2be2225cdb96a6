/**
 * A configuration space as bytes: 256 or 4,096 of them, each with a mask of the bits that software may write and a mask of
 * those that it clears by writing a one. What a write *means* is told to watchers after the bytes have changed.
 */
import { CONFIG_SIZE, type EXTENDED_CONFIG_SIZE } from '../../arch/pci/index.ts';

/** Behaviour behind some registers. */
export interface ConfigWatcher {
  /** Bytes [offset, offset + size) were written; `size` 1, 2 or 4, aligned. The bytes hold the new value. */
  written(offset: number, size: number): void;
}

interface Watch {
  readonly start: number;
  readonly end: number;
  readonly watcher: ConfigWatcher;
}

const NO_BYTES = new Uint8Array(0);

export class ConfigSpace {
  readonly bytes: Uint8Array;
  /** Bits that a write replaces. */
  readonly writable: Uint8Array;
  /** Bits that a write of one clears. */
  readonly clearable: Uint8Array;
  private readonly watches: Watch[] = [];
  private powerOn: Uint8Array = NO_BYTES;

  constructor(size: typeof CONFIG_SIZE | typeof EXTENDED_CONFIG_SIZE = CONFIG_SIZE) {
    this.bytes = new Uint8Array(size);
    this.writable = new Uint8Array(size);
    this.clearable = new Uint8Array(size);
  }

  get size(): number {
    return this.bytes.length;
  }

  /** Unsigned. Beyond the space, and for sizes other than 1, 2 and 4, all ones: nobody completes the request. */
  read(offset: number, size: number): number {
    const { bytes } = this;
    const at = offset & -size;
    if (at < 0 || at + size > bytes.length) return ones(size);
    if (size === 4) return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
    return size === 2 ? bytes[at] | (bytes[at + 1] << 8) : bytes[at];
  }

  /** A configuration write: the masks decide what of it stays. */
  write(offset: number, size: number, value: number): void {
    const at = offset & -size;
    if (at < 0 || at + size > this.bytes.length) return;
    for (let lane = 0; lane < size; lane++) {
      const here = at + lane;
      const byte = (value >>> (lane << 3)) & 0xff;
      const mask = this.writable[here];
      this.bytes[here] = ((this.bytes[here] & ~mask) | (byte & mask)) & ~(byte & this.clearable[here]);
    }
    for (const watch of this.watches) {
      if (at < watch.end && watch.start < at + size) watch.watcher.written(at, size);
    }
  }

  /** Stores a value past the masks: the device's own doing. */
  set(offset: number, size: number, value: number): void {
    for (let lane = 0; lane < size; lane++) this.bytes[offset + lane] = (value >>> (lane << 3)) & 0xff;
  }

  /** Declares bits of `size` bytes writable, in addition to those that are. */
  allow(offset: number, size: number, mask: number): void {
    for (let lane = 0; lane < size; lane++) this.writable[offset + lane] |= (mask >>> (lane << 3)) & 0xff;
  }

  /** Declares bits that a written one clears. */
  allowClear(offset: number, size: number, mask: number): void {
    for (let lane = 0; lane < size; lane++) this.clearable[offset + lane] |= (mask >>> (lane << 3)) & 0xff;
  }

  watch(start: number, length: number, watcher: ConfigWatcher): void {
    this.watches.push({ start, end: start + length, watcher });
  }

  /** Remembers the present bytes as those that `reset` returns to. */
  seal(): void {
    this.powerOn = this.bytes.slice();
  }

  /** Back to the sealed bytes. Watchers hear nothing: whoever resets tells them in its own order. */
  reset(): void {
    this.bytes.set(this.powerOn);
  }
}

const ones = (size: number): number => (size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff);
