/** Mapped files and allocated memory of this process. After they are given back every access throws. */
import type { MappedMemory } from '../libc/index.ts';
import type { Mapping, UserBuffer } from '../ports/kernel.ts';

export class LinuxBuffer implements UserBuffer {
  private readonly memory: MappedMemory;
  private whole: Uint8Array | null = null;

  constructor(memory: MappedMemory) {
    this.memory = memory;
  }

  get address(): number {
    return this.memory.address;
  }

  get length(): number {
    return this.memory.length;
  }

  /** @throws RangeError when freed */
  get bytes(): Uint8Array {
    this.whole ??= new Uint8Array(this.memory.view());
    return this.whole;
  }

  /** Arrays that somebody kept show zeroes from now on. A DMA mapping of the memory keeps its pages until it is unmapped. */
  free(): void {
    this.whole = null;
    this.memory.unmap();
  }
}

/**
 * Of a device's file everything may be a register: `bytes` is null there, and each access is one of 32 bits. Reads are
 * `Atomics.load`, since V8 drops a plain read whose value is not used, and reading may be what clears a register. Writes are
 * plain stores on x86, where `Atomics.store` would be a locked read and write (xchg) and stores are ordered anyway;
 * elsewhere (arm64: stlr) `Atomics.store` is a single store too, and orders what was written to memory before it.
 */
export class LinuxMapping implements Mapping {
  private readonly memory: MappedMemory;
  private readonly writable: boolean;
  private readonly isDevice: boolean;
  private words: Uint32Array | null;

  constructor(memory: MappedMemory, writable: boolean, isDevice: boolean) {
    this.memory = memory;
    this.writable = writable;
    this.isDevice = isDevice;
    this.words = new Uint32Array(memory.view(), 0, memory.length >>> 2);
  }

  get address(): number {
    return this.memory.address;
  }

  get length(): number {
    return this.memory.length;
  }

  /** @throws RangeError after unmap */
  get bytes(): Uint8Array | null {
    return this.isDevice ? null : new Uint8Array(this.memory.view());
  }

  read32(offset: number): number {
    return Atomics.load(this.live(offset), offset >>> 2);
  }

  /** @throws TypeError when the file was mapped for reading. */
  write32(offset: number, value: number): void {
    const words = this.live(offset);
    if (!this.writable) throw new TypeError('the file was mapped for reading only');
    if (STORES_ARE_ORDERED) words[offset >>> 2] = value;
    else Atomics.store(words, offset >>> 2, value);
  }

  unmap(): void {
    this.words = null;
    this.memory.unmap();
  }

  private live(offset: number): Uint32Array {
    const { words } = this;
    if (words === null) throw new RangeError(`the mapping at 0x${this.address.toString(16)} is gone`);
    if (offset % 4 === 0 && offset >= 0 && offset + 4 <= this.length) return words;
    throw new RangeError(`offset ${offset}: expected a multiple of 4 below the mapping's ${this.length} bytes`);
  }
}

const STORES_ARE_ORDERED = process.arch === 'x64' || process.arch === 'ia32';
