import { describe, expect, it } from 'vitest';
import { Op, RESUME } from '../../arch/smmuv3/commands.ts';
import { Event } from '../../arch/smmuv3/events.ts';
import { Count } from '../../ports/ledger.ts';
import type { Hop } from '../../ports/tap.ts';
import { Access, Status } from '../../ports/transaction.ts';
import { featuresOf } from './features.ts';
import { CDS, LEAF1, RAM, SmmuBench, SPEC } from './testing.ts';

describe('granules and blocks', () => {
  it.each([
    // granule, TG0, start level at 48 bits, level of the leaf
    [12, 0, 0, 3],
    [12, 0, 0, 2],
    [12, 0, 0, 1],
    [14, 2, 0, 3],
    [14, 2, 0, 2],
    [16, 1, 1, 3],
    [16, 1, 1, 2],
  ])('granule 2^%i (TG0 %i) from level %i, leaf at level %i', (granule, TG0, start, level) => {
    const bench = new SmmuBench();
    const root = bench.table(2 ** granule);
    const cd = bench.cd(1, { TG0, TTB0: BigInt(root) >> 4n });
    bench.ste(1, { Config: 5, S1ContextPtr: BigInt(cd) >> 6n });
    const size = 2 ** (granule + (3 - level) * (granule - 3));
    const iova = 5 * 2 ** 42 + 3 * size;
    const pa = 2 ** 40 + 7 * size;
    bench.map(root, iova, pa, LEAF1, { granule, start, level });
    for (const offset of [0, 0xabc, size / 2, size - 4]) {
      expect(bench.dma(iova + offset)).toBe(Status.OK);
      expect(bench.pa).toBe(pa + offset);
    }
    expect(bench.dma(iova + size)).toBe(Status.FAULT);
    expect(bench.dma(iova - 4)).toBe(Status.FAULT);
  });

  it('concatenated first tables of stage 2: 42 bits begin at level 1 with eight of them', () => {
    const bench = new SmmuBench();
    const root = bench.table(8 * 4096);
    bench.ste(1, { Config: 6, ...bench.stage2Fields(root), S2T0SZ: 22, S2SL0: 1 });
    const iova = 2 ** 42 - 0x1000;
    bench.map(root, iova, RAM, 0x4c0n, { granule: 12, start: 1, level: 3 });
    expect(bench.dma(iova)).toBe(Status.OK);
    expect(bench.pa).toBe(RAM);
  });
});

describe('both halves of the address space', () => {
  it('TTB1 has the addresses that begin with ones', () => {
    const bench = new SmmuBench();
    const lower = bench.table();
    const upper = bench.table();
    const halves = { TTB0: BigInt(lower) >> 4n, TTB1: BigInt(upper) >> 4n, EPD1: 0, T1SZ: 25, TG1: 2 };
    bench.ste(1, { Config: 5, S1ContextPtr: BigInt(bench.cd(1, halves)) >> 6n });
    bench.map(lower, 0x1000, RAM, LEAF1);
    // 39 bits: the upper half begins at level 1, and the address is what is left of it.
    bench.map(upper, 0x7f_ffff_f000, RAM + 0x1000, LEAF1, { granule: 12, start: 1, level: 3 });
    expect(bench.dma(0x1000)).toBe(Status.OK);
    expect(bench.pa).toBe(RAM);
    expect(bench.dma(0xffff_ffff_ffff_f040n)).toBe(Status.OK);
    expect(bench.pa).toBe(RAM + 0x1040);
    expect(bench.dma(0xffff_ff7f_ffff_f000n)).toBe(Status.FAULT);
    expect(bench.events()[0]).toMatchObject({ id: Event.F_TRANSLATION, input: 0xffff_ff7f_ffff_f000n });
  });

  it('TBI ignores the top byte', () => {
    const bench = new SmmuBench();
    const root = bench.table();
    const cd = bench.cd(1, { TBI0: 1, TTB0: BigInt(root) >> 4n });
    bench.ste(1, { Config: 5, S1ContextPtr: BigInt(cd) >> 6n });
    bench.map(root, 0x1000, RAM, LEAF1);
    expect(bench.dma(0xab00_0000_0000_1000n)).toBe(Status.OK);
    expect(bench.pa).toBe(RAM);
    expect(bench.dma(0x0001_0000_0000_1000n)).toBe(Status.FAULT);
  });
});

describe('tables of two levels', () => {
  it('stream tables: a span of 0, an index beyond the span, and an entry', () => {
    const bench = new SmmuBench({ twoLevelStreamTable: true, sidBits: 16 });
    const l1 = bench.table();
    const l2 = bench.table();
    bench.write(0x20, 0x0c);
    bench.write64(0x80, BigInt(l1));
    bench.write(0x88, 16 | (8 << 6) | (1 << 16));
    bench.write(0x20, 0x0d);
    // Stream 0x1xx: four entries.
    bench.words(l1 + 8, [BigInt(l2) | 3n]);
    bench.words(l2 + 2 * 64, [0x9n]);
    expect(bench.dma(0x5000, Access.WRITE, 0x102)).toBe(Status.OK);
    expect(bench.dma(0x5000, Access.WRITE, 0x104)).toBe(Status.FAULT);
    expect(bench.dma(0x5000, Access.WRITE, 0x202)).toBe(Status.FAULT);
    expect(bench.dma(0x5000, Access.WRITE, 0x103)).toBe(Status.FAULT);
    expect(bench.events().map(({ id }) => id)).toEqual([Event.C_BAD_STREAMID, Event.C_BAD_STREAMID, Event.C_BAD_STE]);
  });

  it.each([
    [1, 6],
    [2, 10],
  ])('context descriptors with S1Fmt %i', (S1Fmt, split) => {
    const bench = new SmmuBench({ ssidBits: 12 });
    const l1 = bench.table();
    const l2 = bench.table(0x1_0000);
    const root = bench.table();
    const ssid = 2 ** split + 5;
    bench.words(l1 + 8, [BigInt(l2) | 1n]);
    bench.cd(5, { ASID: 9, TTB0: BigInt(root) >> 4n }, l2);
    bench.map(root, 0x1000, RAM, LEAF1);
    bench.ste(1, { Config: 5, S1Fmt, S1CDMax: 12, S1DSS: 0, S1ContextPtr: BigInt(l1) >> 6n });
    expect(bench.dma(0x1000, Access.WRITE, 1, ssid)).toBe(Status.OK);
    expect(bench.dma(0x1000, Access.WRITE, 1, 5)).toBe(Status.FAULT);
    expect(bench.events()[0]).toMatchObject({ id: Event.C_BAD_SUBSTREAMID, substreamId: 5 });
  });

  it('S1DSS: transactions without a substream id bypass, or use descriptor 0', () => {
    const bench = new SmmuBench();
    const root = bench.table();
    bench.map(root, 0x1000, RAM, LEAF1);
    bench.cd(0, { ASID: 1, TTB0: BigInt(root) >> 4n });
    bench.ste(1, { Config: 5, S1CDMax: 2, S1DSS: 1, S1ContextPtr: BigInt(CDS) >> 6n });
    bench.ste(2, { Config: 5, S1CDMax: 2, S1DSS: 2, S1ContextPtr: BigInt(CDS) >> 6n });
    expect(bench.dma(0x1000, Access.WRITE, 1)).toBe(Status.OK);
    expect(bench.pa).toBe(0x1000);
    expect(bench.dma(0x1000, Access.WRITE, 2)).toBe(Status.OK);
    expect(bench.pa).toBe(RAM);
  });
});

describe('the event queue', () => {
  it('takes 2^n records, then toggles OVFLG once, and goes on after room was made', () => {
    const bench = new SmmuBench();
    bench.stage1();
    for (let i = 0; i < 20; i++) expect(bench.dma(i * 0x1000)).toBe(Status.FAULT);
    expect(bench.read(0x100a8)).toBe((1 << 31) | 16);
    expect(bench.tap.ledger[Count.FAULTS]).toBe(16);
    expect(bench.tap.ledger[Count.FAULTS_OVERFLOWED]).toBe(4);
    expect(bench.events().map(({ input }) => Number(input) / 0x1000)).toEqual([...Array(16).keys()]);
    // events() acknowledged the overflow; the ring wraps.
    expect(bench.dma(0x99000)).toBe(Status.FAULT);
    expect(bench.events().map(({ input }) => input)).toEqual([0x99000n]);
    expect(bench.read(0x100a8)).toBe((1 << 31) | 17);
  });

  it('an overflow that nobody acknowledged toggles nothing again', () => {
    const bench = new SmmuBench();
    bench.stage1();
    for (let i = 0; i < 17; i++) bench.dma(0x1000);
    bench.write(0x100ac, 8);
    for (let i = 0; i < 9; i++) bench.dma(0x1000);
    expect(bench.read(0x100a8)).toBe((1 << 31) | 24);
    expect(bench.tap.ledger[Count.FAULTS_OVERFLOWED]).toBe(2);
  });

  it('asserts its interrupt where it is enabled', () => {
    const bench = new SmmuBench();
    bench.stage1();
    const lines: string[] = [];
    bench.smmu.onInterrupt = (line) => lines.push(line);
    bench.dma(0x1000);
    bench.write(0x50, 4);
    bench.dma(0x1000);
    expect(lines).toEqual(['eventq']);
  });

  it('records nothing while it is off', () => {
    const bench = new SmmuBench();
    bench.stage1();
    bench.write(0x20, 0x9);
    expect(bench.dma(0x1000)).toBe(Status.ABORT);
    expect(bench.tap.ledger[Count.FAULTS]).toBe(0);
  });

  it('a queue where no memory is raises GERROR.EVENTQ_ABT_ERR', () => {
    const bench = new SmmuBench();
    bench.stage1();
    bench.write(0x20, 0x9);
    bench.write64(0xa0, 0x7000_0000n | 4n);
    bench.write(0x20, 0xd);
    bench.dma(0x1000);
    expect(bench.read(0x60)).toBe(4);
  });
});

describe('stalls', () => {
  function stalling() {
    const bench = new SmmuBench();
    const root = bench.table();
    bench.ste(1, { Config: 5, S1ContextPtr: BigInt(bench.cd(1, { S: 1, TTB0: BigInt(root) >> 4n })) >> 6n });
    const resumed: string[] = [];
    bench.smmu.onResume = (tx, status) => resumed.push(`${(tx.iovaLo >>> 0).toString(16)} ${status}`);
    return { bench, root, resumed };
  }

  it('holds a write until it is retried, and then stores it', () => {
    const { bench, root, resumed } = stalling();
    bench.tx.data = 0xcafe;
    expect(bench.dma(0x1000)).toBe(Status.STALL);
    bench.tx.data = 0;
    expect(bench.dma(0x2000)).toBe(Status.STALL);
    const [first, second] = bench.events();
    expect([first.stall, first.tag, second.tag]).toEqual([true, 0, 1]);
    bench.map(root, 0x1000, RAM + 0x8000, LEAF1);
    bench.command(RESUME, { Opcode: Op.RESUME, Ac: 1, StreamID: 1, STAG: 0 });
    expect(bench.memory.read32(RAM + 0x8000)).toBe(0xcafe);
    expect(resumed).toEqual(['1000 0']);
    bench.command(RESUME, { Opcode: Op.RESUME, Ab: 1, StreamID: 1, STAG: 1 });
    expect(resumed).toEqual(['1000 0', '2000 2']);
    expect(bench.smmu.stalls.size).toBe(0);
  });

  it('a retry that fails stalls again, with a tag of its own', () => {
    const { bench, resumed } = stalling();
    bench.dma(0x1000);
    expect(bench.events()[0].tag).toBe(0);
    bench.command(RESUME, { Opcode: Op.RESUME, Ac: 1, StreamID: 1, STAG: 0 });
    expect(bench.events()[0].tag).toBe(1);
    expect(resumed).toEqual([]);
  });

  it('ignores a tag of another stream, and terminates a stream’s with STALL_TERM', () => {
    const { bench, resumed } = stalling();
    bench.dma(0x1000);
    bench.dma(0x2000);
    bench.command(RESUME, { Opcode: Op.RESUME, Ac: 1, StreamID: 2, STAG: 0 });
    expect(bench.smmu.stalls.size).toBe(2);
    bench.command(RESUME, { Opcode: Op.STALL_TERM, StreamID: 1 });
    expect(resumed).toEqual(['1000 2', '2000 2']);
  });

  it('a stall’s record waits for room instead of being lost', () => {
    const { bench } = stalling();
    for (let i = 0; i < 18; i++) expect(bench.dma(i * 0x1000)).toBe(Status.STALL);
    expect(bench.tap.ledger[Count.FAULTS_OVERFLOWED]).toBe(0);
    expect(bench.events()).toHaveLength(16);
    expect(bench.events().map(({ tag }) => tag)).toEqual([16, 17]);
  });

  it('explain foretells it', () => {
    const { bench } = stalling();
    bench.dma(0x1000);
    const told = bench.smmu.explain(bench.tx);
    expect(told).toMatchObject({ kind: 'stall', tag: 1 });
    expect(bench.smmu.stalls.size).toBe(1);
  });
});

describe('observation', () => {
  it('hands every outcome to the observer, and nothing changes by it', () => {
    const bench = new SmmuBench();
    bench.map(bench.stage1(), 0x1000, RAM, LEAF1);
    const hops: Hop[] = [];
    bench.tap.observer = { hop: (hop) => hops.push(hop) };
    expect(bench.dma(0x1040)).toBe(Status.OK);
    expect(bench.dma(0x1040)).toBe(Status.OK);
    expect(bench.dma(0x2000)).toBe(Status.FAULT);
    bench.tap.observer = null;
    const outcomes = hops.map((hop) => (hop.at === 'iommu' ? hop.outcome : null));
    expect(outcomes.map((outcome) => outcome?.kind)).toEqual(['translated', 'translated', 'fault']);
    expect(outcomes[0]).toMatchObject({ pa: RAM + 0x40, tlbHit: false });
    expect(outcomes[1]).toMatchObject({ pa: RAM + 0x40, tlbHit: true });
    expect(outcomes[0]).toHaveProperty('steps.length', 6);
    expect(bench.events()).toHaveLength(1);
  });

  it('explain fills no cache', () => {
    const bench = new SmmuBench();
    const leaf = bench.map(bench.stage1(), 0x1000, RAM, LEAF1);
    bench.dma(0x2000);
    bench.tx.iovaLo = 0x1000;
    expect(bench.smmu.explain(bench.tx).kind).toBe('translated');
    expect(bench.smmu.tlb.size).toBe(0);
    bench.words(leaf, [0n]);
    expect(bench.smmu.explain(bench.tx).kind).toBe('fault');
  });
});

describe('features', () => {
  it.each([
    ['oas', { oas: 52 }],
    ['oas', { oas: 33 }],
    ['granules', { granules: [] }],
    ['granules', { granules: [8192] }],
    ['sidBits', { sidBits: 33 }],
    ['eventQueueLog2', { eventQueueLog2: 0 }],
    ['stage', { stage1: false, stage2: false }],
  ])('names the field that is wrong: %s', (field, changes) => {
    expect(() => featuresOf({ ...SPEC, ...changes })).toThrow(field === 'oas' ? RangeError : new RegExp(field));
  });
});
