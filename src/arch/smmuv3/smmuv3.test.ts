import { describe, expect, it } from 'vitest';
import { fieldWidth, getInPlace, type Layout, pack, unpack } from '../bits.ts';
import { CD } from './cd.ts';
import { ATC_INV, CFGI, command, Op, opName, RESUME, SYNC, TLBI, tlbiTg } from './commands.ts';
import { decodeEvent, EVENT, EventClass, type EventRecord, encodeEvent } from './events.ts';
import { CR0, encodeAddressSize, IDR0, IDR1, IDR3, IDR5 } from './registers.ts';
import { STE, STE_WORDS, steConfigName, steUsedBits } from './ste.ts';
import { L1STD, l1Entries } from './stream-table.ts';

describe('layouts', () => {
  it.each<[string, Layout]>([
    ['STE', STE],
    ['CD', CD],
    ['TLBI', TLBI],
    ['SYNC', SYNC],
    ['ATC_INV', ATC_INV],
    ['RESUME', RESUME],
    ['IDR0', IDR0],
    ['IDR1', IDR1],
    ['IDR3', IDR3],
    ['IDR5', IDR5],
  ])('%s has no two fields on one bit', (_, fields) => {
    const seen = new Set<string>();
    for (const [name, field] of Object.entries(fields)) {
      for (let bit = field.low; bit <= field.high; bit++) {
        expect(seen.has(`${field.word}.${bit}`), `${name} bit ${bit}`).toBe(false);
        seen.add(`${field.word}.${bit}`);
      }
      expect(fieldWidth(field)).toBeGreaterThan(0);
    }
  });

  it('refuses a value that does not fit', () => {
    expect(() => pack(STE, STE_WORDS, { Config: 8 })).toThrow(RangeError);
  });
});

describe('golden words', () => {
  it('stream table entries', () => {
    // Config 5 (S1) in 3:1, V; S1ContextPtr in place; S1DSS 2, CIR 1, COR 1, CSH 3, S1STALLD 27.
    const s1 = {
      V: 1,
      Config: 5,
      S1ContextPtr: 0x4000_2040n >> 6n,
      S1DSS: 2,
      S1CIR: 1,
      S1COR: 1,
      S1CSH: 3,
      S1STALLD: 1,
    };
    expect(pack(STE, STE_WORDS, s1)).toEqual([0x4000_204bn, 0x0800_00d6n, 0n, 0n, 0n, 0n, 0n, 0n]);
    // VMID 1, T0SZ 20 (44 bits) in 37:32, SL0 2 in 39:38, TG 0, PS 4 in 50:48, AA64 51, R 58.
    const s2 = {
      V: 1,
      Config: 6,
      S2VMID: 1,
      S2T0SZ: 20,
      S2SL0: 2,
      S2PS: 4,
      S2AA64: 1,
      S2R: 1,
      S2TTB: 0x4000_8000n >> 4n,
    };
    expect(pack(STE, STE_WORDS, s2)).toEqual([0xdn, 0n, 0x040c_0094_0000_0001n, 0x4000_8000n, 0n, 0n, 0n, 0n]);
  });

  it('a context descriptor', () => {
    const cd = { T0SZ: 16, TG0: 0, IR0: 1, OR0: 1, SH0: 3, EPD1: 1, V: 1, IPS: 4, AA64: 1, R: 1, A: 1, ASID: 7 };
    // ASID 63:48, A 46, R 45, AA64 41, IPS 34:32 = 4, V 31, EPD1 30, SH 13:12, OR 11:10, IR 9:8, T0SZ.
    expect(pack(CD, 8, cd)[0]).toBe(0x0007_6204_c000_3510n);
  });

  it('commands', () => {
    expect(command(CFGI, { Opcode: Op.CFGI_STE, StreamID: 0x28, Leaf: 1 })).toEqual([0x28_0000_0003n, 1n]);
    expect(command(CFGI, { Opcode: Op.CFGI_STE_RANGE, Range: 31 })).toEqual([4n, 31n]);
    const range = {
      Opcode: Op.TLBI_NH_VA,
      ASID: 3,
      VMID: 2,
      NUM: 3,
      SCALE: 1,
      TG: tlbiTg(12),
      Leaf: 1,
      Address: 0x8000n,
    };
    expect(command(TLBI, range)).toEqual([0x0003_0002_0010_3012n, 0x800_0401n]);
    expect(command(RESUME, { Opcode: Op.RESUME, Ac: 1, StreamID: 0x28, STAG: 5 })).toEqual([0x28_0000_1044n, 5n]);
    expect([tlbiTg(12), tlbiTg(14), tlbiTg(16)]).toEqual([1, 2, 3]);
    expect([opName(0x46), opName(0xff)]).toEqual(['SYNC', '0xff']);
  });

  it('ID registers of the lab', () => {
    const idr0 = unpack(IDR0, [0x0d44_101bn]);
    expect(idr0).toMatchObject({
      S1P: 1n,
      S2P: 1n,
      TTF: 2n,
      COHACC: 1n,
      HTTU: 0n,
      VMID16: 1n,
      ATS: 0n,
      PRI: 0n,
      STALL_MODEL: 1n,
    });
    expect(unpack(IDR1, [0x0273_0010n])).toMatchObject({ SIDSIZE: 16n, SSIDSIZE: 0n, EVTQS: 19n, CMDQS: 19n });
    expect(unpack(IDR3, [0x1414n])).toMatchObject({ FWB: 0n, RIL: 1n, BBML: 2n });
    expect(unpack(IDR5, [0x74n])).toMatchObject({
      OAS: BigInt(encodeAddressSize(44)),
      GRAN4K: 1n,
      GRAN16K: 1n,
      GRAN64K: 1n,
    });
    expect(CR0.SMMUEN | CR0.EVENTQEN | CR0.CMDQEN).toBe(0xd);
  });

  it('first-level stream descriptors', () => {
    const l1 = pack(L1STD, 1, { Span: 9, L2Ptr: 0x4001_0000n >> 6n });
    expect(l1).toEqual([0x4001_0009n]);
    expect(getInPlace(l1, L1STD.L2Ptr)).toBe(0x4001_0000n);
    expect([l1Entries(l1), l1Entries([0n]), l1Entries([12n])]).toEqual([256, 0, 0]);
  });
});

describe('event records', () => {
  const base: EventRecord = {
    id: 0x10,
    streamId: 0x28,
    substreamId: -1,
    input: 0x30_0000n,
    read: true,
    privileged: false,
    instruction: false,
    stage2: false,
    class: EventClass.IN,
    ipa: 0n,
    fetch: 0n,
    stall: false,
    tag: 0,
  };

  it.each<[string, Partial<EventRecord>, bigint[]]>([
    ['the lab’s read', {}, [0x0000002800000010n, 0x0000020800000000n, 0x300000n, 0n]],
    ['the lab’s write', { read: false }, [0x0000002800000010n, 0x0000020000000000n, 0x300000n, 0n]],
    [
      'stage 2, with its IPA',
      { stage2: true, ipa: 0x30_0abcn },
      [0x0000002800000010n, 0x0000028800000000n, 0x300000n, 0x300000n],
    ],
    ['a write to read-only', { id: 0x13, read: false }, [0x0000002800000013n, 0x0000020000000000n, 0x300000n, 0n]],
    ['a substream', { substreamId: 3 }, [0x0000002800003810n, 0x0000020800000000n, 0x300000n, 0n]],
    ['a stall', { stall: true, tag: 5 }, [0x0000002800000010n, 0x0000020880000005n, 0x300000n, 0n]],
    [
      'a table fetch',
      { id: 0x0b, class: EventClass.TTD, fetch: 0x5000_1008n },
      [0x280000000bn, 0x0000010800000000n, 0x300000n, 0x50001008n],
    ],
    ['configuration events carry no address', { id: 0x04 }, [0x2800000004n, 0n, 0n, 0n]],
    ['an STE that cannot be fetched', { id: 0x03, fetch: 0x4000_0a00n }, [0x2800000003n, 0n, 0n, 0x40000a00n]],
  ])('%s', (_, change, words) => {
    expect(encodeEvent({ ...base, ...change })).toEqual(words);
  });

  it('reads back what it wrote', () => {
    const event = { ...base, substreamId: 7, stage2: true, ipa: 0x1_2345_6000n, privileged: true };
    expect(decodeEvent(encodeEvent(event))).toEqual(event);
    expect(EVENT.InputAddr.word).toBe(2);
  });
});

describe('steUsedBits', () => {
  it('looks at V alone without V, and at V and Config of an abort', () => {
    expect(steUsedBits(pack(STE, STE_WORDS, { S1DSS: 2 }))).toEqual([1n, 0n, 0n, 0n, 0n, 0n, 0n, 0n]);
    expect(steUsedBits(pack(STE, STE_WORDS, { V: 1 }))).toEqual([0xfn, 0n, 0n, 0n, 0n, 0n, 0n, 0n]);
  });

  it('looks at stage 1’s fields but not at the table of stage 2', () => {
    const used = steUsedBits(pack(STE, STE_WORDS, { V: 1, Config: 5 }));
    expect(used[2]).toBe(0xffffn);
    expect(used[3]).toBe(0n);
    expect(steConfigName(5)).toBe('S1');
    expect(steConfigName(2)).toBe('ABORT');
  });
});
