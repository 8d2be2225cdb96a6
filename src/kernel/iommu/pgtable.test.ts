import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { word64 } from '../../arch/bits.ts';
import { RamMemory } from '../../machine/memory.ts';
import { Stage } from '../../machine/smmu/stage.ts';
import { TableWalker } from '../../machine/smmu/walker.ts';
import { SecondLevelWalker } from '../../machine/vtd/walker.ts';
import { fromHalves, highHalf } from '../../ports/address.ts';
import { Prot } from '../../ports/iommu.ts';
import { Access } from '../../ports/transaction.ts';
import { secondLevelFormat } from './intel/format.ts';
import { PageTable, PageTableError } from './pgtable.ts';
import { chooseGranule, lpaeFormat, type PageTableFormat } from './pgtable-format.ts';

const RW = Prot.READ | Prot.WRITE;
const memory = () => new RamMemory([{ base: 0x4000_0000, size: 0x800_0000 }]);
const word = (from: RamMemory, at: number): bigint => word64(from.read32(at), from.read32(at + 4));

describe('PageTable', () => {
  it('writes what the hardware’s manual says: four tables and the doorbell page', () => {
    const ram = memory();
    const table = new PageTable(ram, lpaeFormat(1, 12, 48, 44));
    table.map(0x800_0000, 0x809_0000, 0x1000, Prot.WRITE | Prot.NOEXEC | Prot.MMIO);
    // 0x8000000: index 0 at level 0 and 1, 0x40 at level 2, 0 at level 3.
    const level1 = word(ram, table.base);
    const level2 = word(ram, Number(level1 & ~0xfffn));
    const level3 = word(ram, Number(level2 & ~0xfffn) + 0x40 * 8);
    expect([level1 & 0xfffn, level2 & 0xfffn, level3 & 0xfffn]).toEqual([3n, 3n, 3n]);
    expect(word(ram, Number(level3 & ~0xfffn))).toBe(0x0060_0000_0809_0e4bn);
  });

  it('uses the largest blocks that alignment allows', () => {
    const ram = memory();
    const table = new PageTable(ram, lpaeFormat(1, 12, 48, 48));
    const root = ram.allocated;
    // 1 GiB: one block at level 1, in one table below the first.
    table.map(0x4000_0000, 0x8000_0000, 0x4000_0000, RW);
    expect(ram.allocated - root).toBe(0x1000);
    const level1 = Number(word(ram, table.base) & ~0xfffn);
    expect(word(ram, level1 + 8)).toBe(0x8000_0e41n);
    // A part of a block stays, whole blocks go.
    expect(table.unmap(0x4000_0000, 0x20_0000)).toBe(0);
    expect(table.unmap(0x4020_0000, 0x3fe0_0000)).toBe(0);
    expect(table.unmap(0x4000_0000, 0x4000_0000)).toBe(0x4000_0000);
    // 2 MiB + 4 KiB.
    table.map(0x20_0000, 0x60_0000, 0x20_1000, RW);
    expect(table.lookup(0x3f_ffff)).toBe(0x7f_ffff);
    expect(table.lookup(0x40_0fff)).toBe(0x80_0fff);
    expect(table.lookup(0x40_1000)).toBe(-1);
    expect(table.unmap(0x20_0000, 0x20_1000)).toBe(0x20_1000);
  });

  it('leaves nothing behind a mapping that fails', () => {
    const ram = new RamMemory([{ base: 0x4000_0000, size: 0x400_0000 }]);
    const table = new PageTable(ram, lpaeFormat(1, 12, 48, 48));
    table.map(0x40_3000, 0x9000_0000, 0x1000, RW);
    const before = ram.allocated;
    expect(table.map(0x1ff000, 0x5000, 0x20_8000, RW)).toBe(PageTableError.EXISTS);
    expect(table.lookup(0x1ff000)).toBe(-1);
    expect(table.lookup(0x20_0000)).toBe(-1);
    expect(table.lookup(0x40_2000)).toBe(-1);
    expect(table.lookup(0x40_3000)).toBe(0x9000_0000);
    // Memory runs out in the middle of a long run.
    const hog: number[] = [];
    for (let at = ram.allocate(0x1000); at !== null; at = ram.allocate(0x1000)) hog.push(at);
    for (let i = 0; i < 3; i++) ram.free(hog.pop()!, 0x1000);
    expect(table.map(0x8000_0000, 0x5000, 0x200_0000, RW)).toBe(PageTableError.NO_MEMORY);
    expect(table.lookup(0x8000_0000)).toBe(-1);
    for (const at of hog) ram.free(at, 0x1000);
    table.reclaim();
    table.free();
    expect(ram.allocated).toBe(0);
    expect(before).toBeGreaterThan(0);
  });

  it('a word cleared in memory misleads the hardware and lookup, not the driver’s book-keeping', () => {
    const ram = memory();
    const table = new PageTable(ram, lpaeFormat(2, 12, 44, 44));
    table.map(0x1000, 0x9000_0000, 0x2000, RW);
    const top = Number(word(ram, table.base) & ~0xfffn);
    ram.write64(table.base, 0, 0);
    expect(table.lookup(0x1000)).toBe(-1);
    expect(table.unmap(0x1000, 0x2000)).toBe(0x2000);
    expect(top).toBeGreaterThan(0);
    table.free();
    expect(ram.allocated).toBe(0);
  });

  it('crosses 4 GiB in both addresses within one table', () => {
    const table = new PageTable(memory(), lpaeFormat(1, 12, 48, 48));
    table.map(2 ** 32 - 0x4000, 2 ** 33 - 0x2000, 0x8000, RW);
    for (let at = 0; at < 0x8000; at += 0x1000) expect(table.lookup(2 ** 32 - 0x4000 + at)).toBe(2 ** 33 - 0x2000 + at);
  });

  it.each([
    [[4096, 16384, 65536], 4096, 4096],
    [[4096, 65536], 16384, 4096],
    [[65536], 4096, 65536],
    [[16384, 65536], 65536, 65536],
  ])('of granules %j a kernel with pages of %i takes %i', (granules, page, expected) => {
    expect(chooseGranule(granules, page)).toBe(expected);
  });
});

/** What must be true of a table, told without tables: leaves by the address where each begins. */
class Model {
  readonly leaves = new Map<number, { readonly pa: number; readonly size: number }>();
  private readonly sizes: readonly number[];

  constructor(sizes: readonly number[]) {
    this.sizes = sizes;
  }

  /** A leaf begins at a multiple of its size. */
  find(iova: number): number {
    for (const size of this.sizes) {
      const start = iova - (iova % size);
      const leaf = this.leaves.get(start);
      if (leaf !== undefined && leaf.size === size) return leaf.pa + iova - start;
    }
    return -1;
  }

  map(iova: number, pa: number, size: number): boolean {
    for (let done = 0; done < size; done += this.sizes[0]) if (this.find(iova + done) !== -1) return false;
    for (let done = 0; done < size; ) {
      const leaf = this.sizes.findLast(
        (each) => (iova + done) % each === 0 && (pa + done) % each === 0 && size - done >= each,
      )!;
      this.leaves.set(iova + done, { pa: pa + done, size: leaf });
      done += leaf;
    }
    return true;
  }

  unmap(iova: number, size: number): number {
    let done = 0;
    for (;;) {
      const leaf = this.leaves.get(iova + done);
      if (leaf === undefined || done + leaf.size > size) return done;
      this.leaves.delete(iova + done);
      done += leaf.size;
    }
  }
}

/** The hardware's own walk of the same tables. */
function hardware(ram: RamMemory, table: PageTable, format: PageTableFormat): (iova: number) => number {
  if (format.name === 'INTEL_IOMMU_SL') {
    const walker = new SecondLevelWalker(ram);
    return (iova) => {
      const reason = walker.walk(
        highHalf(table.base),
        table.base | 0,
        format.inputBits,
        highHalf(iova),
        iova | 0,
        Access.READ,
      );
      return reason === 0 ? fromHalves(walker.outHi, walker.outLo) : -1;
    };
  }
  const walker = new TableWalker(ram);
  const number = format.name.endsWith('S1') ? 1 : 2;
  const options = { tableHi: highHalf(table.base), tableLo: table.base | 0, outputBits: format.outputBits };
  const stage = new Stage(number, format, options);
  return (iova) => {
    const [s1, s2] = number === 1 ? [stage, null] : [null, stage];
    const event = walker.walk(s1, s2, highHalf(iova), iova | 0, Access.READ);
    return event === 0 ? fromHalves(walker.outHi, walker.outLo) : -1;
  };
}

describe('random programs of map and unmap', () => {
  const formats: PageTableFormat[] = [
    lpaeFormat(1, 12, 48, 48),
    lpaeFormat(1, 14, 48, 48),
    lpaeFormat(1, 16, 48, 48),
    lpaeFormat(2, 12, 44, 44),
    lpaeFormat(2, 12, 40, 40),
    lpaeFormat(2, 14, 48, 48),
    lpaeFormat(2, 16, 42, 42),
    secondLevelFormat(48),
    secondLevelFormat(39),
  ];

  it.each(formats.map((format) => [`${format.name} 2^${format.granuleShift} ${format.inputBits}`, format] as const))(
    '%s: model, lookup and the hardware’s walk agree, and every table comes back',
    (_, format) => {
      const granule = 2 ** format.granuleShift;
      const block = format.pageSizes[1];
      // Neighbourhoods in which programs meet themselves: the bottom, 4 GiB, and the top of the input range.
      const bases = [0, 2 ** 32 - 2 * block, 2 ** format.inputBits - 4 * block];
      const step = fc.record({
        unmap: fc.boolean(),
        base: fc.nat(bases.length - 1),
        blocks: fc.nat(3),
        pages: fc.oneof(fc.constant(0), fc.nat(5), fc.constant(block / granule - 2)),
        length: fc.oneof(
          fc.integer({ min: 1, max: 6 }),
          fc.constant(block / granule),
          fc.constant(block / granule + 3),
        ),
        pa: fc.oneof(fc.constant(0), fc.constant(granule), fc.constant(2 ** 32 - granule), fc.constant(2 ** 32)),
      });
      const ram = memory();
      fc.assert(
        fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
          const table = new PageTable(ram, format);
          const walk = hardware(ram, table, format);
          const model = new Model(format.pageSizes);
          const touched = new Set<number>();
          for (const { unmap, base, blocks, pages, length, pa } of steps) {
            const iova = bases[base] + blocks * block + pages * granule;
            const size = Math.min(length * granule, 2 ** format.inputBits - iova);
            if (unmap) {
              expect(table.unmap(iova, size)).toBe(model.unmap(iova, size));
              table.reclaim();
            } else {
              const fits = model.map(iova, pa, size);
              expect(table.map(iova, pa, size, RW)).toBe(fits ? PageTableError.NONE : PageTableError.EXISTS);
            }
            for (const at of [iova, iova + size - granule, iova + size / 2 - ((size / 2) % granule)]) touched.add(at);
          }
          for (const at of touched) {
            const expected = model.find(at);
            expect(table.lookup(at)).toBe(expected);
            expect(walk(at)).toBe(expected);
          }
          for (const [iova, { size }] of model.leaves) {
            if (table.unmap(iova, size) !== size) throw new Error(`the leaf at ${iova.toString(16)} did not go`);
          }
          for (const at of touched) expect(walk(at)).toBe(-1);
          table.free();
          return ram.allocated === 0;
        }),
        // A table of 64K pages takes 8,192 of them: fewer programs cover as much.
        { numRuns: format.granuleShift === 12 ? 160 : 60 },
      );
    },
  );
});
