/** Configuration spaces for tests: bytes, which bits software can write, and what a write sets off. */
import type { ConfigAccess } from '../../ports/pci.ts';

export class FixtureFunction {
  readonly bytes = new Uint8Array(4096);
  /** Bits that a write changes. */
  readonly writable = new Uint8Array(4096);
  /** Bits that a write of one clears. */
  readonly clears = new Uint8Array(4096);
  /** Called after each write. */
  onWrite: (offset: number, size: number, value: number) => void = () => {};
  /** Every write, in order. */
  readonly writes: { offset: number; size: number; value: number }[] = [];
  readonly size: number;
  private powerOn: Uint8Array | null = null;

  constructor(vendor: number, device: number, size = 4096) {
    this.size = size;
    this.put(0x00, 2, vendor);
    this.put(0x02, 2, device);
    this.allow(0x04, 2, 0x0547);
    this.allow(0x0c, 1, 0xff);
    this.allow(0x3c, 1, 0xff);
  }

  put(offset: number, size: number, value: number): this {
    for (let i = 0; i < size; i += 1) this.bytes[offset + i] = (value / 2 ** (8 * i)) & 0xff;
    return this;
  }

  allow(offset: number, size: number, mask: number): this {
    for (let i = 0; i < size; i += 1) this.writable[offset + i] = (mask / 2 ** (8 * i)) & 0xff;
    return this;
  }

  /** A memory BAR of `size` bytes at `base`, with `flags` in its low bits; 64-bit when flags has bit 2. */
  bar(index: number, base: number, size: number, flags = 0): this {
    const offset = 0x10 + 4 * index;
    this.put(offset, 4, (base % 2 ** 32) + flags).allow(offset, 4, (~(size - 1) & ~0xf) >>> 0);
    if ((flags & 4) !== 0) this.put(offset + 4, 4, Math.floor(base / 2 ** 32)).allow(offset + 4, 4, 0xffff_ffff);
    return this;
  }

  rom(base: number, size: number): this {
    return this.put(0x30, 4, base).allow(0x30, 4, (~(size - 1) | 1) >>> 0);
  }

  /** Appends a capability at `offset` to the list whose last pointer is at `link`. Returns this. */
  capability(link: number, offset: number, id: number): this {
    this.put(0x06, 2, this.read(0x06, 2) | 0x10);
    return this.put(link, 1, offset).put(offset, 1, id);
  }

  extended(offset: number, id: number, next: number): this {
    return this.put(offset, 4, (id | 0x1_0000 | (next << 20)) >>> 0);
  }

  /** What `reset` goes back to: the bytes now. */
  seal(): this {
    this.powerOn = this.bytes.slice();
    return this;
  }

  reset(): void {
    if (this.powerOn !== null) this.bytes.set(this.powerOn);
  }

  read(offset: number, size: number): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i -= 1)
      value = value * 256 + (offset + i < this.size ? this.bytes[offset + i]! : 0xff);
    return value;
  }

  write(offset: number, size: number, value: number): void {
    this.writes.push({ offset, size, value });
    for (let i = 0; i < size; i += 1) {
      const mask = this.writable[offset + i]!;
      const byte = (value / 2 ** (8 * i)) & 0xff;
      const kept = (this.bytes[offset + i]! & ~mask) | (byte & mask);
      this.bytes[offset + i] = kept & ~(byte & this.clears[offset + i]!);
    }
    this.onWrite(offset, size, value);
  }
}

/** Functions by requester id; absent ones read all ones. */
export class FixtureConfig implements ConfigAccess {
  readonly functions = new Map<number, FixtureFunction>();

  add(requester: number, fn: FixtureFunction): FixtureFunction {
    this.functions.set(requester, fn);
    return fn;
  }

  configRead(requester: number, offset: number, size: number): number {
    return this.functions.get(requester)?.read(offset, size) ?? 2 ** (8 * size) - 1;
  }

  configWrite(requester: number, offset: number, size: number, value: number): void {
    this.functions.get(requester)?.write(offset, size, value);
  }
}
