/** Memory and mapped files of a client in the same program. After they are given back every access throws. */
import type { Mapping, UserBuffer } from '../ports/kernel.ts';
import type { LocalProcess } from './kernel.ts';
import type { Placed } from './syscalls.ts';

export class ClientBuffer implements UserBuffer {
  readonly address: number;
  readonly length: number;
  private readonly process: LocalProcess;
  private mapped = true;
  private whole: Uint8Array | null = null;

  constructor(process: LocalProcess, address: number, length: number) {
    this.process = process;
    this.address = address;
    this.length = length;
  }

  /** @throws RangeError when freed, or when the buffer lies in several arrays of the machine's memory (2 GiB and more): use `at` then. */
  get bytes(): Uint8Array {
    this.whole ??= this.at(0, this.length);
    return this.mapped ? this.whole : this.at(0, this.length);
  }

  /** A part of the buffer as bytes. @throws RangeError as `bytes` does. */
  at(offset: number, length: number): Uint8Array {
    if (!this.mapped) throw new RangeError(`the buffer at 0x${this.address.toString(16)} was freed`);
    if (!(offset >= 0 && length >= 0 && offset + length <= this.length)) {
      throw new RangeError(`[${offset}, ${offset + length}) is outside of the buffer's ${this.length} bytes`);
    }
    const view = this.process.memory.view(this.address + offset, length);
    if (view !== null) return view;
    throw new RangeError(
      `[${offset}, ${offset + length}) spans more than one array of the machine's memory: take it in parts`,
    );
  }

  free(): void {
    if (!this.mapped) return;
    this.mapped = false;
    this.whole = null;
    this.process.memory.unmap(this.address);
  }
}

export class ClientMapping implements Mapping {
  readonly address: number;
  readonly length: number;
  private readonly process: LocalProcess;
  private readonly writable: boolean;
  private inner: Mapping | null;

  constructor(process: LocalProcess, placed: Placed, length: number, writable: boolean) {
    this.process = process;
    this.address = placed.address;
    this.length = length;
    this.writable = writable;
    this.inner = placed.mapping.open(placed.address);
  }

  get bytes(): Uint8Array | null {
    return this.live().bytes;
  }

  read32(offset: number): number {
    this.check(offset);
    return this.live().read32(offset);
  }

  /** @throws TypeError when the file was mapped for reading. */
  write32(offset: number, value: number): void {
    this.check(offset);
    if (!this.writable) throw new TypeError('the file was mapped for reading only');
    this.live().write32(offset, value);
  }

  unmap(): void {
    if (this.inner === null) return;
    this.inner.unmap();
    this.inner = null;
    this.process.memory.unmap(this.address);
  }

  private live(): Mapping {
    if (this.inner === null || this.process.exited)
      throw new RangeError(`the mapping at 0x${this.address.toString(16)} is gone`);
    return this.inner;
  }

  private check(offset: number): void {
    if (offset >= 0 && offset + 4 <= this.length && offset % 4 === 0) return;
    throw new RangeError(`offset ${offset}: expected a multiple of 4 below the mapping's ${this.length} bytes`);
  }
}
