import { describe, expect, it } from 'vitest';
import { getField, word64 } from '../bits.ts';
import { S1_LEAF, S2_LEAF, stage1Attributes, stage2Attributes } from './descriptor.ts';
import {
  allowsBlock,
  decodeSl0,
  encodeSl0,
  pageSizesOf,
  stage1Geometry,
  stage2FromSte,
  stage2Geometry,
} from './geometry.ts';

const none = { read: false, write: false, cache: false, noexec: false, mmio: false };

describe('LPAE leaves', () => {
  it.each([
    // The doorbell: WRITE|NOEXEC|MMIO. nG 11, AF 10, SH outer 9:8 = 2, AP[1] 6, AttrIndx 2, XN 54:53; not read-only.
    ['stage 1 doorbell', stage1Attributes({ ...none, write: true, noexec: true, mmio: true }), 0x0060_0000_0000_0e48n],
    ['stage 1 read-only', stage1Attributes({ ...none, read: true }), 0x0000_0000_0000_0ec0n],
    ['stage 1 cached', stage1Attributes({ ...none, read: true, write: true, cache: true }), 0x0000_0000_0000_0f44n],
    // AF, SH outer, HAP write 7, MemAttr 1 (device-nGnRE), XN.
    ['stage 2 doorbell', stage2Attributes({ ...none, write: true, noexec: true, mmio: true }), 0x0060_0000_0000_0684n],
    // AF, SH inner, HAP 3, MemAttr 0xf.
    ['stage 2 cached', stage2Attributes({ ...none, read: true, write: true, cache: true }), 0x0000_0000_0000_07fcn],
  ])('%s', (_, { lo, hi }, expected) => {
    expect(word64(lo, hi)).toBe(expected);
  });

  it('names its fields', () => {
    const leaf = [0x0060_0000_0809_0e4bn];
    expect(getField(leaf, S1_LEAF.Address)).toBe(0x8090n);
    expect(getField(leaf, S1_LEAF.AttrIndx)).toBe(2n);
    expect(getField(leaf, S1_LEAF.AP2)).toBe(0n);
    expect(getField(leaf, S1_LEAF.XN)).toBe(1n);
    expect(getField([0x7ffn], S2_LEAF.MemAttr)).toBe(0xfn);
  });
});

describe('LPAE geometry', () => {
  it.each([
    // granule, input bits, start level, entries of the first table
    [12, 48, 0, 512],
    [12, 39, 1, 512],
    [14, 48, 0, 2],
    [14, 47, 1, 2048],
    [16, 48, 1, 64],
    [16, 42, 2, 8192],
  ])('stage 1: granule 2^%i, %i bits begin at level %i with %i entries', (granule, bits, level, entries) => {
    const geometry = stage1Geometry(granule, bits);
    expect([geometry.startLevel, 2 ** geometry.startBits]).toEqual([level, entries]);
  });

  it.each([
    // 44 bits leave 32 entries at level 0: more than 16, so that nothing is concatenated.
    [12, 44, 0, 32],
    [12, 40, 1, 1024],
    [12, 42, 1, 4096],
    [14, 48, 1, 4096],
    [16, 44, 1, 4],
    [16, 42, 2, 8192],
  ])('stage 2: granule 2^%i, %i bits begin at level %i with %i entries', (granule, bits, level, entries) => {
    const geometry = stage2Geometry(granule, bits);
    expect([geometry.startLevel, 2 ** geometry.startBits]).toEqual([level, entries]);
    // What software lays out, hardware reads back from SL0.
    expect(stage2FromSte(granule, bits, encodeSl0(granule, geometry.startLevel))).toEqual(geometry);
  });

  it('refuses start levels that do not fit the input size', () => {
    expect(stage2FromSte(12, 44, 0)).toBeNull();
    expect(stage2FromSte(12, 44, 3)).toBeNull();
    expect(stage2FromSte(12, 32, 2)).toBeNull();
    expect(decodeSl0(12, 2)).toBe(0);
    expect(decodeSl0(16, 2)).toBe(1);
  });

  it('knows pages and blocks', () => {
    expect(pageSizesOf(12)).toEqual([0x1000, 0x20_0000, 0x4000_0000]);
    expect(pageSizesOf(14)).toEqual([0x4000, 0x200_0000]);
    expect(pageSizesOf(16)).toEqual([0x1_0000, 0x2000_0000]);
    expect(allowsBlock(12, 0)).toBe(false);
    expect(allowsBlock(14, 1)).toBe(false);
  });
});
