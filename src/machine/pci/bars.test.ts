import { describe, expect, it } from 'vitest';
import type { BarSpec, Registers } from '../../ports/pci.ts';
import { ALL_ON, barBase, IO, MMIO32, MMIO64, rig, single, TestModel } from './testing/rig.ts';

const COMMAND = 0x04;
const BAR0 = 0x10;

/** What software reads after writing all ones: PCI 3.0 section 6.2.5.1. */
const sizing: readonly {
  readonly what: string;
  readonly bar: BarSpec;
  readonly low: number;
  readonly high: number | null;
}[] = [
  { what: '16 bytes, 32 bit', bar: { type: 'memory32', size: 16 }, low: 0xffff_fff0, high: null },
  { what: '4 KiB, 32 bit', bar: { type: 'memory32', size: 4096 }, low: 0xffff_f000, high: null },
  { what: '2 GiB, 32 bit', bar: { type: 'memory32', size: 2 ** 31 }, low: 0x8000_0000, high: null },
  {
    what: '1 MiB, 32 bit, prefetchable',
    bar: { type: 'memory32', prefetchable: true, size: 2 ** 20 },
    low: 0xfff0_0008,
    high: null,
  },
  { what: '64 KiB, 64 bit', bar: { type: 'memory64', size: 2 ** 16 }, low: 0xffff_0004, high: 0xffff_ffff },
  {
    what: '256 MiB, 64 bit, prefetchable',
    bar: { type: 'memory64', prefetchable: true, size: 2 ** 28 },
    low: 0xf000_000c,
    high: 0xffff_ffff,
  },
  {
    what: '4 GiB, 64 bit, prefetchable',
    bar: { type: 'memory64', prefetchable: true, size: 2 ** 32 },
    low: 0x0000_000c,
    high: 0xffff_ffff,
  },
  {
    what: '16 GiB, 64 bit, prefetchable',
    bar: { type: 'memory64', prefetchable: true, size: 2 ** 34 },
    low: 0x0000_000c,
    high: 0xffff_fffc,
  },
  { what: '4 ports', bar: { type: 'io', size: 4 }, low: 0xffff_fffd, high: null },
  { what: '256 ports', bar: { type: 'io', size: 256 }, low: 0xffff_ff01, high: null },
];

describe('the size of a BAR is what stays zero after all ones', () => {
  for (const { what, bar, low, high } of sizing) {
    it(what, () => {
      const model = new TestModel({ bars: [bar] });
      const { root } = rig();
      const fn = root.addFunction(root.rootBus, 8, model);
      fn.configWrite(BAR0, 4, 0xffff_ffff);
      expect(fn.configRead(BAR0, 4)).toBe(low);
      fn.configWrite(BAR0 + 4, 4, 0xffff_ffff);
      expect(fn.configRead(BAR0 + 4, 4)).toBe(high ?? 0);
    });
  }

  it('a ROM of 64 KiB, with its enable bit', () => {
    const { fn } = single({ rom: { size: 0x1_0000, image: Uint8Array.of(0x55, 0xaa) } });
    fn.configWrite(0x30, 4, 0xffff_ffff);
    expect(fn.configRead(0x30, 4)).toBe(0xffff_0001);
    fn.configWrite(0x30, 4, 0xffff_fffe);
    expect(fn.configRead(0x30, 4)).toBe(0xffff_0000);
  });
});

const recorder = () => {
  const log: string[] = [];
  const registers: Registers = {
    read: (offset, size) => {
      log.push(`r${size}@${offset.toString(16)}`);
      return 0x1122_3344;
    },
    write: (offset, size, value) => void log.push(`w${size}@${offset.toString(16)}=${(value >>> 0).toString(16)}`),
  };
  return { log, registers };
};

describe('COMMAND', () => {
  it('memory decode maps the memory BARs and the enabled ROM, and unmaps them again', () => {
    const { log, registers } = recorder();
    const { fn, bus } = single({
      bars: [{ type: 'memory32', size: 4096, ranges: [{ kind: 'registers', offset: 0x100, size: 0x100, registers }] }],
      rom: { size: 2048, image: Uint8Array.of(0x55, 0xaa) },
    });
    const base = fn.configRead(BAR0, 4);
    expect(base).toBe(MMIO32);
    expect(bus.read32(base + 0x104)).toBe(-1);
    fn.configWrite(COMMAND, 2, 0x2);
    expect(bus.read32(base + 0x104)).toBe(0x1122_3344);
    bus.write(base + 0x1fe, 2, 0xbeef);
    expect(log).toEqual(['r4@104', 'w2@1fe=beef']);
    expect(bus.read32(base + 0x200)).toBe(0);
    const rom = fn.configRead(0x30, 4);
    expect(bus.read32(rom)).toBe(-1);
    fn.configWrite(0x30, 4, rom | 1);
    expect(bus.read(rom, 4)).toBe(0xffff_aa55 | 0);
    fn.configWrite(COMMAND, 2, 0);
    expect(bus.claimant(base)).toBeNull();
    expect(bus.claimant(rom)).toBeNull();
  });

  it('I/O decode maps ports into the I/O window, memory decode does not', () => {
    const { log, registers } = recorder();
    const { fn, bus } = single({
      bars: [{ type: 'io', size: 32, ranges: [{ kind: 'registers', offset: 0, size: 32, registers }] }],
    });
    const port = fn.configRead(BAR0, 4) & ~3;
    fn.configWrite(COMMAND, 2, 0x2);
    expect(bus.claimant(IO + port)).toBeNull();
    fn.configWrite(COMMAND, 2, 0x1);
    bus.write(IO + port + 4, 1, 0x7f);
    expect(log).toEqual(['w1@4=7f']);
  });

  it('an address written while decoding moves the window', () => {
    const { fn, bus } = single({
      bars: [{ type: 'memory64', prefetchable: true, size: 4096, ranges: [{ kind: 'memory', offset: 0, size: 4096 }] }],
    });
    fn.configWrite(COMMAND, 2, ALL_ON);
    expect(barBase(fn, 0)).toBe(MMIO64);
    bus.write32(MMIO64 + 8, 0x5a5a);
    fn.configWrite(BAR0, 4, 0x0123_4000);
    expect(bus.claimant(MMIO64)).toBeNull();
    expect(bus.read32((MMIO64 / 2 ** 32) * 2 ** 32 + 0x0123_4008)).toBe(0x5a5a);
    expect(fn.barMemory(0, 8, 4)).toEqual(Uint8Array.of(0x5a, 0x5a, 0, 0));
  });

  it('two BARs at one address: the first keeps it, and nothing breaks', () => {
    const { fn, bus } = single({
      bars: [
        { type: 'memory32', size: 4096 },
        { type: 'memory32', size: 4096 },
      ],
    });
    fn.configWrite(BAR0 + 4, 4, fn.configRead(BAR0, 4));
    fn.configWrite(COMMAND, 2, 0x2);
    expect(bus.claimant(MMIO32)).toBe('test BAR 0');
    expect(fn.bars.windows[1]!.decoded).toBe(false);
  });

  it('D3hot takes decoding and bus mastering away, D0 gives them back', () => {
    const { fn, bus } = single({ powerManagement: true, bars: [{ type: 'memory32', size: 4096 }] });
    fn.configWrite(COMMAND, 2, ALL_ON);
    fn.configWrite(0x44, 2, 3);
    expect(bus.claimant(MMIO32)).toBeNull();
    expect(fn.mayIssue).toBe(false);
    fn.configWrite(0x44, 2, 0);
    expect(bus.claimant(MMIO32)).toBe('test BAR 0');
    expect(fn.mayIssue).toBe(true);
    fn.configWrite(0x44, 2, 1);
    expect(fn.configRead(0x44, 2) & 3).toBe(0);
  });
});

describe('a declaration that cannot be is refused, naming the field', () => {
  const refused: readonly [string, ConstructorParameters<typeof TestModel>[0], RegExp][] = [
    ['size no power of two', { bars: [{ type: 'memory32', size: 3000 }] }, /bars\[0\]\.size/],
    [
      '64 bit in the last register',
      { bars: [null, null, null, null, null, { type: 'memory64', size: 4096 }] },
      /bars\[5\]/,
    ],
    [
      '64 bit before a taken register',
      {
        bars: [
          { type: 'memory64', size: 4096 },
          { type: 'io', size: 4 },
        ],
      },
      /bars\[0\]/,
    ],
    [
      'a range beyond the BAR',
      { bars: [{ type: 'memory32', size: 16, ranges: [{ kind: 'memory', offset: 8, size: 16 }] }] },
      /bars\[0\]\.ranges/,
    ],
    ['3 MSI messages', { msi: { vectors: 3 } }, /msi\.vectors/],
    [
      '2,049 vectors',
      {
        bars: [{ type: 'memory32', size: 2 ** 17 }],
        msix: { vectors: 2049, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 0x1_0000 } },
      },
      /msix\.vectors.*2049/,
    ],
    [
      'a table beyond its BAR',
      {
        bars: [{ type: 'memory32', size: 4096 }],
        msix: { vectors: 256, table: { bar: 0, offset: 8 }, pba: { bar: 0, offset: 0 } },
      },
      /msix\.table\.offset/,
    ],
    [
      'pending bits in the table',
      {
        bars: [{ type: 'memory32', size: 4096 }],
        msix: { vectors: 2, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 24 } },
      },
      /msix\.pba\.offset/,
    ],
    ['pin 5', { interruptPin: 5 }, /interruptPin/],
    ['100 captured bytes', { captured: new Uint8Array(100) }, /captured/],
  ];
  for (const [what, spec, message] of refused) {
    it(what, () => {
      const { root } = rig();
      expect(() => root.addFunction(root.rootBus, 8, new TestModel(spec))).toThrow(message);
    });
  }
});
