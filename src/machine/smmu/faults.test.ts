import { describe, expect, it } from 'vitest';
import { Event, EventClass } from '../../arch/smmuv3/events.ts';
import { Access, Status } from '../../ports/transaction.ts';
import { CDS, LEAF1, LEAF2, RAM, SmmuBench } from './testing.ts';

const { READ, WRITE, EXECUTE, PRIVILEGED } = Access;
const NOWHERE = 0x7000_0000;

/** Every case: what to set up, the access, and the one event that must come of it. Returns nothing else on the queue. */
type Case = [
  name: string,
  prepare: (bench: SmmuBench) => void,
  id: number,
  access?: number,
  ssid?: number,
  iova?: number | bigint,
];

const mapped =
  (attributes = LEAF1) =>
  (bench: SmmuBench) => {
    bench.map(bench.stage1(), 0x1000, RAM, attributes);
  };

const configuration: Case[] = [
  ['V of the STE is 0', (b) => b.ste(1, { V: 0 }), Event.C_BAD_STE],
  ['an STE that wants a stage which is not there', (b) => b.ste(1, { Config: 6, S2AA64: 0 }), Event.C_BAD_STE],
  [
    'S2T0SZ and S2SL0 that do not go together',
    (b) => b.ste(1, { Config: 6, ...b.stage2Fields(b.table()), S2SL0: 0 }),
    Event.C_BAD_STE,
  ],
  ['a reserved S2TG', (b) => b.ste(1, { Config: 6, ...b.stage2Fields(b.table()), S2TG: 3 }), Event.C_BAD_STE],
  ['a world at EL2 without HYP', (b) => b.ste(1, { Config: 5, STRW: 2 }), Event.C_BAD_STE],
  ['S1CDMax beyond SSIDSIZE', (b) => b.ste(1, { Config: 5, S1CDMax: 9 }), Event.C_BAD_STE],
  [
    'no substream id with S1DSS terminate',
    (b) => b.ste(1, { Config: 5, S1CDMax: 2, S1DSS: 0 }),
    Event.F_STREAM_DISABLED,
  ],
  [
    'substream 0 with S1DSS ssid0',
    (b) => b.ste(1, { Config: 5, S1CDMax: 2, S1DSS: 2 }),
    Event.F_STREAM_DISABLED,
    WRITE,
    0,
  ],
  ['a substream while they are off', (b) => b.ste(1, { Config: 5, S1CDMax: 0 }), Event.C_BAD_SUBSTREAMID, WRITE, 1],
  ['a substream out of range', (b) => b.ste(1, { Config: 5, S1CDMax: 2, S1DSS: 2 }), Event.C_BAD_SUBSTREAMID, WRITE, 4],
  ['a CD where no memory is', (b) => b.ste(1, { Config: 5, S1ContextPtr: BigInt(NOWHERE) >> 6n }), Event.F_CD_FETCH],
  ['V of the CD is 0', (b) => b.ste(1, { Config: 5, S1ContextPtr: BigInt(b.cd(1, { V: 0 })) >> 6n }), Event.C_BAD_CD],
  [
    'a CD for AArch32',
    (b) => b.ste(1, { Config: 5, S1ContextPtr: BigInt(b.cd(1, { AA64: 0 })) >> 6n }),
    Event.C_BAD_CD,
  ],
  [
    'T0SZ out of range',
    (b) => b.ste(1, { Config: 5, S1ContextPtr: BigInt(b.cd(1, { T0SZ: 15 })) >> 6n }),
    Event.C_BAD_CD,
  ],
  ['a reserved TG0', (b) => b.ste(1, { Config: 5, S1ContextPtr: BigInt(b.cd(1, { TG0: 3 })) >> 6n }), Event.C_BAD_CD],
  [
    'a stall that the STE forbids',
    (b) => b.ste(1, { Config: 5, S1STALLD: 1, S1ContextPtr: BigInt(b.cd(1, { S: 1 })) >> 6n }),
    Event.C_BAD_CD,
  ],
];

const translation: Case[] = [
  ['nothing mapped', (b) => b.stage1(), Event.F_TRANSLATION],
  ['beyond T0SZ', mapped(), Event.F_TRANSLATION, WRITE, -1, 2 ** 48],
  ['the upper half with EPD1', mapped(), Event.F_TRANSLATION, WRITE, -1, 0xffff_0000_0000_1000n],
  [
    'the lower half with EPD0',
    (b) => b.ste(1, { Config: 5, S1ContextPtr: BigInt(b.cd(1, { EPD0: 1 })) >> 6n }),
    Event.F_TRANSLATION,
  ],
  [
    'a block at level 3',
    (b) => {
      const at = b.map(b.stage1(), 0x1000, RAM, LEAF1);
      b.words(at, [b.word(at) & ~2n]);
    },
    Event.F_TRANSLATION,
  ],
  [
    'a block at level 0',
    (b) => {
      b.map(b.stage1(), 0, 0, LEAF1, { granule: 12, start: 0, level: 0 });
    },
    Event.F_TRANSLATION,
  ],
  [
    'an output beyond IPS',
    (b) => {
      const root = b.table();
      b.ste(1, { Config: 5, S1ContextPtr: BigInt(b.cd(1, { IPS: 0, TTB0: BigInt(root) >> 4n })) >> 6n });
      b.map(root, 0x1000, 2 ** 32, LEAF1);
    },
    Event.F_ADDR_SIZE,
  ],
  [
    'a table beyond IPS',
    (b) => {
      const root = b.table();
      b.ste(1, { Config: 5, S1ContextPtr: BigInt(b.cd(1, { IPS: 0, TTB0: BigInt(root) >> 4n })) >> 6n });
      b.words(root, [BigInt(2 ** 32) | 3n]);
    },
    Event.F_ADDR_SIZE,
  ],
  ['a clear access flag', mapped(LEAF1 & ~0x400n), Event.F_ACCESS],
  ['a write to read-only', mapped(LEAF1 | 0x80n), Event.F_PERMISSION],
  ['unprivileged without AP[1]', mapped(LEAF1 & ~0x40n), Event.F_PERMISSION],
  ['execution with XN', mapped(LEAF1 | (1n << 54n)), Event.F_PERMISSION, READ | EXECUTE],
  ['privileged execution of what anybody can write', mapped(), Event.F_PERMISSION, READ | EXECUTE | PRIVILEGED],
  [
    'a table that forbids writing below',
    (b) => {
      const root = b.stage1();
      b.map(root, 0x1000, RAM, LEAF1);
      b.words(root, [b.word(root) | (1n << 62n)]);
    },
    Event.F_PERMISSION,
  ],
  ['a table where no memory is', (b) => b.words(b.stage1(), [BigInt(NOWHERE) | 3n]), Event.F_WALK_EABT],
];

describe('refusals', () => {
  it.each([...configuration, ...translation])('%s', (_, prepare, id, access = WRITE, ssid = -1, iova = 0x1000) => {
    const bench = new SmmuBench();
    prepare(bench);
    expect(bench.dma(iova, access, 1, ssid)).toBe(Status.FAULT);
    const foretold = bench.smmu.explain(bench.tx);
    const [event, ...more] = bench.events();
    expect(more).toEqual([]);
    expect([event.id, event.streamId, event.substreamId]).toEqual([id, 1, ssid]);
    if (id >= Event.F_TRANSLATION) {
      expect(event.input).toBe(BigInt(iova));
      expect([event.read, event.class, event.stage2]).toEqual([(access & WRITE) === 0, EventClass.IN, false]);
    }
    // explain says the same without a record of its own.
    if (foretold.kind !== 'fault') throw new Error(foretold.kind);
    expect(foretold.record.id).toBe(id);
    expect(bench.events()).toEqual([]);
  });

  it('a stream beyond the table is recorded only with RECINVSID', () => {
    const loud = new SmmuBench();
    expect(loud.dma(0x1000, WRITE, 64)).toBe(Status.FAULT);
    expect(loud.events().map(({ id }) => id)).toEqual([Event.C_BAD_STREAMID]);
    const silent = new SmmuBench({}, false);
    expect(silent.dma(0x1000, WRITE, 64)).toBe(Status.ABORT);
    expect(silent.events()).toEqual([]);
    expect(silent.smmu.explain(silent.tx).kind).toBe('abort');
  });

  it('an STE where no memory is', () => {
    const bench = new SmmuBench();
    bench.write(0x20, 0x0c);
    bench.write64(0x80, BigInt(NOWHERE));
    bench.write(0x20, 0x0d);
    expect(bench.dma(0x1000)).toBe(Status.FAULT);
    expect(bench.events()[0]).toMatchObject({ id: Event.F_STE_FETCH, fetch: BigInt(NOWHERE + 64) });
  });

  it.each([0, 1, 2, 3])('Config %i aborts silently', (config) => {
    const bench = new SmmuBench();
    bench.ste(1, { Config: config });
    expect(bench.dma(0x1000)).toBe(Status.ABORT);
    expect(bench.events()).toEqual([]);
    expect(bench.smmu.explain(bench.tx).kind).toBe('abort');
  });

  it('CD.R clear terminates without a record, AFFD hides the access flag', () => {
    const bench = new SmmuBench();
    const root = bench.table();
    bench.ste(1, { Config: 5, S1ContextPtr: BigInt(bench.cd(1, { R: 0, AFFD: 1, TTB0: BigInt(root) >> 4n })) >> 6n });
    bench.map(root, 0x1000, RAM, LEAF1 & ~0x400n);
    expect(bench.dma(0x1000)).toBe(Status.OK);
    expect(bench.dma(0x2000)).toBe(Status.ABORT);
    expect(bench.events()).toEqual([]);
  });

  it('bypass passes addresses through, up to the output size', () => {
    const bench = new SmmuBench({ oas: 40 });
    bench.ste(1, { Config: 4 });
    expect(bench.dma(0xff_ffff_f000)).toBe(Status.OK);
    expect(bench.pa).toBe(0xff_ffff_f000);
    expect(bench.dma(2 ** 40)).toBe(Status.FAULT);
    expect(bench.events().map(({ id }) => id)).toEqual([Event.F_ADDR_SIZE]);
  });

  it('a disabled SMMU passes or aborts as GBPA says, and its caches survive', () => {
    const bench = new SmmuBench();
    const leaf = bench.map(bench.stage1(), 0x1000, RAM, LEAF1);
    expect(bench.dma(0x1000)).toBe(Status.OK);
    bench.write(0x20, 0x0c);
    expect(bench.dma(0x1000)).toBe(Status.OK);
    expect(bench.pa).toBe(0x1000);
    bench.write(0x44, 1 << 20);
    expect(bench.dma(0x1000)).toBe(Status.OK);
    bench.write(0x44, (1 << 20) | (1 << 31));
    expect(bench.dma(0x1000)).toBe(Status.ABORT);
    bench.words(leaf, [0n]);
    bench.write(0x20, 0x0d);
    expect(bench.dma(0x1000)).toBe(Status.OK);
    expect(bench.pa).toBe(RAM);
  });
});

describe('stage 2', () => {
  it('refuses with S2 set and the IPA, and checks HAP', () => {
    const bench = new SmmuBench();
    const root = bench.table();
    bench.ste(1, { Config: 6, ...bench.stage2Fields(root) });
    bench.map(root, 0x1000, RAM, LEAF2);
    bench.map(root, 0x2000, RAM, LEAF2 & ~0x80n);
    bench.map(root, 0x3000, RAM, LEAF2 & ~0x40n);
    expect(bench.dma(0x1234)).toBe(Status.OK);
    expect(bench.pa).toBe(RAM + 0x234);
    expect(bench.dma(0x2000, READ)).toBe(Status.OK);
    expect(bench.dma(0x2abc)).toBe(Status.FAULT);
    expect(bench.dma(0x3000, READ)).toBe(Status.FAULT);
    expect(bench.dma(2 ** 44)).toBe(Status.FAULT);
    expect(bench.events().map(({ id, stage2, ipa, class: of }) => [id, stage2, ipa, of])).toEqual([
      [Event.F_PERMISSION, true, 0x2000n, EventClass.IN],
      [Event.F_PERMISSION, true, 0x3000n, EventClass.IN],
      [Event.F_TRANSLATION, true, BigInt(2 ** 44), EventClass.IN],
    ]);
  });

  it('S2R clear terminates without a record', () => {
    const bench = new SmmuBench();
    bench.ste(1, { Config: 6, ...bench.stage2Fields(bench.table()), S2R: 0 });
    expect(bench.dma(0x1000)).toBe(Status.ABORT);
  });
});

describe('stage 1 under stage 2', () => {
  /** Guest addresses are RAM moved down to 0: CDs, tables and memory alike. */
  function nested() {
    const bench = new SmmuBench();
    const s2 = bench.table();
    const s1 = bench.table();
    const cd = bench.cd(1, { ASID: 5, TTB0: BigInt(s1 - RAM) >> 4n });
    bench.ste(1, { Config: 7, ...bench.stage2Fields(s2, 3), S1ContextPtr: BigInt(cd - RAM) >> 6n });
    for (let page = 0; page < 0x20_0000; page += 0x1000) bench.map(s2, page, RAM + page, LEAF2);
    const guest = bench.map(s1, 0x1000, 0x5000, LEAF1);
    // The tables hold guest addresses.
    for (let table = s1, level = 0; level < 3; level++) {
      const next = Number(bench.word(table) & 0xffff_ffff_f000n);
      bench.words(table, [BigInt(next - RAM) | 3n]);
      table = next;
    }
    return { bench, s1, s2, cd, guest };
  }

  it('combines both', () => {
    const { bench } = nested();
    expect(bench.dma(0x1040)).toBe(Status.OK);
    expect(bench.pa).toBe(RAM + 0x5040);
    // A hit gives the same.
    expect(bench.dma(0x1044)).toBe(Status.OK);
    expect(bench.pa).toBe(RAM + 0x5044);
    const told = bench.smmu.explain(bench.tx);
    if (told.kind !== 'translated') throw new Error(told.kind);
    expect(told.tlbHit).toBe(true);
    // Four levels of stage 1, each behind four of stage 2, and four for the result.
    expect(told.steps.filter((step) => step.table === 'stage 1')).toHaveLength(4);
    expect(told.steps.filter((step) => step.table === 'stage 2')).toHaveLength(20);
  });

  it('takes only what both stages allow', () => {
    const { bench, s2 } = nested();
    bench.map(s2, 0x5000, RAM + 0x5000, LEAF2 & ~0x80n);
    expect(bench.dma(0x1040, READ)).toBe(Status.OK);
    expect(bench.dma(0x1040, WRITE)).toBe(Status.FAULT);
    expect(bench.events()[0]).toMatchObject({ id: Event.F_PERMISSION, stage2: true, ipa: 0x5000n, input: 0x1040n });
  });

  it('says which stage refused, and for which fetch', () => {
    const { bench, s2, cd, guest } = nested();
    expect(bench.dma(0x2000)).toBe(Status.FAULT);
    expect(bench.events()[0]).toMatchObject({ id: Event.F_TRANSLATION, stage2: false, class: EventClass.IN });
    // The page of the last stage 1 table is taken out of stage 2.
    const page = guest - (guest % 0x1000) - RAM;
    bench.words(bench.map(s2, page, RAM + page, LEAF2), [0n]);
    expect(bench.dma(0x1000)).toBe(Status.FAULT);
    expect(bench.events()[0]).toMatchObject({
      id: Event.F_TRANSLATION,
      stage2: true,
      class: EventClass.TTD,
      ipa: BigInt(page),
    });
    // And the page of the context descriptor.
    const other = nested();
    other.bench.words(other.bench.map(other.s2, CDS - RAM, CDS, LEAF2), [0n]);
    expect(other.bench.dma(0x1000)).toBe(Status.FAULT);
    expect(other.bench.events()[0]).toMatchObject({
      id: Event.F_TRANSLATION,
      stage2: true,
      class: EventClass.CD,
      ipa: BigInt(cd - RAM - ((cd - RAM) % 0x1000)),
    });
  });

  it('keeps stage 1 tables out of device memory with S2PTW', () => {
    const { bench, s2, guest } = nested();
    const page = guest - (guest % 0x1000) - RAM;
    const ste = RAM + 64;
    expect(bench.dma(0x1000)).toBe(Status.OK);
    const fresh = nested();
    fresh.bench.words(ste + 16, [fresh.bench.word(ste + 16) | (1n << 54n)]);
    // Normal memory is fine (MemAttr 0xf); device memory (MemAttr 1) is not.
    for (let at = 0; at < 0x20_0000; at += 0x1000) fresh.bench.map(fresh.s2, at, RAM + at, LEAF2 | 0x3cn);
    fresh.bench.map(fresh.s2, page, RAM + page, LEAF2 | 0x4n);
    expect(fresh.bench.dma(0x1000)).toBe(Status.FAULT);
    expect(fresh.bench.events()[0]).toMatchObject({ id: Event.F_PERMISSION, stage2: true, class: EventClass.TTD });
    expect(s2).toBe(fresh.s2);
  });
});
