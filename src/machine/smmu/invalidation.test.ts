import { describe, expect, it } from 'vitest';
import { CFGI, Op, SYNC, TLBI, tlbiTg } from '../../arch/smmuv3/commands.ts';
import { Status } from '../../ports/transaction.ts';
import { CDS, LEAF1, LEAF1_GLOBAL, LEAF2, RAM, SmmuBench } from './testing.ts';

/** The streams of the matrix, each with one translation in the TLB that its tables no longer have. No two share an entry of the TLB. */
const STREAMS = {
  /** Stage 1, VMID 0. */
  asid1: { sid: 1, iova: 0x1000 },
  asid1other: { sid: 1, iova: 0x2_0000 },
  asid2: { sid: 2, iova: 0x1000 },
  global2: { sid: 2, iova: 0x5000 },
  /** Stage 2 alone. */
  vmid1: { sid: 3, iova: 0x1000 },
  vmid2: { sid: 4, iova: 0x1000 },
  /** Both stages, VMID 1, ASID 1. */
  nested: { sid: 5, iova: 0x1000 },
} as const;
type Name = keyof typeof STREAMS;
const NAMES = Object.keys(STREAMS) as Name[];

function stale() {
  const bench = new SmmuBench();
  const leaves: number[] = [];
  const one = bench.stage1(1, 1);
  leaves.push(bench.map(one, 0x1000, RAM, LEAF1), bench.map(one, 0x2_0000, RAM, LEAF1));
  const two = bench.stage1(2, 2);
  leaves.push(bench.map(two, 0x1000, RAM, LEAF1), bench.map(two, 0x5000, RAM, LEAF1_GLOBAL));
  for (const [sid, vmid] of [
    [3, 1],
    [4, 2],
  ]) {
    const root = bench.table();
    bench.ste(sid, { Config: 6, ...bench.stage2Fields(root, vmid) });
    leaves.push(bench.map(root, 0x1000, RAM, LEAF2));
  }
  const s2 = bench.table();
  const s1 = bench.table();
  bench.ste(5, {
    Config: 7,
    ...bench.stage2Fields(s2, 1),
    S1ContextPtr: BigInt(bench.cd(5, { ASID: 1, TTB0: BigInt(s1) >> 4n })) >> 6n,
  });
  // Guest addresses are the machine's.
  for (let page = 0; page < 0x20_0000; page += 0x1000) bench.map(s2, RAM + page, RAM + page, LEAF2);
  leaves.push(bench.map(s1, 0x1000, RAM + 0x1000, LEAF1));
  for (const name of NAMES) expect(bench.dma(STREAMS[name].iova, 2, STREAMS[name].sid), name).toBe(Status.OK);
  for (const leaf of leaves) bench.words(leaf, [0n]);
  return bench;
}

/** Which of the stale translations are gone. */
const gone = (bench: SmmuBench): Name[] =>
  NAMES.filter((name) => bench.dma(STREAMS[name].iova, 2, STREAMS[name].sid) !== Status.OK);

describe('TLB invalidation', () => {
  it('nothing leaves by itself', () => {
    expect(gone(stale())).toEqual([]);
  });

  it.each<[string, Partial<Record<keyof typeof TLBI, number | bigint>>, Name[]]>([
    ['NSNH_ALL', { Opcode: Op.TLBI_NSNH_ALL }, NAMES],
    ['NH_ALL of VMID 0', { Opcode: Op.TLBI_NH_ALL }, ['asid1', 'asid1other', 'asid2', 'global2']],
    ['NH_ALL of VMID 1', { Opcode: Op.TLBI_NH_ALL, VMID: 1 }, ['nested']],
    ['NH_ASID keeps global entries', { Opcode: Op.TLBI_NH_ASID, ASID: 2 }, ['asid2']],
    ['NH_ASID of another VMID', { Opcode: Op.TLBI_NH_ASID, ASID: 1, VMID: 1 }, ['nested']],
    ['NH_VA', { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: 1n }, ['asid1']],
    ['NH_VA reaches global entries of any ASID', { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: 5n }, ['global2']],
    ['NH_VAA', { Opcode: Op.TLBI_NH_VAA, Address: 1n }, ['asid1', 'asid2']],
    ['NH_VA of nobody’s page', { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: 2n }, []],
    [
      'NH_VA by range: pages 32 and 33',
      { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: 32n, TG: tlbiTg(12), NUM: 0, SCALE: 1 },
      ['asid1other'],
    ],
    [
      'NH_VA by range: pages 0 to 31',
      { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: 0n, TG: tlbiTg(12), NUM: 31 },
      ['asid1', 'global2'],
    ],
    [
      'NH_VA by a range of three 64K granules',
      { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: 0n, TG: tlbiTg(16), NUM: 2 },
      ['asid1', 'asid1other', 'global2'],
    ],
    ['S2_IPA', { Opcode: Op.TLBI_S2_IPA, VMID: 1, Address: 1n }, ['vmid1']],
    [
      'S2_IPA does not find what both stages made',
      { Opcode: Op.TLBI_S2_IPA, VMID: 1, Address: BigInt(RAM + 0x1000) >> 12n },
      [],
    ],
    ['S12_VMALL', { Opcode: Op.TLBI_S12_VMALL, VMID: 1 }, ['vmid1', 'nested']],
    ['S12_VMALL of VMID 2', { Opcode: Op.TLBI_S12_VMALL, VMID: 2 }, ['vmid2']],
  ])('%s takes exactly its entries', (_, values, expected) => {
    const bench = stale();
    bench.command(TLBI, values);
    expect(bench.read(0x9c) >>> 24).toBe(0);
    expect(gone(bench)).toEqual(expected);
  });

  it('an address inside a block takes all that was used of the block', () => {
    const bench = new SmmuBench();
    const leaf = bench.map(bench.stage1(), 0x20_0000, RAM, LEAF1, { granule: 12, start: 0, level: 2 });
    for (const page of [0x20_0000, 0x2f_f000, 0x3f_f000]) expect(bench.dma(page)).toBe(Status.OK);
    bench.words(leaf, [0n]);
    bench.command(TLBI, { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: 0x2a0n });
    for (const page of [0x20_0000, 0x2f_f000, 0x3f_f000]) expect(bench.dma(page)).toBe(Status.FAULT);
  });

  it('the upper bits of an address count', () => {
    const bench = new SmmuBench();
    const root = bench.stage1();
    const high = 0x8000_0000_1000;
    const leaf = bench.map(root, high, RAM, LEAF1);
    expect(bench.dma(high)).toBe(Status.OK);
    bench.words(leaf, [0n]);
    bench.command(TLBI, { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: 1n });
    expect(bench.dma(high)).toBe(Status.OK);
    bench.command(TLBI, { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: BigInt(high) >> 12n });
    expect(bench.dma(high)).toBe(Status.FAULT);
  });

  it('a stale entry keeps its permissions too', () => {
    const bench = new SmmuBench();
    const leaf = bench.map(bench.stage1(), 0x1000, RAM, LEAF1 | 0x80n);
    expect(bench.dma(0x1000, 1)).toBe(Status.OK);
    bench.words(leaf, [bench.word(leaf) & ~0x80n]);
    expect(bench.smmu.explain(bench.tx).kind).toBe('translated');
    expect(bench.dma(0x1000, 2)).toBe(Status.FAULT);
    expect(bench.smmu.explain(bench.tx)).toMatchObject({ kind: 'fault', record: { name: 'F_PERMISSION', stage: 1 } });
    bench.command(TLBI, { Opcode: Op.TLBI_NH_VA, ASID: 1, Address: 1n });
    expect(bench.dma(0x1000, 2)).toBe(Status.OK);
  });
});

describe('configuration invalidation', () => {
  /** Streams 1 and 2 with substreams 1 and 2 each; then every STE and CD in memory is broken. */
  function configured() {
    const bench = new SmmuBench();
    for (const sid of [1, 2]) {
      const table = CDS + sid * 0x1000;
      for (const ssid of [1, 2]) {
        const root = bench.table();
        bench.cd(ssid, { ASID: sid * 4 + ssid, TTB0: BigInt(root) >> 4n }, table);
        bench.map(root, 0x1000, RAM, LEAF1);
      }
      bench.ste(sid, { Config: 5, S1CDMax: 2, S1DSS: 0, S1ContextPtr: BigInt(table) >> 6n });
      for (const ssid of [1, 2]) expect(bench.dma(0x1000, 2, sid, ssid)).toBe(Status.OK);
    }
    return bench;
  }
  const breakStes = (bench: SmmuBench) => {
    for (const sid of [1, 2]) bench.ste(sid, { V: 0 });
  };
  const breakCds = (bench: SmmuBench) => {
    for (const sid of [1, 2]) for (const ssid of [1, 2]) bench.cd(ssid, { V: 0 }, CDS + sid * 0x1000);
  };
  const dead = (bench: SmmuBench): string[] =>
    ['1.1', '1.2', '2.1', '2.2'].filter((name) => {
      const [sid, ssid] = name.split('.').map(Number);
      return bench.dma(0x1000, 2, sid, ssid) !== Status.OK;
    });

  it.each<[string, Partial<Record<keyof typeof CFGI, number>>, string[], string[]]>([
    // command, what it takes when STEs are broken, what when CDs are
    ['CFGI_STE', { Opcode: Op.CFGI_STE, StreamID: 1, Leaf: 1 }, ['1.1', '1.2'], ['1.1', '1.2']],
    [
      'CFGI_STE_RANGE of one pair',
      { Opcode: Op.CFGI_STE_RANGE, StreamID: 3, Range: 0 },
      ['2.1', '2.2'],
      ['2.1', '2.2'],
    ],
    ['CFGI_ALL', { Opcode: Op.CFGI_STE_RANGE, Range: 31 }, ['1.1', '1.2', '2.1', '2.2'], ['1.1', '1.2', '2.1', '2.2']],
    ['CFGI_CD', { Opcode: Op.CFGI_CD, StreamID: 1, SSID: 2, Leaf: 1 }, [], ['1.2']],
    ['CFGI_CD_ALL', { Opcode: Op.CFGI_CD_ALL, StreamID: 2 }, [], ['2.1', '2.2']],
    ['SYNC', { Opcode: Op.SYNC }, [], []],
  ])('%s takes exactly its structures', (_, values, ofStes, ofCds) => {
    const first = configured();
    breakStes(first);
    first.command(CFGI, values);
    expect(dead(first)).toEqual(ofStes);
    const second = configured();
    breakCds(second);
    second.command(CFGI, values);
    expect(dead(second)).toEqual(ofCds);
  });

  it('CFGI_CD 0 reaches transactions without a substream id', () => {
    const bench = new SmmuBench();
    bench.map(bench.stage1(), 0x1000, RAM, LEAF1);
    expect(bench.dma(0x1000)).toBe(Status.OK);
    bench.cd(1, { V: 0 });
    expect(bench.dma(0x1000)).toBe(Status.OK);
    bench.command(CFGI, { Opcode: Op.CFGI_CD, StreamID: 1, SSID: 0 });
    expect(bench.dma(0x1000)).toBe(Status.FAULT);
  });

  it('corrupting one STE loses its stream alone', () => {
    const bench = configured();
    bench.ste(1, { V: 0 });
    bench.command(CFGI, { Opcode: Op.CFGI_STE_RANGE, Range: 31 });
    expect(dead(bench)).toEqual(['1.1', '1.2']);
  });
});

describe('commands that are none', () => {
  const ERR = 24;
  it.each<[string, Partial<ConstructorParameters<typeof SmmuBench>[0] & object>, number]>([
    ['an unknown opcode', {}, 0xff],
    ['EL2 invalidation without HYP', {}, Op.TLBI_EL2_ALL],
    ['ATC_INV without ATS', {}, Op.ATC_INV],
    ['PRI_RESP without PRI', {}, Op.PRI_RESP],
    ['RESUME without stalls', { stall: false }, Op.RESUME],
    ['stage 1 invalidation without stage 1', { stage1: false }, Op.TLBI_NH_ALL],
    ['stage 2 invalidation without stage 2', { stage2: false }, Op.TLBI_S12_VMALL],
  ])('%s stops the queue with CERROR_ILL until GERRORN acknowledges it', (_, changes, opcode) => {
    const bench = new SmmuBench(changes);
    const lines: string[] = [];
    bench.smmu.onInterrupt = (line) => lines.push(line);
    bench.write(0x50, 1);
    bench.command(SYNC, { Opcode: Op.SYNC });
    bench.command(SYNC, { Opcode: opcode });
    bench.command(SYNC, { Opcode: Op.SYNC });
    expect([bench.read(0x9c) & 31, bench.read(0x9c) >>> ERR]).toEqual([1, 1]);
    expect(bench.read(0x60) & 1).toBe(1);
    expect(lines).toEqual(['gerror']);
    // Software puts a SYNC in its place, then acknowledges.
    bench.words(RAM + 0x1_0000 + 16, [BigInt(Op.SYNC), 0n]);
    bench.write(0x64, 1);
    expect(bench.read(0x9c) & 31).toBe(3);
  });

  it('a queue where no memory is reports an abort', () => {
    const bench = new SmmuBench();
    bench.write(0x20, 5);
    bench.write64(0x90, 0x7000_0000n | 4n);
    bench.write(0x20, 0xd);
    bench.command(SYNC, { Opcode: Op.SYNC });
    expect(bench.read(0x9c) >>> ERR).toBe(2);
  });

  it('SYNC asks for an interrupt when it wants one', () => {
    const bench = new SmmuBench();
    const lines: string[] = [];
    bench.smmu.onInterrupt = (line) => lines.push(line);
    bench.command(SYNC, { Opcode: Op.SYNC });
    bench.command(SYNC, { Opcode: Op.SYNC, CS: 1 });
    expect(lines).toEqual(['sync']);
  });
});
