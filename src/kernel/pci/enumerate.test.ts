import { describe, expect, it } from 'vitest';
import { FixtureConfig, FixtureFunction } from './config-fixture.ts';
import { enumeratePci } from './enumerate.ts';

function bridge(secondary: number, subordinate: number): FixtureFunction {
  const fn = new FixtureFunction(0x1b36, 0x000c);
  return fn.put(0x0e, 1, 1).allow(0x18, 3, 0xffffff).put(0x19, 1, secondary).put(0x1a, 1, subordinate);
}

describe('enumeratePci', () => {
  it('finds functions behind bridges by their bus numbers, and functions of multifunction devices', () => {
    const config = new FixtureConfig();
    config.add(0x0000, new FixtureFunction(0x1b36, 0x0008));
    config.add(0x0008, bridge(1, 2));
    config.add(0x0100, new FixtureFunction(0x8086, 0x10c9).put(0x0e, 1, 0x80));
    config.add(0x0101, new FixtureFunction(0x8086, 0x10c9));
    config.add(0x0107, new FixtureFunction(0x8086, 0x10ca));
    config.add(0x0108, bridge(2, 2));
    config.add(0x0200, new FixtureFunction(0x1234, 0x11e8));
    const found = enumeratePci(config, 0);
    expect(found.map((dev) => dev.name)).toEqual([
      '0000:00:00.0',
      '0000:00:01.0',
      '0000:01:00.0',
      '0000:01:00.1',
      '0000:01:00.7',
      '0000:01:01.0',
      '0000:02:00.0',
    ]);
    expect(found.at(-1)?.parent?.name).toBe('0000:01:01.0');
    expect(found[1]?.isBridge).toBe(true);
    expect(found[0]?.parent).toBeNull();
  });

  it('ignores functions above 0 of a device that is not multifunction', () => {
    const config = new FixtureConfig();
    config.add(0x0008, new FixtureFunction(1, 2));
    config.add(0x0009, new FixtureFunction(1, 3));
    expect(enumeratePci(config, 0).map((dev) => dev.name)).toEqual(['0000:00:01.0']);
  });

  it('gives a bridge without numbers the next bus, and ends at bridges that point at each other', () => {
    const config = new FixtureConfig();
    const fresh = config.add(0x0008, bridge(0, 0));
    config.add(0x0100, new FixtureFunction(0x1234, 0x11e8));
    config.add(0x0108, bridge(1, 1));
    const found = enumeratePci(config, 0);
    expect(found.map((dev) => dev.name)).toEqual(['0000:00:01.0', '0000:01:00.0', '0000:01:01.0']);
    expect(fresh.read(0x18, 4) & 0xffffff).toBe(0x020100);
  });

  it('sizes BARs and leaves every register as it was', () => {
    const config = new FixtureConfig();
    const fn = config.add(0x0028, new FixtureFunction(0x1234, 0x11e8));
    fn.bar(0, 0x1000_0000, 0x10_0000).bar(2, 0x80_0000_0000, 0x4000, 0xc).rom(0x1100_0000, 0x1_0000);
    fn.put(0x14, 4, 0x0000_c001).allow(0x14, 4, 0x0000_ffe0);
    fn.put(0x04, 2, 0x0003);
    const before = fn.bytes.slice();
    const [dev] = enumeratePci(config, 0);
    expect(fn.bytes).toEqual(before);
    expect(
      dev?.resources.map(({ kind, base, size, is64, prefetchable }) => [kind, base, size, is64, prefetchable]),
    ).toEqual([
      ['memory', 0x1000_0000, 0x10_0000, false, false],
      ['io', 0xc000, 0x20, false, false],
      ['memory', 0x80_0000_0000, 0x4000, true, true],
      ['memory', 0, 0, false, false],
      ['memory', 0, 0, false, false],
      ['memory', 0, 0, false, false],
      ['rom', 0x1100_0000, 0x1_0000, false, false],
    ]);
    // Decoding was off while the bases were wrong.
    const ones = fn.writes.findIndex(({ offset, value }) => offset === 0x10 && value === 0xffff_ffff);
    expect(fn.writes.slice(0, ones)).toContainEqual({ offset: 4, size: 2, value: 0 });
  });

  it('ends at capability lists that loop', () => {
    const config = new FixtureConfig();
    const fn = config.add(0, new FixtureFunction(1, 2));
    fn.capability(0x34, 0x40, 0x09).capability(0x41, 0x50, 0x05).put(0x51, 1, 0x40);
    const [dev] = enumeratePci(config, 0);
    expect(dev?.capability(0x05)).toBe(0x50);
    expect(dev?.capability(0x11)).toBe(0);
    expect(dev?.configSize).toBe(256);
  });

  it('takes 4096 bytes with PCIe, and 256 when the extended space does not answer', () => {
    const config = new FixtureConfig();
    config.add(
      0x00,
      new FixtureFunction(1, 2).capability(0x34, 0x40, 0x10).extended(0x100, 1, 0x140).extended(0x140, 0x1b, 0),
    );
    config.add(0x08, new FixtureFunction(1, 2, 256).capability(0x34, 0x40, 0x10));
    const [wide, narrow] = enumeratePci(config, 0);
    expect(wide?.configSize).toBe(4096);
    expect(wide?.extendedCapability(0x1b)).toBe(0x140);
    expect(narrow?.configSize).toBe(256);
  });
});
