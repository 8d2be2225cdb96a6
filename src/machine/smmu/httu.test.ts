/** Hardware updates of table descriptors: IHI 0070 3.13, 5.2, 5.4; the bits are those of Arm ARM D8.3. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CFGI, Op, TLBI } from '../../arch/smmuv3/commands.ts';
import { Event, EventClass } from '../../arch/smmuv3/events.ts';
import { Reg } from '../../arch/smmuv3/registers.ts';
import { Access, Status } from '../../ports/transaction.ts';
import type { SmmuSpec } from '../spec.ts';
import { LEAF1, LEAF2, RAM, SmmuBench } from './testing.ts';

const AF = 0x400n;
const READ_ONLY = 0x80n;
const WRITABLE2 = 0x80n;
const DBM = 1n << 51n;
const { READ, WRITE } = Access;
const PAGE = RAM + 0x200_0000;

/** Stream 1 through a stage 1 with these bits of its descriptor. */
function stage1(cd: Parameters<SmmuBench['cd']>[1], changes: Partial<SmmuSpec> = {}) {
  const bench = new SmmuBench({ httu: 'dirty', ...changes });
  const root = bench.table();
  const at = bench.cd(1, { ASID: 1, TTB0: BigInt(root) >> 4n, ...cd });
  bench.ste(1, { Config: 5, S1ContextPtr: BigInt(at) >> 6n });
  const leaf = (iova: number, attributes: bigint): number => bench.map(root, iova, PAGE + iova, attributes);
  return { bench, root, leaf };
}

describe('IDR0.HTTU', () => {
  it.each([
    ['none', 0],
    ['access', 1],
    ['dirty', 2],
  ] as const)('%s is %i', (httu, value) => {
    expect((new SmmuBench({ httu }).read(Reg.IDR0) >>> 6) & 3).toBe(value);
  });

  it.each([
    // httu, HA, HD, is the descriptor legal?
    ['none', 1, 0, false],
    ['none', 0, 1, false],
    ['access', 1, 0, true],
    ['access', 1, 1, false],
    ['access', 0, 1, false],
    ['dirty', 1, 1, true],
    ['dirty', 0, 1, true],
  ] as const)('%s: HA %i with HD %i', (httu, HA, HD, legal) => {
    const { bench, leaf } = stage1({ HA, HD }, { httu });
    leaf(0x1000, LEAF1);
    expect(bench.dma(0x1000)).toBe(legal ? Status.OK : Status.FAULT);
    expect(bench.events().map(({ id }) => id)).toEqual(legal ? [] : [Event.C_BAD_CD]);
    const two = new SmmuBench({ httu });
    const root = two.table();
    two.ste(1, { Config: 6, ...two.stage2Fields(root), S2HA: HA, S2HD: HD });
    two.map(root, 0x1000, PAGE, LEAF2);
    expect(two.dma(0x1000)).toBe(legal ? Status.OK : Status.FAULT);
    expect(two.events().map(({ id }) => id)).toEqual(legal ? [] : [Event.C_BAD_STE]);
  });
});

describe('the access flag', () => {
  it('is set in memory by the first access, and by nothing else', () => {
    const { bench, leaf } = stage1({ HA: 1 });
    const used = leaf(0x1000, LEAF1 & ~AF);
    const unused = leaf(0x2000, LEAF1 & ~AF);
    const before = [bench.word(used), bench.word(unused)];
    expect(bench.dma(0x1000, READ)).toBe(Status.OK);
    expect([bench.word(used), bench.word(unused)]).toEqual([before[0]! | AF, before[1]]);
  });

  it('AFFD means nothing beside HA; without HA the flag is refused, or taken as set', () => {
    const { bench, leaf } = stage1({ HA: 1, AFFD: 1 });
    const at = leaf(0x1000, LEAF1 & ~AF);
    expect(bench.dma(0x1000, READ)).toBe(Status.OK);
    expect(bench.word(at) & AF).toBe(AF);
    const refused = stage1({});
    refused.leaf(0x1000, LEAF1 & ~AF);
    expect(refused.bench.dma(0x1000, READ)).toBe(Status.FAULT);
    expect(refused.bench.events()[0]).toMatchObject({ id: Event.F_ACCESS });
    const taken = stage1({ AFFD: 1 });
    const kept = taken.leaf(0x1000, LEAF1 & ~AF);
    expect(taken.bench.dma(0x1000, READ)).toBe(Status.OK);
    expect(taken.bench.word(kept) & AF).toBe(0n);
  });

  it('stays clear when the access is refused', () => {
    const { bench, leaf } = stage1({ HA: 1 });
    const at = leaf(0x1000, (LEAF1 & ~AF) | READ_ONLY);
    expect(bench.dma(0x1000, WRITE)).toBe(Status.FAULT);
    expect(bench.word(at) & AF).toBe(0n);
  });
});

describe('the dirty state of stage 1', () => {
  it('a read leaves a page clean; a write makes it dirty, also through the entry that the read left in the TLB', () => {
    for (const tlbKeepsDirty of [false, true]) {
      const { bench, leaf } = stage1({ HA: 1, HD: 1 }, { tlbKeepsDirty });
      const at = leaf(0x1000, LEAF1 | READ_ONLY | DBM);
      const clean = bench.word(at);
      for (let i = 0; i < 3; i++) expect(bench.dma(0x1234, READ)).toBe(Status.OK);
      expect(bench.word(at)).toBe(clean);
      expect(bench.dma(0x1ffc, WRITE)).toBe(Status.OK);
      expect(bench.pa).toBe(PAGE + 0x1ffc);
      expect(bench.word(at)).toBe(clean & ~READ_ONLY);
    }
  });

  it.each([
    [12, 0, 0, 3],
    [12, 0, 0, 2],
    [12, 0, 0, 1],
    [14, 2, 0, 3],
    [14, 2, 0, 2],
    [16, 1, 1, 3],
    [16, 1, 1, 2],
  ])(
    'granule 2^%i (TG0 %i) from level %i, leaf at level %i: one descriptor changes, by one bit',
    (granule, TG0, start, level) => {
      const bench = new SmmuBench({ httu: 'dirty' });
      const root = bench.table(2 ** granule);
      const cd = bench.cd(1, { TG0, TTB0: BigInt(root) >> 4n, HA: 1, HD: 1 });
      bench.ste(1, { Config: 5, S1ContextPtr: BigInt(cd) >> 6n });
      const size = 2 ** (granule + (3 - level) * (granule - 3));
      const shape = { granule, start, level };
      const clean = LEAF1 | READ_ONLY | DBM;
      const leaves = [4, 5, 6].map((i) => bench.map(root, i * size, 2 ** 40 + i * size, clean, shape));
      const before = leaves.map((at) => bench.word(at));
      expect(bench.dma(5 * size + size / 2, WRITE)).toBe(Status.OK);
      expect(leaves.map((at) => bench.word(at))).toEqual([before[0], before[1]! & ~READ_ONLY, before[2]]);
    },
  );

  it('without DBM a page is read-only, and DBM of a writable page means nothing', () => {
    const { bench, leaf } = stage1({ HA: 1, HD: 1 });
    const fixed = leaf(0x1000, LEAF1 | READ_ONLY);
    const dirty = leaf(0x2000, LEAF1 | DBM);
    const before = [bench.word(fixed), bench.word(dirty)];
    expect([bench.dma(0x1000, WRITE), bench.dma(0x2000, WRITE)]).toEqual([Status.FAULT, Status.OK]);
    expect(bench.events()).toMatchObject([{ id: Event.F_PERMISSION, stage2: false, class: EventClass.IN }]);
    expect([bench.word(fixed), bench.word(dirty)]).toEqual(before);
  });

  it('without HD, or with HD alone, a clean page is read-only', () => {
    for (const flags of [{ HA: 1 }, { HD: 1 }, {}]) {
      const { bench, leaf } = stage1(flags);
      leaf(0x1000, LEAF1 | READ_ONLY | DBM);
      expect(bench.dma(0x1000, WRITE)).toBe(Status.FAULT);
      expect(bench.events()).toMatchObject([{ id: Event.F_PERMISSION }]);
    }
  });

  it('APTable takes the write away, whatever the leaf says (3.13.3.1)', () => {
    const { bench, root, leaf } = stage1({ HA: 1, HD: 1 });
    const at = leaf(0x1000, LEAF1 | READ_ONLY | DBM);
    bench.words(root, [bench.word(root) | (2n << 61n)]);
    const clean = bench.word(at);
    expect(bench.dma(0x1000, WRITE)).toBe(Status.FAULT);
    expect(bench.word(at)).toBe(clean);
  });

  it('a look from outside changes nothing', () => {
    const { bench, leaf } = stage1({ HA: 1, HD: 1 });
    const at = leaf(0x1000, (LEAF1 & ~AF) | READ_ONLY | DBM);
    const before = bench.word(at);
    bench.tx.requester = 1;
    bench.tx.iovaLo = 0x1000;
    bench.tx.access = WRITE;
    expect(bench.smmu.explain(bench.tx)).toMatchObject({ kind: 'translated', pa: PAGE + 0x1000 });
    expect(bench.word(at)).toBe(before);
  });

  it('what software cleans is seen at the next write, or only after an invalidation where the TLB keeps it', () => {
    for (const tlbKeepsDirty of [false, true]) {
      const { bench, leaf } = stage1({ HA: 1, HD: 1 }, { tlbKeepsDirty });
      const at = leaf(0x1000, LEAF1 | READ_ONLY | DBM);
      const clean = bench.word(at);
      bench.dma(0x1000, WRITE);
      bench.words(at, [clean]);
      expect(bench.dma(0x1000, WRITE)).toBe(Status.OK);
      expect(bench.word(at) === clean).toBe(tlbKeepsDirty);
      bench.words(at, [clean]);
      bench.command(TLBI, { Opcode: Op.TLBI_NH_ASID, ASID: 1 });
      expect(bench.dma(0x1000, WRITE)).toBe(Status.OK);
      expect(bench.word(at)).toBe(clean & ~READ_ONLY);
    }
  });
});

describe('stage 2, and both', () => {
  it('HAP[1] is set where DBM allows it', () => {
    const bench = new SmmuBench({ httu: 'dirty' });
    const root = bench.table();
    bench.ste(1, { Config: 6, ...bench.stage2Fields(root), S2HA: 1, S2HD: 1 });
    const clean = bench.map(root, 0x1000, PAGE, ((LEAF2 & ~WRITABLE2) | DBM) & ~AF);
    const fixed = bench.map(root, 0x2000, PAGE, LEAF2 & ~WRITABLE2);
    const before = [bench.word(clean), bench.word(fixed)];
    expect([bench.dma(0x1000, READ), bench.word(clean)]).toEqual([Status.OK, before[0]! | AF]);
    expect([bench.dma(0x1000, WRITE), bench.dma(0x2000, WRITE)]).toEqual([Status.OK, Status.FAULT]);
    expect([bench.word(clean), bench.word(fixed)]).toEqual([before[0]! | AF | WRITABLE2, before[1]]);
  });

  /** IPA = PA; the stage 1 table of pages has a stage 2 leaf of its own. */
  function nested(tableLeaf: bigint, ste: Parameters<SmmuBench['ste']>[1] = {}) {
    const bench = new SmmuBench({ httu: 'dirty' });
    const [root1, root2] = [bench.table(), bench.table()];
    const cd = bench.cd(1, { ASID: 1, TTB0: BigInt(root1) >> 4n, HA: 1, HD: 1 });
    bench.ste(1, { Config: 7, S1ContextPtr: BigInt(cd) >> 6n, ...bench.stage2Fields(root2), ...ste });
    const leaf1 = bench.map(root1, 0x1000, PAGE, LEAF1 | READ_ONLY | DBM);
    const table = leaf1 - (leaf1 % 4096);
    for (let at = RAM; at < RAM + 0x20_0000; at += 4096) {
      if (at !== table) bench.map(root2, at, at, LEAF2);
    }
    const leaf2 = bench.map(root2, table, table, tableLeaf);
    bench.map(root2, PAGE, PAGE, LEAF2);
    return { bench, leaf1, leaf2, table };
  }

  it('an update of stage 1 is a write, which stage 2 must permit (3.13.5)', () => {
    const { bench, leaf1 } = nested(LEAF2 & ~WRITABLE2);
    const clean = bench.word(leaf1);
    expect(bench.dma(0x1000, READ)).toBe(Status.OK);
    expect(bench.dma(0x1000, WRITE)).toBe(Status.FAULT);
    expect(bench.events()).toMatchObject([
      { id: Event.F_PERMISSION, stage2: true, class: EventClass.TTD, ipa: BigInt(leaf1 - (leaf1 % 4096)) },
    ]);
    expect(bench.word(leaf1)).toBe(clean);
  });

  it('and makes the page of the stage 1 table dirty in stage 2', () => {
    const { bench, leaf1, leaf2 } = nested((LEAF2 & ~WRITABLE2) | DBM, { S2HA: 1, S2HD: 1 });
    const [clean1, clean2] = [bench.word(leaf1), bench.word(leaf2)];
    bench.dma(0x1000, READ);
    expect([bench.word(leaf1), bench.word(leaf2)]).toEqual([clean1, clean2]);
    expect(bench.dma(0x1000, WRITE)).toBe(Status.OK);
    expect([bench.word(leaf1), bench.word(leaf2)]).toEqual([clean1 & ~READ_ONLY, clean2 | WRITABLE2]);
  });

  it('what stage 2 refuses leaves stage 1 clean', () => {
    const { bench, leaf1 } = nested(LEAF2);
    bench.words(leaf1, [(bench.word(leaf1) & ~0xffff_ffff_f000n) | BigInt(PAGE + 0x10_0000)]);
    const clean = bench.word(leaf1);
    expect(bench.dma(0x1000, WRITE)).toBe(Status.FAULT);
    expect(bench.word(leaf1)).toBe(clean);
  });
});

describe('random accesses', () => {
  const PAGES = 24;
  const step = fc.record({
    what: fc.constantFrom('read', 'write', 'clean', 'invalidate', 'write', 'read', 'forget'),
    page: fc.nat(PAGES - 1),
  });

  const clean = LEAF1 | READ_ONLY | DBM;
  const rigs = [false, true].map((tlbKeepsDirty) => {
    const { bench, leaf } = stage1({ HA: 1, HD: 1 }, { tlbKeepsDirty });
    return { bench, leaves: Array.from({ length: PAGES }, (_, i) => leaf(0x1_0000 + i * 4096, clean)) };
  });

  it('a page is dirty exactly if it was written since it was cleaned; where the TLB keeps it, since it was also invalidated', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.boolean(), (steps, tlbKeepsDirty) => {
        const { bench, leaves } = rigs[Number(tlbKeepsDirty)]!;
        for (const at of leaves) bench.words(at, [bench.word(at) | READ_ONLY]);
        bench.command(TLBI, { Opcode: Op.TLBI_NH_ASID, ASID: 1 });
        const dirty = new Set<number>();
        const kept = new Set<number>();
        for (const { what, page } of steps) {
          const iova = 0x1_0000 + page * 4096;
          if (what === 'read') bench.dma(iova, READ);
          if (what === 'write') {
            bench.dma(iova, WRITE);
            if (!kept.has(page)) dirty.add(page);
            if (tlbKeepsDirty) kept.add(page);
          }
          if (what === 'clean') {
            bench.words(leaves[page]!, [bench.word(leaves[page]!) | READ_ONLY]);
            dirty.delete(page);
          }
          if (what === 'invalidate') {
            bench.command(TLBI, { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: BigInt(iova) >> 12n, Leaf: 1 });
            kept.delete(page);
          }
          // Configuration leaves the SMMU; entries of the TLB stay.
          if (what === 'forget') bench.command(CFGI, { Opcode: Op.CFGI_STE, StreamID: 1, Leaf: 1 });
          const found = leaves.flatMap((at, i) => ((bench.word(at) & READ_ONLY) === 0n ? [i] : []));
          if (found.join() !== [...dirty].sort((a, b) => a - b).join()) {
            throw new Error(`after ${what} of ${page}: dirty are ${found.join()}, expected ${[...dirty].join()}`);
          }
        }
      }),
      { numRuns: 1000 },
    );
    expect(rigs.map(({ bench }) => bench.events())).toEqual([[], []]);
  });
});
