import { describe, expect, it } from 'vitest';
import {
  addressHandle,
  compatibilityAddress,
  DMA_GCMD_CFI,
  DMA_GCMD_IRE,
  DMA_GCMD_SIRTP,
  encodeIrte,
  type Irte,
  iecDescriptor,
  irtaLow,
  RemapFault,
  remappableAddress,
  sourceAllowed,
} from '../../arch/x86/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import type { Hop } from '../../ports/tap.ts';
import { Transaction } from '../../ports/transaction.ts';
import { SystemBus } from '../bus.ts';
import { RamMemory } from '../memory.ts';
import { createTap } from '../tap.ts';
import { LocalApics } from './apic.ts';
import { InterruptRemapping } from './remapping.ts';

const TABLE = 0x100_0000;

function machine(options: { remapping?: boolean; cpus?: number } = {}) {
  const memory = new RamMemory([{ base: 0, size: 2 ** 26 }]);
  const bus = new SystemBus(memory);
  const tap = createTap();
  const remapping = options.remapping === true ? new InterruptRemapping(memory) : null;
  const apics = new LocalApics(options.cpus ?? 4, tap, remapping);
  const seen: [number, number][] = [];
  apics.sink = { interrupt: (intid, cpu) => seen.push([intid, cpu]) };
  apics.attach(bus);
  const tx = new Transaction();
  const store = (requester: number, pa: number, data: number): number => {
    tx.requester = requester;
    tx.data = data;
    tx.paHi = 0;
    tx.paLo = pa | 0;
    return bus.store(tx);
  };
  return { memory, bus, tap, apics, remapping, store, seen, lost: (loss: number) => tap.ledger[Count.LOST + loss] };
}

/** Remapping on, with a table of 256 entries. */
function remapped() {
  const host = machine({ remapping: true });
  const remapping = host.remapping!;
  const faults: number[][] = [];
  remapping.faults = { remapFault: (reason, requester, index) => faults.push([reason, requester, index]) };
  remapping.write(0xb8, irtaLow(TABLE, 256));
  remapping.write(0xbc, 0);
  remapping.command(DMA_GCMD_SIRTP);
  remapping.command(DMA_GCMD_IRE);
  const entry = (index: number, irte: Irte): void => {
    const words = encodeIrte(irte);
    for (const [i, word] of words.entries()) host.memory.write32(TABLE + index * 16 + i * 4, word);
  };
  return { ...host, remapping, faults, entry };
}

describe('formats', () => {
  it('are those of the lab', () => {
    expect(remappableAddress(16, true)).toBe(0xfee0_0218);
    expect([18, 19, 20].map((handle) => remappableAddress(handle, true))).toEqual([
      0xfee0_0258, 0xfee0_0278, 0xfee0_0298,
    ]);
    expect(addressHandle(0xfee0_0218)).toBe(16);
    expect(remappableAddress(0x8001, false)).toBe(0xfee0_0034);
    expect(addressHandle(0xfee0_0034)).toBe(0x8001);
    expect(compatibilityAddress(2)).toBe(0xfee0_2000);
  });

  it('compare the source as SVT and SQ say', () => {
    const word = (svt: number, sq: number, sid: number): number => sid | (sq << 16) | (svt << 18);
    expect(sourceAllowed(word(0, 0, 0x28), 0x900)).toBe(true);
    expect(sourceAllowed(word(1, 0, 0x28), 0x28)).toBe(true);
    expect(sourceAllowed(word(1, 0, 0x28), 0x2c)).toBe(false);
    expect(sourceAllowed(word(1, 1, 0x28), 0x2c)).toBe(true);
    expect(sourceAllowed(word(1, 1, 0x28), 0x2a)).toBe(false);
    expect(sourceAllowed(word(1, 2, 0x28), 0x2e)).toBe(true);
    expect(sourceAllowed(word(1, 3, 0x28), 0x2f)).toBe(true);
    expect(sourceAllowed(word(1, 3, 0x28), 0x30)).toBe(false);
    expect(sourceAllowed(word(2, 0, 0x0305), 0x0500)).toBe(true);
    expect(sourceAllowed(word(2, 0, 0x0305), 0x0600)).toBe(false);
  });
});

describe('local APICs without remapping', () => {
  it('take vector and CPU from the message, whoever sends it', () => {
    const { store, seen } = machine();
    store(0x28, 0xfee0_0000, 0x31);
    store(0x999, 0xfee0_3000, 0x41);
    // Lowest priority; the redirection hint alone changes nothing.
    store(0x28, 0xfee0_1008, 0x131);
    expect(seen).toEqual([
      [0x31, 0],
      [3 * 256 + 0x41, 3],
      [256 + 0x31, 1],
    ]);
  });

  it('take logical destinations and the broadcast, and count the copies', () => {
    const { store, seen, tap } = machine();
    store(0x28, 0xfee0_a004, 0x31);
    expect(seen.splice(0).map(([, cpu]) => cpu)).toEqual([1, 3]);
    store(0x28, 0xfee0_a004, 0x131);
    expect(seen.splice(0).map(([, cpu]) => cpu)).toEqual([1]);
    store(0x28, 0xfeef_f000, 0x31);
    expect(seen.splice(0).map(([, cpu]) => cpu)).toEqual([0, 1, 2, 3]);
    expect(tap.ledger[Count.SENT]).toBe(1 + 3);
  });

  it('lose what names no CPU or no vector', () => {
    const { store, seen, lost, bus } = machine();
    store(0x28, 0xfee0_4000, 0x31);
    store(0x28, 0xfee0_0000, 0x0f);
    store(0x28, 0xfee0_0000, 0x431);
    // Logical bit 4, with CPUs 0 to 3.
    store(0x28, 0xfee1_0004, 0x31);
    expect(lost(Loss.NO_SUCH_INTID)).toBe(4);
    expect(seen).toEqual([]);
    expect(bus.read32(0xfee0_0020)).toBe(0);
  });

  it('lose what comes before a kernel is there', () => {
    const { apics, store, lost } = machine();
    apics.sink = null;
    store(0x28, 0xfee0_0000, 0x31);
    expect(lost(Loss.NO_HANDLER)).toBe(1);
  });
});

describe('interrupt remapping', () => {
  it('maps the handle of the lab to vector and CPU', () => {
    const { entry, store, seen, apics } = remapped();
    entry(16, { vector: 0x42, apicId: 2, requester: 0x28 });
    store(0x28, 0xfee0_0218, 0);
    store(0x28, 0xfee0_0218, 0);
    expect(seen).toEqual([
      [2 * 256 + 0x42, 2],
      [2 * 256 + 0x42, 2],
    ]);
    expect(apics.doorbells[0]).toMatchObject({ base: 0xfee0_0000, size: 0x10_0000, isolated: true });
  });

  it('adds the subhandle of the data', () => {
    const { entry, store, seen } = remapped();
    for (let i = 0; i < 4; i++) entry(16 + i, { vector: 0x40 + i, apicId: 0, requester: 0x28 });
    for (let i = 0; i < 4; i++) store(0x28, 0xfee0_0218, i);
    // Without SHV the data does not count.
    store(0x28, 0xfee0_0210, 3);
    expect(seen.map(([intid]) => intid)).toEqual([0x40, 0x41, 0x42, 0x43, 0x40]);
  });

  it('faults as VT-d does, each for its reason', () => {
    const { entry, store, seen, faults, lost, remapping } = remapped();
    entry(16, { vector: 0x42, apicId: 0, requester: 0x28 });
    entry(17, { vector: 0x42, apicId: 0, requester: 0x28, svt: 3 });
    // The lab's: handle 16 with data 0x77 is entry 0x87, which is not present.
    store(0x28, 0xfee0_0218, 0x77);
    store(0x30, 0xfee0_0218, 0);
    store(0x28, 0xfee0_0218, 0x1_0000);
    store(0x28, remappableAddress(256, false), 0);
    store(0x28, remappableAddress(17, false), 0);
    store(0x28, 0xfee0_0000, 0x42);
    expect(faults).toEqual([
      [RemapFault.NOT_PRESENT, 0x28, 0x87],
      [RemapFault.SOURCE_MISMATCH, 0x30, 16],
      [RemapFault.RESERVED_REQUEST, 0x28, 16],
      [RemapFault.INDEX_BEYOND_TABLE, 0x28, 256],
      [RemapFault.RESERVED_ENTRY, 0x28, 17],
      [RemapFault.COMPATIBILITY_BLOCKED, 0x28, 0],
    ]);
    expect(lost(Loss.REMAP_FAULT)).toBe(6);
    expect(remapping.faultCount).toBe(6);
    expect(seen).toEqual([]);
  });

  it('records no fault of an entry with FPD, but counts it', () => {
    const { memory, store, faults, remapping, lost } = remapped();
    memory.write32(TABLE + 16 * 16, 2);
    store(0x28, 0xfee0_0218, 0);
    expect(faults).toEqual([]);
    expect([remapping.faultCount, lost(Loss.REMAP_FAULT)]).toEqual([1, 1]);
  });

  it('lets compatibility format through when CFI is set', () => {
    const { remapping, store, seen } = remapped();
    remapping.command(DMA_GCMD_IRE | DMA_GCMD_CFI);
    store(0x28, 0xfee0_1000, 0x42);
    expect(seen).toEqual([[256 + 0x42, 1]]);
    expect(remapping.status).toBe(DMA_GCMD_IRE | DMA_GCMD_SIRTP | DMA_GCMD_CFI);
  });

  it('keeps an entry that it cached until it is invalidated', () => {
    const { entry, memory, remapping, store, seen, faults } = remapped();
    entry(16, { vector: 0x42, apicId: 0, requester: 0x28 });
    entry(17, { vector: 0x43, apicId: 0, requester: 0x28 });
    store(0x28, 0xfee0_0218, 0);
    store(0x28, 0xfee0_0218, 1);
    memory.write32(TABLE + 16 * 16, 0);
    memory.write32(TABLE + 17 * 16, 0);
    store(0x28, 0xfee0_0218, 0);
    expect(seen).toHaveLength(3);
    const one = iecDescriptor(16, 0);
    remapping.invalidate(one.lo, one.hi);
    store(0x28, 0xfee0_0218, 0);
    store(0x28, 0xfee0_0218, 1);
    expect(faults).toEqual([[RemapFault.NOT_PRESENT, 0x28, 16]]);
    const all = iecDescriptor(-1, 0);
    remapping.invalidate(all.lo, all.hi);
    store(0x28, 0xfee0_0218, 1);
    expect(faults).toHaveLength(2);
    // Not present is never remembered.
    entry(16, { vector: 0x50, apicId: 1, requester: 0x28 });
    store(0x28, 0xfee0_0218, 0);
    expect(seen.at(-1)).toEqual([256 + 0x50, 1]);
  });

  it('invalidates an aligned block by mask', () => {
    const { entry, memory, remapping, store, seen } = remapped();
    for (let i = 16; i < 20; i++) entry(i, { vector: 0x42, apicId: 0, requester: 0x28 });
    for (let i = 0; i < 4; i++) store(0x28, 0xfee0_0218, i);
    for (let i = 16; i < 20; i++) memory.write32(TABLE + i * 16, 0);
    const block = iecDescriptor(16, 1);
    remapping.invalidate(block.lo, block.hi);
    seen.length = 0;
    for (let i = 0; i < 4; i++) store(0x28, 0xfee0_0218, i);
    expect(seen).toHaveLength(2);
  });

  it('tells the hops', () => {
    const { entry, store, tap } = remapped();
    const hops: Hop[] = [];
    tap.observer = { hop: (hop) => hops.push(hop) };
    entry(16, { vector: 0x42, apicId: 1, requester: 0x28 });
    store(0x28, 0xfee0_0218, 0);
    store(0x30, 0xfee0_0218, 0);
    expect(hops[0]).toMatchObject({
      at: 'controller',
      doorbell: 0xfee0_0218,
      deviceId: 0x28,
      intid: 256 + 0x42,
      cpu: 1,
    });
    expect(hops[1]).toMatchObject({
      at: 'lost',
      loss: Loss.REMAP_FAULT,
      why: '0xfee0_0218 data 0x0000 of 0x0030: interrupt remapping fault 0x26 at entry 16',
    });
  });
});
