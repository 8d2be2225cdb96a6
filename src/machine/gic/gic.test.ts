import { describe, expect, it } from 'vitest';
import { Count, Loss } from '../../ports/ledger.ts';
import { SystemBus } from '../bus.ts';
import { RamMemory } from '../memory.ts';
import { createTap } from '../tap.ts';
import { Gic } from './gic.ts';
import { RecordingSink } from './testing/its-bench.ts';

const GICD = 0x5000_0000;
const GICR = 0x5010_0000;

function machine(version: 2 | 3, cpus = 4) {
  const memory = new RamMemory([{ base: 0x8000_0000, size: 2 ** 26 }]);
  const bus = new SystemBus(memory);
  const tap = createTap();
  const gic = new Gic({ version, distributor: GICD, redistributors: GICR, spis: 988, lpiBits: 16, cpus }, memory, tap);
  const sink = new RecordingSink();
  gic.sink = sink;
  gic.attach(bus);
  return { memory, bus, tap, gic, sink };
}

describe('GICv3 distributor', () => {
  it('identifies itself', () => {
    const { bus } = machine(3);
    // 1,020 interrupts, 4 CPUs, LPIs, 16 bits of interrupt id.
    expect(bus.read32(GICD + 4)).toBe(31 | (3 << 5) | (1 << 17) | (15 << 19));
    expect(bus.read32(GICD + 0xffe8) & 0xf0).toBe(0x30);
    expect(bus.read32(GICD)).toBe(0x50);
  });

  it('signals a level line when it rises and, while it is high, after each unmask', () => {
    const { bus, gic, sink } = machine(3);
    bus.write32(GICD + 0x80 + 4, -1);
    bus.write32(GICD, 2);
    bus.write32(GICD + 0x6000 + 36 * 8, 2);
    bus.write32(GICD + 0x100 + 4, 1 << 4);
    gic.setLine(36, true);
    gic.setLine(36, true);
    expect(sink.take()).toEqual([[36, 2]]);
    bus.write32(GICD + 0x180 + 4, 1 << 4);
    bus.write32(GICD + 0x100 + 4, 1 << 4);
    expect(sink.take()).toEqual([[36, 2]]);
    bus.write32(GICD + 0x180 + 4, 1 << 4);
    gic.setLine(36, false);
    bus.write32(GICD + 0x100 + 4, 1 << 4);
    expect(sink.take()).toEqual([]);
    expect(gic.line(36)).toBe(false);
  });

  it('latches the rise of an edge line while it is disabled', () => {
    const { bus, gic, sink } = machine(3);
    bus.write32(GICD, 1);
    bus.write32(GICD + 0xc00 + 8, 2 << 8);
    gic.setLine(36, true);
    gic.setLine(36, false);
    bus.write32(GICD + 0x100 + 4, 1 << 4);
    expect(sink.take()).toEqual([[36, 0]]);
    gic.setLine(36, true);
    expect(sink.take()).toEqual([[36, 0]]);
  });

  it('does not deliver what is active, nor what is routed to a CPU that is not there', () => {
    const { bus, gic, sink } = machine(3);
    bus.write32(GICD, 1);
    bus.write32(GICD + 0x300 + 4, 1);
    bus.write32(GICD + 0x100 + 4, 3);
    bus.write32(GICD + 0x6000 + 33 * 8, 9);
    gic.setLine(32, true);
    gic.setLine(33, true);
    expect(sink.take()).toEqual([]);
    bus.write32(GICD + 0x380 + 4, 1);
    bus.write32(GICD + 0x6000 + 33 * 8, 1 << 31);
    expect(sink.take()).toEqual([
      [32, 0],
      [33, 0],
    ]);
  });

  it('holds priorities by byte and configuration by two bits', () => {
    const { bus } = machine(3);
    bus.write(GICD + 0x400 + 37, 1, 0xa0);
    expect(bus.read32(GICD + 0x400 + 36)).toBe(0xa000);
    bus.write32(GICD + 0xc00 + 8, -1);
    expect(bus.read32(GICD + 0xc00 + 8)).toBe(0xaaaa_aaaa | 0);
    // The private ones are fixed.
    bus.write32(GICD + 0xc00, -1);
    expect(bus.read32(GICD + 0xc00)).toBe(0);
  });

  it('has the software set-pending register', () => {
    const { bus, sink } = machine(3);
    bus.write32(GICD, 1);
    bus.write32(GICD + 0x200 + 4, 1);
    bus.write32(GICD + 0x100 + 4, 1);
    expect(sink.take()).toEqual([[32, 0]]);
  });

  it('knows no interrupt beyond its SPIs', () => {
    const { gic, sink } = machine(3);
    for (const intid of [0, 31, 1020, 1023, 5000, -1]) {
      gic.setLine(intid, true);
      expect(gic.raiseSpi(intid)).toBe(Loss.NO_SUCH_INTID);
    }
    expect(sink.take()).toEqual([]);
  });

  it('loses what comes before a kernel is there', () => {
    const { bus, gic, tap } = machine(3);
    const alone = new Gic({ version: 2, distributor: GICD, spis: 32, cpus: 1 }, bus.memory, tap);
    alone.distributor.write(0, 4, 1);
    alone.distributor.write(0x820, 4, 1);
    alone.distributor.write(0xc08, 4, 2);
    alone.distributor.write(0x104, 4, 1);
    expect(alone.raiseSpi(32)).toBe(-1);
    expect(tap.ledger[Count.LOST + Loss.NO_HANDLER]).toBe(1);
    expect(gic.cpus).toBe(4);
  });
});

describe('GICv2 distributor', () => {
  it('delivers to the lowest CPU in ITARGETSR', () => {
    const { bus, gic, sink } = machine(2);
    expect(bus.read32(GICD + 0xfe8) & 0xf0).toBe(0x20);
    expect(bus.read32(GICD + 4)).toBe(31 | (3 << 5));
    bus.write32(GICD, 1);
    bus.write32(GICD + 0x100 + 4, 1);
    gic.setLine(32, true);
    expect(sink.take()).toEqual([]);
    bus.write(GICD + 0x820, 1, 0b1100);
    expect(sink.take()).toEqual([[32, 2]]);
  });
});

describe('redistributors', () => {
  it('are a row that ends with Last', () => {
    const { bus } = machine(3, 3);
    const low = [0, 1, 2].map((cpu) => bus.read32(GICR + cpu * 0x20000 + 8));
    expect(low).toEqual([1, 1 | (1 << 8), 1 | (2 << 8) | 0x10]);
    expect(bus.read32(GICR + 0x20000 + 12)).toBe(1);
    expect(bus.read32(GICR + 0xffe8) & 0xf0).toBe(0x30);
    const make = (options: object) => () =>
      new Gic({ version: 2, distributor: 0, spis: 32, cpus: 1, ...options }, bus.memory, createTap());
    expect(make({ version: 3 })).toThrow('redistributors: a GICv3 needs their base address');
    expect(make({ spis: 989 })).toThrow('spis: expected 1 to 988, got 989');
    expect(make({ lpiBits: 25 })).toThrow('lpiBits: expected 14 to 24, got 25');
    expect(make({ cpus: 9 })).toThrow('cpus: expected 1 to 8, got 9');
  });

  it('wake up, and keep their table bases while LPIs are enabled', () => {
    const { bus } = machine(3, 1);
    expect(bus.read32(GICR + 0x14)).toBe(6);
    bus.write32(GICR + 0x14, 0);
    expect(bus.read32(GICR + 0x14)).toBe(0);
    bus.write32(GICR + 0x70, 0x8000_000f);
    bus.write32(GICR + 0x7c, 1 << 30);
    bus.write32(GICR, 1);
    bus.write32(GICR + 0x70, 0);
    expect(bus.read32(GICR + 0x70)).toBe(0x8000_000f | 0);
    // PTZ reads as zero.
    expect(bus.read32(GICR + 0x7c)).toBe(0);
    expect(bus.read32(GICR)).toBe(1);
  });
});
