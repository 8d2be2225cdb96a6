import { describe, expect, it } from 'vitest';
import { testContext } from '../test-context.ts';
import { SW_MSI_PAGES, type SwMsiMap, SwMsiTable } from './sw-msi.ts';
import { CdevLab } from './testing-machine.ts';

const WINDOW = 0x800_0000n;
const free = () => false;

describe('the table of an open /dev/iommu', () => {
  it('knows a doorbell by its page, and gives the window’s pages one after the other', () => {
    const table = new SwMsiTable(testContext());
    const iova = (doorbell: number, start = WINDOW) => (table.get(start, doorbell, free) as SwMsiMap).iova;
    expect([iova(0x809_0040), iova(0x80b_0040), iova(0x809_0fff)]).toEqual([0x800_0000, 0x800_1000, 0x800_0000]);
    expect(iova(0x809_0040, 0x1_0000_0000n)).toBe(0x1_0000_0000);
    expect(iova(0x80d_0040)).toBe(0x800_2000);
    expect(table.all.map(({ id }) => id)).toEqual([0, 1, 2, 3]);
  });

  it('steps over what a user’s doorbell has', () => {
    const table = new SwMsiTable(testContext());
    const taken = (iova: number) => iova < 0x800_2000;
    expect(table.get(WINDOW, 0x809_0040, taken)).toMatchObject({ iova: 0x800_2000 });
    expect(table.get(WINDOW, 0x80b_0040, free)).toMatchObject({ iova: 0x800_3000 });
  });

  it('has 64 pages: the 65th is EOVERFLOW, the 64 stay', () => {
    const context = testContext();
    const table = new SwMsiTable(context);
    expect(SW_MSI_PAGES).toBe(64);
    for (let i = 0; i < 64; i += 1)
      expect(table.get(WINDOW, 0x1000_0000 + i * 0x1_0000, free)).toMatchObject({ id: i });
    expect(table.get(WINDOW, 0x2000_0000, free)).toBe(-75);
    expect(context.refusals.last?.code).toBe('EOVERFLOW');
    expect(table.get(WINDOW, 0x1000_0040, free)).toMatchObject({ id: 0, iova: 0x800_0000 });
  });
});

describe('two ITSs', () => {
  const machine = {
    interrupts: {
      type: 'gic' as const,
      version: 3 as const,
      distributor: 0x5000_0000,
      redistributors: 0x5010_0000,
      its: [{ base: 0x5080_0000 }, { base: 0x50a0_0000, devices: ['0000:02:00.0'] }],
    },
  };

  it('take two pages of the window; only what a group needs is mapped for it, and goes along (G7)', () => {
    const lab = new CdevLab('arm-its', { machine });
    const { iommufd, devices } = lab;
    const [a, b, c] = [iommufd.ioas(), iommufd.ioas(), iommufd.ioas()];
    for (const n of [0, 1]) lab.bind(n);
    iommufd.attach(devices[0]!, a);
    iommufd.attach(devices[1]!, b);
    lab.enable(0, 1);
    const { rung } = lab.enable(1, 1);
    expect([lab.message(0, 0)[0], lab.message(1, 0)[0]]).toEqual([0x800_0040, 0x800_1040]);
    expect([lab.lookup(0, 0x800_1040), lab.lookup(1, 0x800_0040)]).toEqual([-1, -1]);
    iommufd.attach(devices[1]!, c);
    expect([lab.lookup(1, 0x800_0040), lab.lookup(1, 0x800_1040)]).toEqual([-1, 0x50a1_0040]);
    lab.ring(1, 0);
    expect(rung()).toEqual([1]);
    // In one table both stand, each installed by its group.
    iommufd.attach(devices[0]!, c);
    expect([lab.lookup(0, 0x800_0040), lab.lookup(0, 0x800_1040)]).toEqual([0x5081_0040, 0x50a1_0040]);
  });
});
