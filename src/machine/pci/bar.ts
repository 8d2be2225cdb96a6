/**
 * One base address register and what answers behind it. While its space is decoded the window is a target on the bus;
 * its address, and whether it is decoded, follow the configuration space.
 */
import { Bar } from '../../arch/pci/index.ts';
import type { Bus, MmioTarget } from '../../ports/bus.ts';
import type { Registers } from '../../ports/pci.ts';

/** A stretch of a BAR with one owner. Offsets in bytes from the BAR's start. */
export interface BarArea {
  readonly offset: number;
  readonly size: number;
  readonly registers: Registers;
  /** The bytes when the stretch is plain memory, else null. Length is `size`. */
  bytes(): Uint8Array | null;
}

export type BarKind = 'memory32' | 'memory64' | 'io' | 'rom';

export class BarWindow implements MmioTarget {
  readonly name: string;
  /** 0 to 5, or 6 for the ROM. */
  readonly index: number;
  readonly kind: BarKind;
  readonly prefetchable: boolean;
  readonly size: number;
  /** Is it a target on the bus? */
  decoded = false;
  /** Host-physical base while decoded. */
  base = 0;
  // The same as halves, so that a transaction is matched without a double.
  private baseHi = 0;
  private baseLo = 0;
  private readonly maskHi: number;
  private readonly maskLo: number;
  private readonly areas: BarArea[] = [];

  constructor(name: string, index: number, kind: BarKind, size: number, prefetchable: boolean) {
    this.name = name;
    this.index = index;
    this.kind = kind;
    this.size = size;
    this.prefetchable = prefetchable;
    this.maskLo = size >= 2 ** 32 ? 0 : -size | 0;
    this.maskHi = size >= 2 ** 32 ? -(size / 2 ** 32) | 0 : -1;
  }

  /** The bits of the low register that say what it is. */
  get typeBits(): number {
    if (this.kind === 'io') return Bar.IO;
    if (this.kind === 'rom') return 0;
    return (this.kind === 'memory64' ? Bar.TYPE_64 : 0) | (this.prefetchable ? Bar.PREFETCHABLE : 0);
  }

  /** Areas added first win where two overlap: the MSI-X table lies over a device's memory. */
  add(area: BarArea): void {
    this.areas.push(area);
  }

  /** The one stretch of plain memory that is all of the BAR, or null. */
  get plainMemory(): MemoryArea | null {
    const [only] = this.areas;
    if (this.areas.length !== 1 || !(only instanceof MemoryArea)) return null;
    return only.offset === 0 && only.size === this.size ? only : null;
  }

  /** The area that holds the byte, or null. */
  areaAt(offset: number): BarArea | null {
    for (const area of this.areas) {
      if (offset >= area.offset && offset < area.offset + area.size) return area;
    }
    return null;
  }

  /** The bytes of [offset, offset + length) when one memory area holds them all, else null. */
  view(offset: number, length: number): Uint8Array | null {
    const area = this.areaAt(offset);
    if (area === null || offset + length > area.offset + area.size) return null;
    const covering = this.areas.find(
      (other) => other !== area && other.offset < offset + length && offset < other.offset + other.size,
    );
    if (covering !== undefined && this.areas.indexOf(covering) < this.areas.indexOf(area)) return null;
    return area.bytes()?.subarray(offset - area.offset, offset - area.offset + length) ?? null;
  }

  read(offset: number, size: number): number {
    return this.areaAt(offset)?.registers.read(offset, size) ?? 0;
  }

  write(offset: number, size: number, value: number): void {
    this.areaAt(offset)?.registers.write(offset, size, value);
  }

  /** Does the decoded window hold the address {hi, lo}? */
  claims(hi: number, lo: number): boolean {
    return this.decoded && (lo & this.maskLo) === this.baseLo && (hi & this.maskHi) === this.baseHi;
  }

  /** Offset of an address that the window claims. */
  offsetOf(hi: number, lo: number): number {
    return ((hi & ~this.maskHi) >>> 0) * 2 ** 32 + ((lo & ~this.maskLo) >>> 0);
  }

  /** Decodes at `base`, or not at all (-1). An address that something else has taken is not decoded: the first one keeps it. */
  place(bus: Bus, base: number): void {
    if (base >= 0 && this.decoded && base === this.base) return;
    if (this.decoded) bus.unmap(this.base);
    this.decoded = false;
    if (base < 0) return;
    try {
      bus.map(base, this.size, this);
    } catch (error) {
      if (error instanceof RangeError) return;
      throw error;
    }
    this.decoded = true;
    this.base = base;
    this.baseHi = (base / 2 ** 32) | 0;
    this.baseLo = base | 0;
  }
}

/** Bytes that the carrier supplies, made at first touch. */
export class MemoryArea implements BarArea, Registers {
  readonly offset: number;
  readonly size: number;
  private memory: Uint8Array | null = null;

  constructor(offset: number, size: number) {
    this.offset = offset;
    this.size = size;
  }

  get registers(): Registers {
    return this;
  }

  bytes(): Uint8Array {
    this.memory ??= new Uint8Array(this.size);
    return this.memory;
  }

  /** From now on these are the bytes, with what was in them: a carrier shares them with somebody. Views taken before show the old ones. */
  moveTo(bytes: Uint8Array): void {
    if (this.memory === null) bytes.fill(0);
    else bytes.set(this.memory);
    this.memory = bytes;
  }

  read(offset: number, size: number): number {
    if (this.memory === null) return 0;
    const at = offset - this.offset;
    let value = 0;
    for (let lane = 0; lane < size && at + lane < this.size; lane++) value |= this.memory[at + lane] << (lane << 3);
    return value;
  }

  write(offset: number, size: number, value: number): void {
    const bytes = this.bytes();
    const at = offset - this.offset;
    for (let lane = 0; lane < size && at + lane < this.size; lane++) bytes[at + lane] = (value >>> (lane << 3)) & 0xff;
  }
}

/** Registers of the model, or bytes that nobody may write (a ROM). */
export class CallArea implements BarArea {
  readonly offset: number;
  readonly size: number;
  readonly registers: Registers;

  constructor(offset: number, size: number, registers: Registers) {
    this.offset = offset;
    this.size = size;
    this.registers = registers;
  }

  bytes(): null {
    return null;
  }
}

/** The image of an expansion ROM, 0xff beyond its end. */
export class RomImage implements Registers {
  private readonly image: Uint8Array;
  constructor(image: Uint8Array) {
    this.image = image;
  }
  read(offset: number, size: number): number {
    let value = 0;
    for (let lane = 0; lane < size; lane++) value |= (this.image[offset + lane] ?? 0xff) << (lane << 3);
    return value;
  }
  write(): void {}
}
