import { describe, expect, it } from 'vitest';
import { CapabilityId } from '../../arch/pci/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import type { FunctionSpec } from '../../ports/pci.ts';
import {
  ALL_ON,
  BELL,
  barBase,
  capabilityOf,
  enableMsix,
  maskVector,
  program,
  single,
  tableAddress,
} from './testing/rig.ts';

type Place = { readonly bar: number; readonly offset: number };

function withTable(vectors: number, table: Place, pba: Place, more: Partial<FunctionSpec> = {}) {
  const made = single({
    bars: [
      { type: 'memory32', size: 2 ** 16, ranges: [{ kind: 'memory', offset: 0, size: 2 ** 16 }] },
      { type: 'memory32', size: 2 ** 12 },
      { type: 'memory64', prefetchable: true, size: 2 ** 17 },
      null,
      { type: 'memory64', size: 2 ** 16 },
    ],
    msix: { vectors, table, pba },
    ...more,
  });
  made.fn.configWrite(0x04, 2, ALL_ON);
  enableMsix(made.fn);
  return made;
}

describe('MSI-X tables, wherever they lie', () => {
  const places: readonly [number, Place, Place][] = [
    [1, { bar: 0, offset: 0 }, { bar: 0, offset: 0x8000 }],
    [3, { bar: 0, offset: 0x0ff8 }, { bar: 1, offset: 0xff8 }],
    [3, { bar: 4, offset: 0xffd0 }, { bar: 0, offset: 8 }],
    [65, { bar: 2, offset: 0x2000 }, { bar: 2, offset: 0x3000 }],
    [2048, { bar: 2, offset: 0x1_8000 }, { bar: 2, offset: 0x1_7f00 }],
    [2048, { bar: 4, offset: 0x8 }, { bar: 2, offset: 0 }],
  ];
  for (const [vectors, table, pba] of places) {
    it(`${vectors} vectors, table in BAR ${table.bar} at ${table.offset.toString(16)}, pending bits in BAR ${pba.bar} at ${pba.offset.toString(16)}`, () => {
      const { fn, bell, bus } = withTable(vectors, table, pba);
      const at = capabilityOf(fn, CapabilityId.MSIX);
      expect(fn.configRead(at + 2, 2)).toBe(0x8000 | (vectors - 1));
      expect(fn.configRead(at + 4, 4)).toBe(table.offset | table.bar);
      expect(fn.configRead(at + 8, 4)).toBe(pba.offset | pba.bar);
      const last = vectors - 1;
      const word = barBase(fn, pba.bar) + pba.offset + (last >> 5) * 4;
      fn.raise(last);
      expect(bus.read32(word)).toBe((1 << (last & 31)) | 0);
      program(fn, last, 0x1234_0000 + last);
      expect(bus.read32(word)).toBe(0);
      program(fn, 0, 0xffff_ffff);
      fn.raise(0);
      expect(bell.arrivals.map(({ data }) => data >>> 0)).toEqual([0x1234_0000 + last, 0xffff_ffff]);
      expect(fn.raise(vectors)).toBe(false);
      expect(fn.raise(-1)).toBe(false);
    });
  }

  it('lies over the memory of its BAR and leaves the rest alone', () => {
    const { fn, bus } = withTable(2, { bar: 0, offset: 0x100 }, { bar: 0, offset: 0x200 });
    bus.write32(barBase(fn, 0) + 0xfc, 7);
    expect(bus.read32(barBase(fn, 0) + 0xfc)).toBe(7);
    expect(bus.read32(barBase(fn, 0) + 0x10c)).toBe(1);
    expect(fn.barView(0, 0x100, 32)).toHaveLength(32);
    expect(fn.barView(0, 0xf0, 0x20)).toBeNull();
    expect(fn.barView(0, 0, 0x100)).toHaveLength(0x100);
  });
});

const small = () => withTable(4, { bar: 0, offset: 0 }, { bar: 0, offset: 0x800 });

describe('masks and pending bits', () => {
  it('every vector is masked after reset; the reserved bits of an entry stay zero', () => {
    const { fn, bus } = small();
    for (let vector = 0; vector < 4; vector++) expect(bus.read32(tableAddress(fn, vector) + 12)).toBe(1);
    bus.write32(tableAddress(fn, 1), -1);
    bus.write32(tableAddress(fn, 1) + 12, -2);
    expect(bus.read32(tableAddress(fn, 1))).toBe(-4);
    expect(bus.read32(tableAddress(fn, 1) + 12)).toBe(0);
    bus.write(tableAddress(fn, 1) + 12, 1, 1);
    expect(bus.read32(tableAddress(fn, 1) + 12)).toBe(1);
  });

  it('a vector under both masks fires when the second one goes, in either order', () => {
    for (const functionFirst of [true, false]) {
      const { fn, bell, ledger } = small();
      program(fn, 2, 20);
      maskVector(fn, 2, true);
      enableMsix(fn, 0xc000);
      fn.raise(2);
      const steps = [() => enableMsix(fn, 0x8000), () => maskVector(fn, 2, false)];
      if (!functionFirst) steps.reverse();
      steps[0]();
      expect([bell.arrivals.length, ledger[Count.PENDING]]).toEqual([0, 1]);
      steps[1]();
      expect([bell.arrivals.length, ledger[Count.PENDING]]).toEqual([1, 0]);
    }
  });

  it('the function mask holds all vectors, and lets each go once, lowest first', () => {
    const { fn, bell, ledger } = small();
    for (const vector of [0, 1, 2, 3]) program(fn, vector, vector);
    enableMsix(fn, 0xc000);
    for (const vector of [3, 1, 1, 3, 0]) fn.raise(vector);
    expect([ledger[Count.PENDING], ledger[Count.COALESCED]]).toEqual([3, 2]);
    enableMsix(fn, 0x8000);
    expect(bell.arrivals.map(({ data }) => data)).toEqual([0, 1, 3]);
    enableMsix(fn, 0x8000);
    expect(bell.arrivals).toHaveLength(3);
  });

  it('sends the message that the entry holds at that moment', () => {
    const { fn, bell, bus } = small();
    program(fn, 0, 1);
    maskVector(fn, 0, true);
    fn.raise(0);
    bus.write32(tableAddress(fn, 0) + 8, 2);
    maskVector(fn, 0, false);
    bus.write32(tableAddress(fn, 0) + 8, 3);
    fn.raise(0);
    expect(bell.arrivals.map(({ data }) => data)).toEqual([2, 3]);
  });

  it('a table changed behind the model counts: at the next raise, and for what was pending', () => {
    const { fn, bell } = small();
    const words = new DataView(fn.barView(0, 0, 64)!.buffer);
    fn.raise(0);
    words.setUint32(0, BELL + 0x40, true);
    words.setUint32(8, 9, true);
    words.setUint32(12, 0, true);
    expect(bell.arrivals).toHaveLength(0);
    fn.syncTable();
    expect(bell.arrivals.map(({ data }) => data)).toEqual([9]);
    words.setUint32(8, 10, true);
    fn.raise(0);
    words.setUint32(12, 1, true);
    fn.raise(0);
    expect(bell.arrivals.map(({ data }) => data)).toEqual([9, 10]);
    words.setUint32(12, 0, true);
    fn.raise(0);
    expect(bell.arrivals).toHaveLength(4);
  });

  it('a pending vector let go while bus mastering is off is lost, and says so', () => {
    const { fn, lost, ledger } = small();
    fn.raise(1);
    fn.configWrite(0x04, 2, 0x2);
    program(fn, 1, 1);
    expect([lost(Loss.BUS_MASTER_OFF), ledger[Count.PENDING]]).toEqual([1, 0]);
  });
});

describe('reset', () => {
  const spec: Partial<FunctionSpec> = { express: { type: 'endpoint', flr: true }, powerManagement: true };
  const flr = (): ReturnType<typeof small> => withTable(4, { bar: 0, offset: 0 }, { bar: 0, offset: 0x800 }, spec);

  it('FLR by the PCIe capability: everything off, pending ones torn down, the bit reads zero', () => {
    const { fn, model, bus, ledger, lost } = flr();
    const base = barBase(fn, 0);
    program(fn, 0, 1);
    fn.raise(1);
    fn.raise(3);
    const control = capabilityOf(fn, CapabilityId.EXPRESS) + 8;
    fn.configWrite(control, 2, fn.configRead(control, 2) | 0x8000);
    expect(model.resets).toBe(1);
    expect(fn.configRead(control, 2) & 0x8000).toBe(0);
    expect([ledger[Count.PENDING], lost(Loss.TORN_DOWN)]).toEqual([0, 2]);
    expect([fn.configRead(0x04, 2), fn.configRead(0x10, 4)]).toEqual([0, 0]);
    expect(fn.messagesEnabled).toBe(false);
    expect(bus.claimant(base)).toBeNull();
    // Restored as a kernel does: the table is empty and masked again.
    fn.configWrite(0x10, 4, base);
    fn.configWrite(0x04, 2, ALL_ON);
    enableMsix(fn);
    expect(bus.read32(tableAddress(fn, 0) + 12)).toBe(1);
    expect(bus.read32(tableAddress(fn, 0))).toBe(0);
    expect(fn.raise(1)).toBe(false);
    expect(ledger[Count.PENDING]).toBe(1);
  });

  it('FLR by the advanced features capability of conventional PCI', () => {
    const captured = new Uint8Array(256);
    // Capabilities list; at 0x40 advanced features (id 0x13, 6 bytes) with transactions pending and FLR.
    captured.set([0x34, 0x12, 0x78, 0x56], 0);
    captured.set([0x10], 0x06);
    captured.set([0x40], 0x34);
    captured.set([0x13, 0x00, 0x06, 0x03], 0x40);
    const { fn, model } = single({ captured });
    fn.configWrite(0x04, 2, 0x4);
    fn.configWrite(0x44, 1, 0x1);
    expect([model.resets, fn.configRead(0x04, 2), fn.configRead(0x44, 1)]).toEqual([1, 0, 0]);
  });

  it('without FLR in its capability the bit does nothing', () => {
    const { fn, model } = withTable(
      1,
      { bar: 0, offset: 0 },
      { bar: 0, offset: 0x800 },
      { express: { type: 'endpoint' } },
    );
    fn.configWrite(capabilityOf(fn, CapabilityId.EXPRESS) + 8, 2, 0x8000);
    expect(model.resets).toBe(0);
  });
});
