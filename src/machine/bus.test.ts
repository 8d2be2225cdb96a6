import { describe, expect, it } from 'vitest';
import type { MsiController } from '../ports/bus.ts';
import { Status, Transaction } from '../ports/transaction.ts';
import { SystemBus } from './bus.ts';
import { RamMemory } from './memory.ts';

function setUp() {
  const memory = new RamMemory([{ base: 0x4000_0000, size: 64 * 1024 * 1024 }]);
  const bus = new SystemBus(memory);
  const messages: string[] = [];
  const controller = (name: string, base: number): MsiController => ({
    name,
    doorbells: [{ base, size: 0x10000, register: 0x40, isolated: true }],
    message: (tx) => {
      messages.push(`${name} ${tx.requester} ${(tx.paLo >>> 0).toString(16)} ${tx.data}`);
      return Status.OK;
    },
  });
  bus.attachController(controller('its0', 0x8090000));
  bus.attachController(controller('its1', 0x9090000));
  const tx = new Transaction();
  const store = (pa: number, data: number, size = 4) => {
    tx.paHi = 0;
    tx.paLo = pa | 0;
    tx.data = data;
    tx.size = size;
    return bus.store(tx);
  };
  return { memory, bus, messages, store };
}

describe('SystemBus', () => {
  it('gives a write into a doorbell page to its controller, whichever page was hit before', () => {
    const { messages, store } = setUp();
    expect(store(0x8090040, 1)).toBe(Status.OK);
    expect(store(0x9090040, 2)).toBe(Status.OK);
    expect(store(0x8090040, 3)).toBe(Status.OK);
    expect(store(0x809f040, 4)).toBe(Status.OK);
    expect(messages).toEqual(['its0 0 8090040 1', 'its1 0 9090040 2', 'its0 0 8090040 3', 'its0 0 809f040 4']);
  });

  it('stores to memory by byte lanes and answers what nothing claims', () => {
    const { memory, bus, store } = setUp();
    expect(store(0x4000_0000, 0x11223344)).toBe(Status.OK);
    expect(store(0x4000_0001, 0xaa, 1)).toBe(Status.OK);
    expect(store(0x4000_0002, 0xbbcc, 2)).toBe(Status.OK);
    expect(memory.read32(0x4000_0000)).toBe(0xbbccaa44 | 0);
    expect(bus.read(0x4000_0001, 1)).toBe(0xaa);
    expect(store(0x1000, 1)).toBe(Status.UNCLAIMED);
    expect(bus.read32(0x1000)).toBe(-1);
  });

  it('finds register ranges by binary search and refuses overlaps', () => {
    const { bus, store } = setUp();
    const log: string[] = [];
    for (let i = 0; i < 5; i++) {
      bus.map(0x1000_0000 + i * 0x1000, 0x1000, {
        name: `r${i}`,
        read: (offset) => i * 0x1000 + offset,
        write: (offset, size, value) => log.push(`r${i} ${offset} ${size} ${value}`),
      });
    }
    expect(bus.read32(0x1000_2004)).toBe(0x2004);
    bus.write(0x1000_4ffc, 2, 0x1ffff);
    expect(store(0x1000_0008, 7)).toBe(Status.OK);
    expect(log).toEqual(['r4 4092 2 65535', 'r0 8 4 7']);
    expect(bus.claimant(0x1000_1000)).toBe('r1');
    expect(bus.claimant(0x4000_0000)).toBe('memory');
    expect(bus.claimant(0x8090040)).toBe('its0');
    expect(bus.claimant(0x2000_0000)).toBeNull();
    expect(() => bus.map(0x1000_0ff8, 16, { name: 'x', read: () => 0, write: () => {} })).toThrow(/overlaps/);
    bus.unmap(0x1000_1000);
    expect(bus.claimant(0x1000_1000)).toBeNull();
  });
});
