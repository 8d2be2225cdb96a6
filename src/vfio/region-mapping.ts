/** A mapped part of a region. */
import type { Mapping } from '../ports/kernel.ts';
import { closed } from './error.ts';
import { Resource } from './resource.ts';

/**
 * Plain memory shows as `bytes`, `u8`, `u16`, `u32`; registers only through `read32` and `write32`, which work for both.
 * Typed arrays are for memory: an engine may split, merge or repeat their accesses.
 */
export class RegionMapping extends Resource {
  readonly label: string;
  readonly #mapping: Mapping;

  /** Made by {@link Region.map}. */
  constructor(mapping: Mapping, region: string) {
    super();
    this.label = `mapping of ${region}`;
    this.#mapping = mapping;
  }

  /** Bytes. */
  get length(): number {
    return this.#mapping.length;
  }

  /** Where this process has it. */
  get address(): number {
    return this.#mapping.address;
  }

  /** True for plain memory, false for registers. */
  get isMemory(): boolean {
    return this.#open('isMemory').bytes !== null;
  }

  /** The memory; null for registers. @throws VfioError EBADF after close */
  get bytes(): Uint8Array | null {
    return this.#open('bytes').bytes;
  }

  get u8(): Uint8Array | null {
    return this.bytes;
  }

  get u16(): Uint16Array | null {
    const bytes = this.bytes;
    return bytes === null ? null : new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 1);
  }

  get u32(): Uint32Array | null {
    const bytes = this.bytes;
    return bytes === null ? null : new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  }

  /** One access of 32 bits; `offset` is a multiple of 4. @throws VfioError EBADF after close */
  read32(offset: number): number {
    return this.#open('read32').read32(offset) >>> 0;
  }

  write32(offset: number, value: number): void {
    this.#open('write32').write32(offset, value);
  }

  protected override release(): void {
    this.#mapping.unmap();
  }

  #open(request: string): Mapping {
    if (this.isClosed) throw closed(this.label, request);
    return this.#mapping;
  }
}
