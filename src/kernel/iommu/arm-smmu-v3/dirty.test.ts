/** Dirty tracking by the SMMU and its driver, without iommufd: arm-smmu-v3.c and io-pgtable-arm.c of Linux 7.2. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { getNumber, word64 } from '../../../arch/bits.ts';
import { CD, CD_WORDS } from '../../../arch/smmuv3/cd.ts';
import type { SmmuSpec } from '../../../machine/spec.ts';
import { Prot } from '../../../ports/iommu.ts';
import { Access, Status } from '../../../ports/transaction.ts';
import type { PagingDomain } from '../paging-domain.ts';
import { smmuHost } from '../testing.ts';

const SID = 0x28;
const RW = Prot.READ | Prot.WRITE;
const K = 1024;
const M = K * K;
const EINVAL = -22;

function tracked(changes: Partial<SmmuSpec> = {}, pageSize = 4096) {
  const host = smmuHost({ httu: 'dirty', ...changes }, pageSize);
  const domain = host.driver.allocate(SID, 1, 'unmanaged', true) as PagingDomain;
  host.driver.attach(SID, domain);
  /** The leaves that are told, each as [iova, length]. */
  const read = (iova: number, size: number, noClear = false) => {
    const told: [number, number][] = [];
    const answer = domain.dirtyOps!.readAndClearDirty(iova, size, noClear, (at, length) => told.push([at, length]));
    return { answer, told };
  };
  return { ...host, domain, read };
}

describe('arm_smmu_dbm_capable', () => {
  it.each([
    ['dirty', true, true],
    ['dirty', false, false],
    ['access', true, false],
    ['none', true, false],
  ] as const)('httu %s, coherent %s: %s', (httu, coherent, expected) => {
    expect(smmuHost({ httu, coherent }).driver.dirtyTracking).toBe(expected);
  });

  it('a stage 2 does not track: EOPNOTSUPP', () => {
    expect(smmuHost({ httu: 'dirty' }).driver.allocate(SID, 2, 'unmanaged', true)).toBe(-95);
  });
});

describe('what the driver writes', () => {
  it('CD.HA and HD, for a domain that tracks and for no other', () => {
    const { context, driver } = tracked();
    const descriptor = (): readonly bigint[] => {
      const at = driver.descriptorOf(SID, 0);
      return Array.from({ length: CD_WORDS }, (_, i) =>
        word64(context.memory.read32(at + i * 8), context.memory.read32(at + i * 8 + 4)),
      );
    };
    expect([getNumber(descriptor(), CD.HA), getNumber(descriptor(), CD.HD)]).toEqual([1, 1]);
    driver.attach(SID, driver.allocate(SID, 1) as PagingDomain);
    expect([getNumber(descriptor(), CD.HA), getNumber(descriptor(), CD.HD)]).toEqual([0, 0]);
  });

  // arm_lpae_prot_to_pte with IO_PGTABLE_QUIRK_ARM_HD: bit 51 in what can be written, AP[2] (bit 7) in what cannot.
  it.each([
    ['read and write', Prot.READ | Prot.WRITE, 1n << 51n],
    ['write', Prot.WRITE, 1n << 51n],
    ['read', Prot.READ, 1n << 7n],
  ])('a leaf to %s', (_, prot, expected) => {
    const attributes = tracked().domain.format.attributes(prot);
    expect(word64(attributes.lo, attributes.hi) & ((1n << 51n) | (1n << 7n))).toBe(expected);
  });
});

describe('arm_lpae_read_and_clear_dirty', () => {
  it.each([
    [4096, [4 * K, 2 * M]],
    [16384, [16 * K, 32 * M]],
    [65536, [64 * K]],
  ])('pages of %i: each size of leaf is dirty by itself', (page, sizes) => {
    const { domain, dma, read } = tracked({}, page);
    for (const [i, size] of sizes.entries()) {
      const iova = 0x4000_0000 * (i + 1);
      expect(domain.map(iova, 0x4000_0000, 2 * size, RW)).toBe(0);
      expect(read(iova, 2 * size)).toEqual({
        answer: 0,
        told: [
          [iova, size],
          [iova + size, size],
        ],
      });
      expect(dma(SID, iova + 2 * size - 4, Access.READ)).toBe(Status.OK);
      expect(read(iova, 2 * size).told).toEqual([]);
      expect(dma(SID, iova + 2 * size - 4, Access.WRITE)).toBe(Status.OK);
      expect(read(iova, 2 * size, true).told).toEqual([[iova + size, size]]);
      expect(read(iova, 2 * size).told).toEqual([[iova + size, size]]);
      expect(read(iova, 2 * size).told).toEqual([]);
    }
  });

  it('is -EINVAL at a hole, with what came before told and clean', () => {
    const { domain, read } = tracked();
    domain.map(0x10_0000, 0x4000_0000, 8 * K, RW);
    domain.map(0x10_3000, 0x4000_3000, 4 * K, RW);
    expect(read(0x10_0000, 16 * K)).toEqual({
      answer: EINVAL,
      told: [
        [0x10_0000, 4 * K],
        [0x10_1000, 4 * K],
      ],
    });
    expect(read(0x10_0000, 8 * K)).toEqual({ answer: 0, told: [] });
    expect(read(0x4000_0000, 4 * K)).toEqual({ answer: EINVAL, told: [] });
  });

  it('goes on as far inside of everything as it began inside of a block', () => {
    const { domain, read } = tracked();
    domain.map(32 * M, 0x4020_0000, 2 * M, RW);
    // Pages behind the block: the walk comes to the table 1 MiB inside, and misses the first 256 of them.
    domain.map(34 * M, 0x4040_1000, 2 * M - 4 * K, RW);
    const { answer, told } = read(33 * M, 3 * M - 4 * K);
    expect(answer).toBe(0);
    expect(told.slice(0, 3)).toEqual([
      [33 * M, 2 * M],
      [35 * M, 4 * K],
      [35 * M + 4 * K, 4 * K],
    ]);
    expect(told).toHaveLength(1 + 255);
  });

  it('unmapping and mapping anew begins dirty, whatever was made clean', () => {
    const { domain, dma, read } = tracked();
    domain.map(0x10_0000, 0x4000_0000, 4 * K, RW);
    read(0x10_0000, 4 * K);
    domain.unmap(0x10_0000, 4 * K);
    domain.sync();
    expect(dma(SID, 0x10_0000)).toBe(Status.FAULT);
    domain.map(0x10_0000, 0x4000_0000, 4 * K, RW);
    expect(read(0x10_0000, 4 * K).told).toEqual([[0x10_0000, 4 * K]]);
  });

  it('two streams of one domain make the same leaves dirty', () => {
    const { driver, domain, dma, read } = tracked();
    driver.attach(SID + 1, domain);
    domain.map(0x10_0000, 0x4000_0000, 16 * K, RW);
    read(0x10_0000, 16 * K);
    dma(SID, 0x10_0000);
    dma(SID + 1, 0x10_2000);
    expect(read(0x10_0000, 16 * K).told).toEqual([
      [0x10_0000, 4 * K],
      [0x10_2000, 4 * K],
    ]);
  });
});

describe('random DMA', () => {
  const step = fc.record({
    what: fc.constantFrom('write', 'read', 'look', 'clear'),
    stream: fc.nat(1),
    leaf: fc.nat(9),
  });

  it('what is told is what was written since it was told, in pages and blocks, from a TLB of any age', () => {
    const { driver, domain, dma, read } = tracked();
    driver.attach(SID + 1, domain);
    // Eight pages up to a block's beginning, and two blocks.
    const base = 64 * M - 32 * K;
    domain.map(base, 0x4000_0000 + 2 * M - 32 * K, 32 * K + 4 * M, RW);
    const leaves = Array.from({ length: 10 }, (_, i): [number, number] =>
      i < 8 ? [base + i * 4 * K, 4 * K] : [64 * M + (i - 8) * 2 * M, 2 * M],
    );
    const dirty = new Set<number>();
    read(base, 32 * K + 4 * M);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
        for (const { what, stream, leaf } of steps) {
          const [iova, size] = leaves[leaf]!;
          if (what === 'write' || what === 'read') {
            const access = what === 'write' ? Access.WRITE : Access.READ;
            if (dma(SID + stream, iova + ((leaf * 0x777 * 4) % size), access) !== Status.OK) throw new Error('refused');
            if (what === 'write') dirty.add(leaf);
            continue;
          }
          const { told } = read(base, 32 * K + 4 * M, what === 'look');
          const expected = leaves.filter((_, i) => dirty.has(i));
          if (told.join() !== expected.join()) throw new Error(`told ${told.join()}, expected ${expected.join()}`);
          if (what === 'clear') dirty.clear();
        }
      }),
      { numRuns: 2000 },
    );
  });
});
