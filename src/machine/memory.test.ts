import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RamMemory } from './memory.ts';

const MiB = 0x10_0000;
const machine = () => new RamMemory([{ base: 0x4000_0000, size: 128 * MiB }]);

describe('RamMemory', () => {
  it('stores little-endian words that bytes, halves and views all see', () => {
    const memory = machine();
    expect(memory.write64(0x4000_1008, 0x11223344, 0x55667788)).toBe(true);
    const bytes = new Uint8Array(8);
    expect(memory.read(0x4000_1008, bytes)).toBe(true);
    expect([...bytes]).toEqual([0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55]);
    expect(memory.read32(0x4000_100c)).toBe(0x55667788);
    expect(memory.view(0x4000_100b, 2)).toEqual(new Uint8Array([0x11, 0x88]));
    expect(memory.locate(0, 0x4000_100c)).toBe(true);
    expect(memory.words[memory.at + 1]).toBe(0x55667788);
  });

  it('crosses segments of 64 MiB', () => {
    const memory = machine();
    const edge = 0x4400_0000;
    expect(memory.write(edge - 2, new Uint8Array([1, 2, 3, 4]))).toBe(true);
    const back = new Uint8Array(4);
    expect(memory.read(edge - 2, back)).toBe(true);
    expect([...back]).toEqual([1, 2, 3, 4]);
    expect(memory.view(edge - 2, 4)).toBeNull();
  });

  it('answers that nothing is there outside RAM, also where 32-bit indices would wrap', () => {
    const memory = machine();
    expect(memory.locate(0, 0x3fff_fff8)).toBe(false);
    expect(memory.locate(0, 0x4800_0000)).toBe(false);
    // 2^58 + 0x4000_0000: (hi << 6) would drop the high bits.
    expect(memory.locate(0x0400_0000, 0x4000_0000)).toBe(false);
    expect(memory.write64(0x4800_0000, 1, 1)).toBe(false);
    expect(memory.write(0x47ff_fffc, new Uint8Array(8))).toBe(false);
    expect(memory.read32(0x47ff_fffc)).toBe(0);
    expect(memory.covers(0x4000_0000, 128 * MiB)).toBe(true);
    expect(memory.covers(0x4000_0000, 128 * MiB + 1)).toBe(false);
  });

  it('holds RAM above 4 GiB', () => {
    const memory = new RamMemory([{ base: 2 ** 43, size: 64 * MiB }]);
    expect(memory.write64(2 ** 43 + 0x40, 7, 9)).toBe(true);
    expect(memory.locate(0x800, 0x40)).toBe(true);
    expect([memory.words[memory.at], memory.words[memory.at + 1]]).toEqual([7, 9]);
  });

  it('allocates zeroed, aligned memory and refuses to free twice', () => {
    const memory = machine();
    const first = memory.allocate(0x1000)!;
    memory.write32(first, 0xdead);
    memory.free(first, 0x1000);
    const again = memory.allocate(0x1000)!;
    expect(again).toBe(first);
    expect(memory.read32(again)).toBe(0);
    const big = memory.allocate(0x10000, 0x10000)!;
    expect(big % 0x10000).toBe(0);
    expect(memory.allocated).toBe(0x11000);
    memory.free(big, 0x10000);
    expect(() => memory.free(big, 0x10000)).toThrow(RangeError);
    memory.free(again, 0x1000);
    expect(memory.allocated).toBe(0);
  });

  it('never hands out address 0', () => {
    expect(new RamMemory([{ base: 0, size: 64 * MiB }]).allocate(0x1000)).toBe(0x10_0000);
  });

  it('answers null when exhausted, and merges what was freed', () => {
    const memory = new RamMemory([{ base: 0x4000_0000, size: 64 * MiB }]);
    const quarters = [0, 1, 2, 3].map(() => memory.allocate(16 * MiB)!);
    expect(memory.allocate(0x1000)).toBeNull();
    for (const base of quarters) memory.free(base, 16 * MiB);
    expect(memory.allocate(64 * MiB)).toBe(0x4000_0000);
  });

  it('hands out disjoint blocks, whatever the order of allocations', () => {
    const memory = new RamMemory([{ base: 0x4000_0000, size: 64 * MiB }]);
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            pages: fc.integer({ min: 1, max: 40 }),
            shift: fc.integer({ min: 12, max: 17 }),
            free: fc.nat(),
          }),
          {
            maxLength: 20,
          },
        ),
        (steps) => {
          const live: { base: number; length: number }[] = [];
          for (const { pages, shift, free } of steps) {
            if (free % 3 === 0 && live.length > 0) {
              const [gone] = live.splice(free % live.length, 1);
              memory.free(gone.base, gone.length);
              continue;
            }
            const length = pages * 4096;
            const base = memory.allocate(length, 2 ** shift)!;
            expect(base % 2 ** shift).toBe(0);
            for (const other of live)
              expect(base + length <= other.base || other.base + other.length <= base).toBe(true);
            live.push({ base, length });
          }
          for (const { base, length } of live) memory.free(base, length);
          return memory.allocated === 0;
        },
      ),
      { numRuns: 1000 },
    );
  });

  it('reads and writes a backing through the same calls', () => {
    const memory = machine();
    const carried = new Uint8Array(0x2000);
    memory.addBacking(0x9000_0000, 0x2000, {
      read(offset, into) {
        into.set(carried.subarray(offset, offset + into.length));
        return true;
      },
      write(offset, from) {
        carried.set(from, offset);
        return true;
      },
    });
    expect(memory.write64(0x9000_0ff8, 0x04030201, 0x08070605)).toBe(true);
    expect([...carried.subarray(0xff8, 0x1000)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(memory.locate(0, 0x9000_0ff8 | 0)).toBe(true);
    expect(memory.words[memory.at + 1]).toBe(0x08070605);
    const back = new Uint8Array(4);
    expect(memory.read(0x9000_0ffc, back)).toBe(true);
    expect([...back]).toEqual([5, 6, 7, 8]);
    expect(memory.view(0x9000_0000, 4)).toBeNull();
    expect(() => memory.addBacking(0x9000_1000, 8, { read: () => true, write: () => true })).toThrow(/overlaps/);
    memory.removeBacking(0x9000_0000);
    expect(memory.covers(0x9000_0000, 1)).toBe(false);
  });
});
