import { describe, expect, it } from 'vitest';
import { FixtureConfig, FixtureFunction } from '../pci/config-fixture.ts';
import { enumeratePci } from '../pci/enumerate.ts';
import { testContext } from '../test-context.ts';
import { probeMmaps, regionIndex, regionOffset, regionPosition } from './regions.ts';
import { VfioPciState } from './state.ts';
import { FakeIrqs } from './testing/fake-irqs.ts';

function mappable(
  pageSize: number,
  own: readonly [base: number, size: number][],
  other: readonly [base: number, size: number][],
): boolean[] {
  const config = new FixtureConfig();
  const fn = config.add(0x28, new FixtureFunction(1, 2));
  for (const [index, [base, size]] of own.entries()) fn.bar(index, base, size);
  const neighbour = config.add(0x30, new FixtureFunction(1, 3));
  for (const [index, [base, size]] of other.entries()) neighbour.bar(index, base, size);
  const devices = enumeratePci(config, 0);
  const state = new VfioPciState(testContext({ pageSize }), devices[0]!, new FakeIrqs());
  probeMmaps(state, devices);
  return state.mmapSupported.slice(0, own.length);
}

describe('probeMmaps (vfio_pci_probe_mmaps)', () => {
  it('a BAR of a page or more is mappable, whatever its address', () => {
    expect(
      mappable(
        0x1000,
        [
          [0x1000_0000, 0x1000],
          [0x1000_4000, 0x4000],
        ],
        [],
      ),
    ).toEqual([true, true]);
  });

  it('a smaller one only at the start of a page', () => {
    expect(mappable(0x1000, [[0x1000_0000, 0x100]], [])).toEqual([true]);
    expect(mappable(0x1000, [[0x1000_0100, 0x100]], [])).toEqual([false]);
  });

  it('not when a BAR of its own or of another function lies in the rest of the page', () => {
    expect(
      mappable(
        0x1000,
        [
          [0x1000_0000, 0x100],
          [0x1000_0800, 0x100],
        ],
        [],
      ),
    ).toEqual([false, false]);
    expect(mappable(0x1000, [[0x1000_0000, 0x100]], [[0x1000_0200, 0x200]])).toEqual([false]);
    expect(mappable(0x1000, [[0x1000_0000, 0x100]], [[0x1000_1000, 0x200]])).toEqual([true]);
  });

  it('counts in the kernel’s pages: 4 KiB is small for 64 KiB', () => {
    expect(mappable(0x1_0000, [[0x1000_0000, 0x1000]], [[0x1000_8000, 0x1000]])).toEqual([false]);
    expect(mappable(0x1_0000, [[0x1000_1000, 0x1000]], [])).toEqual([false]);
  });
});

describe('offsets', () => {
  it('split at 40 bits, exactly', () => {
    expect(regionOffset(8)).toBe(0x800_0000_0000);
    expect([regionIndex(0x7ff_ffff_ffff), regionPosition(0x7ff_ffff_ffff)]).toEqual([7, 0xff_ffff_ffff]);
  });
});
