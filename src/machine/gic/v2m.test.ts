import { describe, expect, it } from 'vitest';
import { Count, Loss } from '../../ports/ledger.ts';
import type { Hop } from '../../ports/tap.ts';
import { Transaction } from '../../ports/transaction.ts';
import { SystemBus } from '../bus.ts';
import { RamMemory } from '../memory.ts';
import { createTap } from '../tap.ts';
import { Gic } from './gic.ts';
import { RecordingSink } from './testing/its-bench.ts';
import { GicV2m } from './v2m.ts';

const GICD = 0x5000_0000;
const FRAME = 0x5090_0000;
const SETSPI = FRAME + 0x40;

/** A GICv2 with a frame of SPIs 64 to 127, all edge, enabled, and targeted at CPU 1. */
function machine() {
  const memory = new RamMemory([{ base: 0x8000_0000, size: 2 ** 26 }]);
  const bus = new SystemBus(memory);
  const tap = createTap();
  const gic = new Gic({ version: 2, distributor: GICD, spis: 988, cpus: 2 }, memory, tap);
  const sink = new RecordingSink();
  gic.sink = sink;
  gic.attach(bus);
  const frame = new GicV2m({ base: FRAME, spiBase: 64, spiCount: 64 }, gic);
  frame.attach(bus);
  bus.write32(GICD, 1);
  for (let word = 2; word < 4; word++) bus.write32(GICD + 0x100 + word * 4, -1);
  for (let word = 4; word < 8; word++) bus.write32(GICD + 0xc00 + word * 4, 0xaaaa_aaaa | 0);
  for (let at = 64; at < 128; at += 4) bus.write32(GICD + 0x800 + at, 0x02020202);
  const tx = new Transaction();
  const store = (requester: number, data: number, pa = SETSPI): number => {
    tx.requester = requester;
    tx.data = data;
    tx.paHi = 0;
    tx.paLo = pa | 0;
    return bus.store(tx);
  };
  return { bus, tap, gic, sink, frame, store, lost: (loss: number) => tap.ledger[Count.LOST + loss] };
}

describe('GICv2m frame', () => {
  it('shows its SPIs in MSI_TYPER', () => {
    const { bus, frame } = machine();
    expect(bus.read32(FRAME + 8)).toBe((64 << 16) | 64);
    expect(bus.read32(FRAME + 0xfcc)).toBe(0x43b);
    expect(frame.doorbells).toEqual([{ base: FRAME, size: 4096, register: 0x40, isolated: false }]);
  });

  it('raises the SPI that the data names, whoever writes it (S1)', () => {
    const { sink, store } = machine();
    store(0x28, 80);
    store(0x28, 81);
    // 81 belongs to somebody else: the frame does not know.
    store(0x900, 81);
    expect(sink.take()).toEqual([
      [80, 1],
      [81, 1],
      [81, 1],
    ]);
  });

  it('loses what names no SPI of the frame, and what misses the register', () => {
    const { sink, store, lost } = machine();
    for (const data of [63, 128, 0, -1, 1020, 2 ** 31]) store(0x28, data);
    expect(lost(Loss.NO_SUCH_INTID)).toBe(6);
    for (const offset of [0, 8, 0x44, 0xfcc]) store(0x28, 80, FRAME + offset);
    expect(lost(Loss.NOT_A_DOORBELL)).toBe(4);
    expect(sink.take()).toEqual([]);
  });

  it('loses a message for a level triggered SPI', () => {
    const { bus, store, lost } = machine();
    bus.write32(GICD + 0xc00 + 5 * 4, 0);
    store(0x28, 80);
    expect(lost(Loss.NO_SUCH_INTID)).toBe(1);
  });

  it('keeps a disabled SPI pending, merges the second, and fires on enable', () => {
    const { bus, sink, store, tap } = machine();
    bus.write32(GICD + 0x180 + 8, 1 << 16);
    store(0x28, 80);
    store(0x28, 80);
    expect([tap.ledger[Count.PENDING], tap.ledger[Count.COALESCED]]).toEqual([1, 1]);
    expect(bus.read32(GICD + 0x200 + 8)).toBe(1 << 16);
    bus.write32(GICD + 0x100 + 8, 1 << 16);
    expect(sink.take()).toEqual([[80, 1]]);
    expect(tap.ledger[Count.PENDING]).toBe(0);
  });

  it('drops a pending SPI that software clears, and says so in the ledger', () => {
    const { bus, sink, store, tap, lost } = machine();
    bus.write32(GICD, 0);
    store(0x28, 80);
    bus.write32(GICD + 0x280 + 8, 1 << 16);
    expect([tap.ledger[Count.PENDING], lost(Loss.TORN_DOWN)]).toEqual([0, 1]);
    bus.write32(GICD, 1);
    expect(sink.take()).toEqual([]);
  });

  it('tells the hop', () => {
    const { tap, store } = machine();
    const hops: Hop[] = [];
    tap.observer = { hop: (hop) => hops.push(hop) };
    store(0x28, 80);
    store(0x28, 5);
    expect(hops[0]).toMatchObject({
      at: 'controller',
      name: 'GICv2m@0x5090_0000',
      doorbell: SETSPI,
      intid: 80,
      cpu: 1,
    });
    expect(hops[1]).toMatchObject({
      at: 'lost',
      loss: Loss.NO_SUCH_INTID,
      why: 'data 5 selects no SPI of the frame, which has 64 to 127',
    });
  });

  it('counts a write of a CPU as sent by it', () => {
    const { bus, sink, tap } = machine();
    bus.write32(SETSPI, 90);
    expect(sink.take()).toEqual([[90, 1]]);
    expect(tap.ledger[Count.SENT]).toBe(1);
  });
});
