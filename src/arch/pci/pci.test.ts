import { describe, expect, it } from 'vitest';
import { capabilities, extendedCapabilities, extendedHeader, findCapability } from './capability.ts';
import { msiCapable, msiDataOffset, msiGranted, msiLength, msiMaskOffset, msiPendingOffset } from './msi.ts';
import { msixPbaSize, msixTableSize, msixVectors } from './msix.ts';

const reader =
  (bytes: Uint8Array) =>
  (offset: number, size: number): number => {
    let value = 0;
    for (let lane = size - 1; lane >= 0; lane--) value = value * 256 + (bytes[offset + lane] ?? 0xff);
    return value;
  };

describe('MSI (PCI 3.0, figure 6-9)', () => {
  it('has 10, 14, 20 or 24 bytes', () => {
    expect([0x000, 0x080, 0x100, 0x180].map(msiLength)).toEqual([10, 14, 20, 24]);
    expect([0x000, 0x080].map(msiDataOffset)).toEqual([8, 12]);
    expect([0x100, 0x180].map(msiMaskOffset)).toEqual([12, 16]);
    expect([0x100, 0x180].map(msiPendingOffset)).toEqual([16, 20]);
  });

  it('counts messages in powers of two, reserved encodings as 32, and grants no more than asked', () => {
    expect([0, 1, 2, 3, 4, 5, 6, 7].map((log2) => msiCapable(log2 << 1))).toEqual([1, 2, 4, 8, 16, 32, 32, 32]);
    expect(msiGranted((5 << 4) | (2 << 1))).toBe(4);
    expect(msiGranted((1 << 4) | (5 << 1))).toBe(2);
  });
});

describe('MSI-X', () => {
  it('holds up to 2,048 vectors of 16 bytes and a pending bit each in 64-bit words', () => {
    expect([msixVectors(0), msixVectors(0xc7ff)]).toEqual([1, 2048]);
    expect([msixTableSize(3), msixTableSize(2048)]).toEqual([48, 32768]);
    expect([1, 64, 65, 2048].map(msixPbaSize)).toEqual([8, 8, 16, 256]);
  });
});

describe('lists of capabilities', () => {
  const space = (size: number, ...parts: [number, number[]][]): Uint8Array => {
    const bytes = new Uint8Array(size);
    for (const [at, values] of parts) bytes.set(values, at);
    return bytes;
  };

  it('are followed in their order, low bits of pointers ignored', () => {
    const read = reader(space(256, [0x06, [0x10]], [0x34, [0x53]], [0x40, [0x11, 0x00]], [0x50, [0x05, 0x42]]));
    expect(capabilities(read)).toEqual([
      { id: 0x05, offset: 0x50, version: 0 },
      { id: 0x11, offset: 0x40, version: 0 },
    ]);
    expect([findCapability(read, 0x11), findCapability(read, 0x10)]).toEqual([0x40, 0]);
  });

  it('are empty without the status bit, and end where they loop or leave the space', () => {
    expect(capabilities(reader(space(256, [0x34, [0x40]], [0x40, [0x05]])))).toEqual([]);
    expect(capabilities(reader(space(256, [0x06, [0x10]], [0x34, [0x40]], [0x40, [0x05, 0x40]])))).toHaveLength(1);
    expect(capabilities(reader(space(256, [0x06, [0x10]], [0x34, [0x40]], [0x40, [0x05, 0x10]])))).toHaveLength(1);
    expect(capabilities(reader(new Uint8Array(0)))).toEqual([]);
  });

  it('extended ones too', () => {
    expect(extendedHeader(0x000d, 1, 0x148)).toBe(0x1481_000d);
    const read = reader(space(4096, [0x100, [0x0d, 0x00, 0x81, 0x14]], [0x148, [0x01, 0x00, 0x02, 0x10]]));
    expect(extendedCapabilities(read)).toEqual([
      { id: 0x0d, offset: 0x100, version: 1 },
      { id: 0x01, offset: 0x148, version: 2 },
    ]);
    expect(extendedCapabilities(reader(new Uint8Array(256)))).toEqual([]);
  });
});
