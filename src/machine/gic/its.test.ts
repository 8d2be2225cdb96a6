import { describe, expect, it } from 'vitest';
import {
  encodeClear,
  encodeDiscard,
  encodeInt,
  encodeInv,
  encodeInvall,
  encodeMapc,
  encodeMapd,
  encodeMapi,
  encodeMapti,
  encodeMovall,
  encodeMovi,
  encodeSync,
  GITS_BASER,
  GITS_CBASER,
  GITS_CREADR,
  GITS_CTLR,
  GITS_CWRITER,
  GITS_IIDR,
  GITS_PIDR2,
  GITS_TYPER,
  levelOneHigh,
  levelOneLow,
} from '../../arch/gic/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import type { Hop } from '../../ports/tap.ts';
import { Status } from '../../ports/transaction.ts';
import { GICR_BASE, ITS_BASE, ItsBench } from './testing/its-bench.ts';

const lost = (bench: ItsBench, loss: number): number => bench.tap.ledger[Count.LOST + loss];

/** Device 0x28 with 4 events, all mapped to CPU 0 and enabled: LPI 8192 + event. */
function ready(options?: ConstructorParameters<typeof ItsBench>[0]): ItsBench {
  const bench = new ItsBench(options);
  bench.mapDevice(0x28, 2);
  for (let event = 0; event < 4; event++) {
    bench.setEnabled(8192 + event, true);
    bench.mapEvent(0x28, event, 8192 + event, 0);
  }
  return bench;
}

describe('ITS registers', () => {
  it('shows the layout of irq-gic-v3-its.c', () => {
    const { bus } = new ItsBench();
    // PLPIS, entries of 8 bytes, 16 event bits, 16 device bits, processor numbers as targets, no collections inside.
    expect(bus.read32(ITS_BASE + GITS_TYPER)).toBe(0x1 | (7 << 4) | (15 << 8) | (15 << 13));
    expect(bus.read32(ITS_BASE + GITS_PIDR2) & 0xf0).toBe(0x30);
    expect(bus.read32(ITS_BASE + GITS_IIDR) & 0xfff).toBe(0x43b);
    expect(bus.read32(ITS_BASE + GITS_CTLR)).toBe(1);
    bus.write32(ITS_BASE + GITS_CTLR, 0);
    expect(bus.read32(ITS_BASE + GITS_CTLR)).toBe(1 << 31);
  });

  it('has a device table, a collection table, and six BASERs of no type', () => {
    const { bus } = new ItsBench();
    bus.write32(ITS_BASE + GITS_CTLR, 0);
    for (let n = 0; n < 8; n++) {
      bus.write32(ITS_BASE + GITS_BASER + n * 8 + 4, -1);
      const hi = bus.read32(ITS_BASE + GITS_BASER + n * 8 + 4);
      expect((hi >>> 24) & 7).toBe([1, 4, 0, 0, 0, 0, 0, 0][n]);
      if (n < 2) expect((hi >>> 16) & 0x1f).toBe(7);
      // Indirect is for devices only.
      expect((hi >>> 30) & 1).toBe(n === 0 ? 1 : 0);
    }
  });

  it('keeps the bases while it is enabled', () => {
    const { bus } = new ItsBench();
    const before = bus.read32(ITS_BASE + GITS_CBASER);
    bus.write32(ITS_BASE + GITS_CBASER, 0);
    bus.write32(ITS_BASE + GITS_BASER, 0);
    expect(bus.read32(ITS_BASE + GITS_CBASER)).toBe(before);
  });

  it('reads its translation frame as zero, and ignores a CPU there', () => {
    const bench = ready();
    expect(bench.bus.read32(ITS_BASE + 0x10040)).toBe(0);
    bench.bus.write32(ITS_BASE + 0x10040, 0);
    expect(bench.sink.take()).toEqual([]);
  });

  it('takes nothing from the queue until it is enabled', () => {
    const bench = new ItsBench();
    bench.bus.write32(ITS_BASE + GITS_CTLR, 0);
    const before = bench.bus.read32(ITS_BASE + GITS_CREADR);
    expect(bench.command((words) => encodeSync(words, 0))).toBe(before);
    bench.bus.write32(ITS_BASE + GITS_CTLR, 1);
    expect(bench.bus.read32(ITS_BASE + GITS_CREADR)).toBe(before + 32);
  });

  it('wraps at the end of the queue', () => {
    const bench = new ItsBench();
    for (let i = 0; i < 2048 - 2; i++) bench.command((words) => encodeSync(words, 0));
    expect(bench.bus.read32(ITS_BASE + GITS_CREADR)).toBe(0);
    expect(bench.command((words) => encodeSync(words, 0))).toBe(32);
  });

  it('stalls when a table is not memory, and retries when told to', () => {
    const bench = new ItsBench();
    bench.command((words) => encodeMapd(words, 1, 1, 0x2000_0000, true));
    const stuck = bench.command((words) => encodeMapti(words, 1, 0, 8192, 0));
    expect(stuck & 1).toBe(1);
    bench.memory.addBacking(0x2000_0000, 4096, memoryBacking(4096));
    const writer = bench.bus.read32(ITS_BASE + GITS_CWRITER);
    bench.bus.write32(ITS_BASE + GITS_CWRITER, writer | 1);
    expect(bench.bus.read32(ITS_BASE + GITS_CREADR)).toBe(writer);
  });
});

function memoryBacking(size: number): {
  read(at: number, into: Uint8Array): boolean;
  write(at: number, from: Uint8Array): boolean;
} {
  const bytes = new Uint8Array(size);
  return {
    read: (at, into) => {
      into.set(bytes.subarray(at, at + into.length));
      return true;
    },
    write: (at, from) => {
      bytes.set(from, at);
      return true;
    },
  };
}

describe('ITS translation', () => {
  it('delivers (device, event) as the LPI it was mapped to', () => {
    const bench = ready();
    expect(bench.store(0x28, 2)).toBe(Status.OK);
    expect(bench.store(0x28, 2)).toBe(Status.OK);
    expect(bench.store(0x28, 0)).toBe(Status.OK);
    expect(bench.sink.take()).toEqual([
      [8194, 0],
      [8194, 0],
      [8192, 0],
    ]);
  });

  it('takes the device from the requester: a crafted event reaches only the own LPIs (S2)', () => {
    const bench = ready();
    bench.mapDevice(0x30, 1);
    bench.setEnabled(9000, true);
    bench.mapEvent(0x30, 1, 9000, 1);
    bench.store(0x28, 1);
    bench.store(0x30, 1);
    expect(bench.sink.take()).toEqual([
      [8193, 0],
      [9000, 1],
    ]);
    bench.store(0x30, 0);
    bench.store(0x30, 3);
    bench.store(0x30, 8192);
    expect(bench.sink.take()).toEqual([]);
    expect(lost(bench, Loss.ITS_NO_EVENT)).toBe(3);
  });

  it('loses each message for its own reason', () => {
    const bench = ready();
    bench.store(0x29, 0);
    expect(lost(bench, Loss.ITS_NO_DEVICE)).toBe(1);
    bench.store(0x10000, 0);
    expect(lost(bench, Loss.ITS_NO_DEVICE)).toBe(2);
    bench.store(0x28, 0x77);
    expect(lost(bench, Loss.ITS_NO_EVENT)).toBe(1);
    bench.store(0x28, 0x8000_0001);
    expect(lost(bench, Loss.ITS_NO_EVENT)).toBe(2);
    bench.mapEvent(0x28, 3, 8195, 9);
    bench.store(0x28, 3);
    expect(lost(bench, Loss.ITS_NO_COLLECTION)).toBe(1);
    bench.store(0x28, 0, ITS_BASE + 0x10044);
    bench.store(0x28, 0, ITS_BASE + 0x10000);
    expect(lost(bench, Loss.NOT_A_DOORBELL)).toBe(2);
    bench.bus.write32(ITS_BASE + GITS_CTLR, 0);
    bench.store(0x28, 0);
    expect(lost(bench, Loss.CONTROLLER_OFF)).toBe(1);
    expect(bench.sink.take()).toEqual([]);
  });

  it('loses what a redistributor without LPIs gets', () => {
    const bench = ready();
    bench.store(0x28, 0);
    bench.bus.write32(GICR_BASE, 0);
    bench.store(0x28, 0);
    expect(lost(bench, Loss.CONTROLLER_OFF)).toBe(1);
    expect(bench.sink.take()).toHaveLength(1);
  });

  it('walks a two-level device table, and finds no device behind an invalid first level', () => {
    const bench = new ItsBench({ indirect: true });
    bench.command((words) => encodeMapd(words, 0x2100, 1, 0x4000_0000, true));
    expect(bench.its.lastError?.code).toBe(0x010801);
    // A page of 64 KiB holds 8,192 entries: device 0x2100 is in the second.
    const page = bench.allocate(65536);
    bench.memory.write64(bench.devices + 8, levelOneLow(page), levelOneHigh(page));
    const itt = bench.mapDevice(0x2100, 1);
    bench.setEnabled(8200, true);
    bench.mapEvent(0x2100, 0, 8200, 1);
    bench.store(0x2100, 0);
    expect(bench.sink.take()).toEqual([[8200, 1]]);
    // The documented formats, derived by hand from the table in its-tables.ts.
    const entry = new DataView(new ArrayBuffer(8));
    bench.memory.read(page + 0x100 * 8, new Uint8Array(entry.buffer));
    expect(entry.getBigUint64(0, true)).toBe((1n << 63n) | BigInt(itt));
    bench.memory.read(itt, new Uint8Array(entry.buffer));
    expect(entry.getBigUint64(0, true)).toBe((1n << 63n) | (1n << 32n) | 8200n);
    bench.memory.read(bench.collections + 8, new Uint8Array(entry.buffer));
    expect(entry.getBigUint64(0, true)).toBe((1n << 63n) | (1n << 16n));
  });

  it('tells the hops when somebody looks', () => {
    const bench = ready();
    const hops: Hop[] = [];
    bench.tap.observer = { hop: (hop) => hops.push(hop) };
    bench.store(0x28, 1);
    bench.store(0x28, 9);
    expect(hops).toEqual([
      {
        at: 'controller',
        name: 'ITS@0x0808_0000',
        doorbell: 0x0809_0040,
        data: 1,
        deviceId: 0x28,
        eventId: 1,
        intid: 8193,
        cpu: 0,
      },
      {
        at: 'lost',
        where: 'ITS@0x0808_0000',
        loss: Loss.ITS_NO_EVENT,
        why: 'event 9 is beyond the 4 entries of the table of device 0x0028',
      },
    ]);
  });
});

describe('ITS commands', () => {
  it('MAPI: the event id is the LPI', () => {
    const bench = new ItsBench();
    bench.mapDevice(5, 14);
    bench.setEnabled(8200, true);
    bench.command((words) => encodeMapi(words, 5, 8200, 1));
    bench.store(5, 8200);
    expect(bench.sink.take()).toEqual([[8200, 1]]);
  });

  it('MOVI: the same message arrives at another CPU, and what was pending goes with it', () => {
    const bench = ready();
    bench.command((words) => encodeMovi(words, 0x28, 1, 1));
    bench.store(0x28, 1);
    expect(bench.sink.take()).toEqual([[8193, 1]]);
    bench.setEnabled(8193, false);
    bench.command((words) => encodeInv(words, 0x28, 1));
    bench.store(0x28, 1);
    bench.command((words) => encodeMovi(words, 0x28, 1, 0));
    expect(bench.memory.read32(bench.pending[1] + 1024)).toBe(0);
    expect(bench.memory.read32(bench.pending[0] + 1024)).toBe(2);
    bench.setEnabled(8193, true);
    bench.command((words) => encodeInv(words, 0x28, 1));
    expect(bench.sink.take()).toEqual([[8193, 0]]);
  });

  it('MOVI: what was pending fires at the new CPU when its property says so by then', () => {
    const bench = ready();
    bench.setEnabled(8193, false);
    bench.store(0x28, 1);
    bench.setEnabled(8193, true);
    bench.command((words) => encodeMovi(words, 0x28, 1, 1));
    expect(bench.sink.take()).toEqual([[8193, 1]]);
    expect(bench.tap.ledger[Count.PENDING]).toBe(0);
  });

  it('MOVALL: everything that is pending at one CPU goes to another, and what is enabled fires there', () => {
    const bench = ready();
    bench.bus.write32(0x0800_0000, 0);
    bench.store(0x28, 0);
    bench.store(0x28, 3);
    bench.command((words) => encodeMovall(words, 0, 1 << 16));
    expect(bench.memory.read32(bench.pending[0] + 1024)).toBe(0);
    expect(bench.memory.read32(bench.pending[1] + 1024)).toBe(0b1001);
    bench.bus.write32(0x0800_0000, 2);
    expect(bench.sink.take()).toEqual([
      [8192, 1],
      [8195, 1],
    ]);
    expect(bench.tap.ledger[Count.PENDING]).toBe(0);
  });

  it('DISCARD: the event is unmapped and what was pending is gone', () => {
    const bench = ready();
    bench.setEnabled(8192, false);
    bench.command((words) => encodeInv(words, 0x28, 0));
    bench.store(0x28, 0);
    expect(bench.tap.ledger[Count.PENDING]).toBe(1);
    bench.command((words) => encodeDiscard(words, 0x28, 0));
    expect(bench.tap.ledger[Count.PENDING]).toBe(0);
    expect(lost(bench, Loss.TORN_DOWN)).toBe(1);
    bench.store(0x28, 0);
    expect(lost(bench, Loss.ITS_NO_EVENT)).toBe(1);
  });

  it('INT raises as the device would; CLEAR takes the pending state away', () => {
    const bench = ready();
    bench.command((words) => encodeInt(words, 0x28, 2));
    expect(bench.sink.take()).toEqual([[8194, 0]]);
    expect(bench.tap.ledger[Count.SENT]).toBe(1);
    bench.setEnabled(8194, false);
    bench.command((words) => encodeInv(words, 0x28, 2));
    bench.command((words) => encodeInt(words, 0x28, 2));
    expect(bench.tap.ledger[Count.PENDING]).toBe(1);
    bench.command((words) => encodeClear(words, 0x28, 2));
    expect(bench.tap.ledger[Count.PENDING]).toBe(0);
    bench.setEnabled(8194, true);
    bench.command((words) => encodeInv(words, 0x28, 2));
    expect(bench.sink.take()).toEqual([]);
  });

  it('MAPD with V=0 and MAPC with V=0 void what was cached', () => {
    const bench = ready();
    bench.store(0x28, 0);
    bench.command((words) => encodeMapc(words, 0, 0, false));
    bench.store(0x28, 0);
    expect(lost(bench, Loss.ITS_NO_COLLECTION)).toBe(1);
    bench.command((words) => encodeMapc(words, 0, 1 << 16, true));
    bench.store(0x28, 0);
    bench.command((words) => encodeMapd(words, 0x28, 1, 0, false));
    bench.store(0x28, 0);
    expect(lost(bench, Loss.ITS_NO_DEVICE)).toBe(1);
    expect(bench.sink.take()).toEqual([
      [8192, 0],
      [8192, 1],
    ]);
  });

  it('skips wrong commands with the codes of the architecture', () => {
    const bench = ready();
    const code = (encode: (words: Int32Array) => Int32Array): number => {
      expect(bench.command(encode) & 1).toBe(0);
      return bench.its.lastError?.code ?? 0;
    };
    expect(code((w) => encodeMapd(w, 0x10000, 1, 0x4000_0000, true))).toBe(0x010801);
    expect(code((w) => encodeMapd(w, 1, 17, 0x4000_0000, true))).toBe(0x010802);
    expect(code((w) => encodeMapc(w, 1, 2 << 16, true))).toBe(0x010902);
    expect(code((w) => encodeMapc(w, 0x4000, 0, true))).toBe(0x010903);
    expect(code((w) => encodeMapti(w, 1, 0, 8192, 0))).toBe(0x010a04);
    expect(code((w) => encodeMapti(w, 0x28, 4, 8192, 0))).toBe(0x010a05);
    expect(code((w) => encodeMapti(w, 0x28, 0, 8191, 0))).toBe(0x010a06);
    expect(code((w) => encodeMapti(w, 0x28, 0, 65536, 0))).toBe(0x010a06);
    expect(code((w) => encodeMapti(w, 0x28, 0, 8192, 0x4000))).toBe(0x010a03);
    expect(code((w) => encodeMapi(w, 0x28, 0, 0))).toBe(0x010b06);
    expect(code((w) => encodeMovi(w, 0x28, 9, 0))).toBe(0x010107);
    expect(code((w) => encodeMovi(w, 0x28, 0, 5))).toBe(0x010109);
    expect(code((w) => encodeInt(w, 0x29, 0))).toBe(0x010307);
    expect(code((w) => encodeInv(w, 0x28, 9))).toBe(0x010c07);
    expect(code((w) => encodeInvall(w, 5))).toBe(0x010d09);
    expect(code((w) => encodeMovall(w, 0, 2 << 16))).toBe(0x010e01);
    expect(code((w) => encodeDiscard(w, 0x29, 0))).toBe(0x010f07);
    expect(code((w) => encodeClear(w, 0x29, 0))).toBe(0x010407);
    expect(code((w) => w.fill(0).fill(0x29, 0, 1))).toBe(0x012900);
    expect(bench.its.errors).toBe(19);
    // Nothing was harmed.
    for (let event = 0; event < 4; event++) bench.store(0x28, event);
    expect(bench.sink.take()).toHaveLength(4);
  });
});

describe('LPIs that wait', () => {
  it('a disabled LPI becomes pending in memory, merges, and fires when enabled and INVed', () => {
    const bench = ready();
    bench.setEnabled(8193, false);
    // Without an INV the cached configuration may still count; nothing is cached yet, so the table does.
    bench.store(0x28, 1);
    bench.store(0x28, 1);
    expect(bench.tap.ledger[Count.PENDING]).toBe(1);
    expect(bench.tap.ledger[Count.COALESCED]).toBe(1);
    // LPI 8193 is bit 1 of byte 1024.
    expect(bench.memory.read32(bench.pending[0] + 1024)).toBe(2);
    bench.setEnabled(8193, true);
    expect(bench.sink.take()).toEqual([]);
    bench.command((words) => encodeInv(words, 0x28, 1));
    expect(bench.sink.take()).toEqual([[8193, 0]]);
    expect(bench.memory.read32(bench.pending[0] + 1024)).toBe(0);
    expect(bench.tap.ledger[Count.PENDING]).toBe(0);
  });

  it('keeps what it cached of a property until INV or INVALL', () => {
    const bench = ready();
    bench.store(0x28, 1);
    bench.setEnabled(8193, false);
    bench.store(0x28, 1);
    expect(bench.sink.take()).toHaveLength(2);
    bench.command((words) => encodeInvall(words, 0));
    bench.store(0x28, 1);
    expect(bench.sink.take()).toEqual([]);
    bench.setEnabled(8193, true);
    bench.store(0x28, 1);
    expect(bench.tap.ledger[Count.COALESCED]).toBe(1);
    bench.command((words) => encodeInvall(words, 0));
    expect(bench.sink.take()).toEqual([[8193, 0]]);
  });

  it('an ITE corrupted in memory loses exactly that interrupt, once invalidated', () => {
    const bench = new ItsBench();
    const itt = bench.mapDevice(0x28, 2);
    for (let event = 0; event < 4; event++) {
      bench.setEnabled(8192 + event, true);
      bench.mapEvent(0x28, event, 8192 + event, 0);
      bench.store(0x28, event);
    }
    bench.memory.write64(itt + 8, 0, 0);
    bench.store(0x28, 1);
    expect(bench.sink.take()).toHaveLength(5);
    bench.command((words) => encodeInv(words, 0x28, 1));
    for (let event = 0; event < 4; event++) bench.store(0x28, event);
    expect(bench.sink.take().map(([lpi]) => lpi)).toEqual([8192, 8194, 8195]);
    expect(lost(bench, Loss.ITS_NO_EVENT)).toBe(1);
  });

  it('takes over a pending table that software brings up, and an empty one', () => {
    const bench = ready();
    bench.bus.write32(GICR_BASE, 0);
    bench.memory.write32(bench.pending[0] + 1024, 0b101);
    bench.write64(GICR_BASE + 0x78, { lo: bench.pending[0], hi: 0 });
    bench.bus.write32(GICR_BASE, 1);
    expect(bench.sink.take()).toEqual([
      [8192, 0],
      [8194, 0],
    ]);
    expect(bench.tap.ledger[Count.PENDING]).toBe(0);
    expect(bench.tap.ledger[Count.SENT]).toBe(2);
  });

  it('holds 24 bits of LPIs', () => {
    const bench = new ItsBench({ cpus: 1, lpiBits: 24 });
    bench.mapDevice(1, 0x1);
    bench.setEnabled(0xff_ffff, true);
    bench.mapEvent(1, 1, 0xff_ffff, 0);
    bench.store(1, 1);
    expect(bench.sink.take()).toEqual([[0xff_ffff, 0]]);
  });
});
