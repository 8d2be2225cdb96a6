import { describe, expect, it } from 'vitest';
import { type IommuDomain, Prot } from '../../../ports/iommu.ts';
import { Count } from '../../../ports/ledger.ts';
import { Access, Status } from '../../../ports/transaction.ts';
import type { PagingDomain } from '../paging-domain.ts';
import { smmuHost } from '../testing.ts';

const SID = 0x28;
const paging = (result: PagingDomain | number): PagingDomain => {
  if (typeof result === 'number') throw new Error(`allocate: ${result}`);
  return result;
};

describe('ArmSmmuV3Driver', () => {
  it('reads the ID registers that the lab saw', () => {
    const { driver } = smmuHost({ eventQueueLog2: 19 });
    expect(driver.probe.idr).toEqual([0x0d44101b, 0x02730010, 0, 0x1414, 0, 0x74]);
    expect(driver.probe.iidr).toBe(0);
    expect(driver.probe.aidr).toBe(1);
  });

  it('refuses a stream that nobody attached, and records that its stream id is unknown', () => {
    const { driver, dma } = smmuHost();
    const records: bigint[][] = [];
    expect(dma(SID, 0x300000)).toBe(Status.FAULT);
    expect(driver.drainEvents((record) => records.push([...record]))).toBe(1);
    expect(records).toEqual([[0x0000002800000002n, 0n, 0n, 0n]]);
    // Its neighbour's attach makes the table that both share: now it aborts silently.
    expect(driver.attach(0x30, driver.identity)).toBe(0);
    expect(dma(SID, 0x300000)).toBe(Status.ABORT);
  });

  it.each([1, 2] as const)('translates through stage %i and forgets only on sync', (stage) => {
    const { context, driver, dma, pa } = smmuHost();
    const domain = paging(driver.allocate(SID, stage));
    expect(domain.apertureEnd).toBe(stage === 1 ? 2 ** 48 - 1 : 2 ** 44 - 1);
    expect(domain.pageSizes).toEqual([0x1000, 0x20_0000, 0x4000_0000]);
    expect(driver.attach(SID, domain)).toBe(0);
    expect(domain.map(0x800_0000, 0x809_0000, 0x1000, Prot.WRITE | Prot.NOEXEC | Prot.MMIO)).toBe(0);
    expect(dma(SID, 0x800_0040)).toBe(Status.OK);
    expect(pa()).toBe(0x809_0040);
    expect(domain.lookup(0x800_0123)).toBe(0x809_0123);
    expect(domain.unmap(0x800_0000, 0x1000)).toBe(0x1000);
    expect(dma(SID, 0x800_0040)).toBe(Status.OK);
    domain.sync();
    expect(dma(SID, 0x800_0040)).toBe(Status.FAULT);
    expect(context.tap.ledger[Count.FAULTS]).toBe(1);
  });

  it('records the words of the lab: a read, a write and a stage 2 fault', () => {
    const { driver, dma } = smmuHost();
    const records: bigint[][] = [];
    const s1 = paging(driver.allocate(SID, 1));
    driver.attach(SID, s1);
    dma(SID, 0x300000, Access.READ);
    dma(SID, 0x300000, Access.WRITE);
    driver.attach(SID, paging(driver.allocate(SID, 2)));
    dma(SID, 0x300000, Access.READ);
    driver.drainEvents((record) => records.push([...record]));
    expect(records).toEqual([
      [0x0000002800000010n, 0x0000020800000000n, 0x300000n, 0n],
      [0x0000002800000010n, 0x0000020000000000n, 0x300000n, 0n],
      [0x0000002800000010n, 0x0000028800000000n, 0x300000n, 0x300000n],
    ]);
  });

  it('logs events as Linux does', () => {
    const { context, driver, dma } = smmuHost();
    driver.attach(SID, paging(driver.allocate(SID)));
    dma(SID, 0x300000, Access.READ);
    driver.eventJob.run();
    expect(context.lines).toEqual([
      'arm-smmu-v3 9050000.smmuv3: event 0x10 received:',
      'arm-smmu-v3 9050000.smmuv3: \t0x0000002800000010',
      'arm-smmu-v3 9050000.smmuv3: \t0x0000020800000000',
      'arm-smmu-v3 9050000.smmuv3: \t0x0000000000300000',
      'arm-smmu-v3 9050000.smmuv3: \t0x0000000000000000',
      'arm-smmu-v3 9050000.smmuv3: event: F_TRANSLATION client: 0000:00:05.0 sid: 0x28 ssid: 0x0 iova: 0x300000 ipa: 0x0',
      'arm-smmu-v3 9050000.smmuv3: unpriv data read s1 "Input address caused fault" stag: 0x0',
    ]);
  });

  it('cannot express write-only in stage 1, and can in stage 2', () => {
    for (const [stage, expected] of [
      [1, Status.OK],
      [2, Status.FAULT],
    ] as const) {
      const { driver, dma } = smmuHost();
      const domain = paging(driver.allocate(SID, stage));
      driver.attach(SID, domain);
      domain.map(0x10000, 0x4000_0000, 0x1000, Prot.WRITE);
      expect(dma(SID, 0x10000, Access.WRITE)).toBe(Status.OK);
      expect(dma(SID, 0x10000, Access.READ)).toBe(expected);
    }
  });

  it('moves a stream between all kinds of domain', () => {
    const { driver, dma, pa, context } = smmuHost();
    const a = paging(driver.allocate(SID, 1));
    const b = paging(driver.allocate(SID, 1));
    const c = paging(driver.allocate(SID, 2));
    [a, b, c].forEach((domain, i) => {
      expect(domain.map(0x1000, 0x4000_0000 + i * 0x1000, 0x1000, Prot.READ | Prot.WRITE)).toBe(0);
    });
    const expected = new Map<IommuDomain, number | null>([
      [a, 0x4000_0000],
      [b, 0x4000_1000],
      [c, 0x4000_2000],
      [driver.identity, 0x1000],
      [driver.blocked, null],
    ]);
    const all = [...expected.keys()];
    for (const from of all) {
      for (const to of all) {
        driver.attach(SID, from);
        expect(driver.attach(SID, to)).toBe(0);
        const status = dma(SID, 0x1000);
        expect(status).toBe(expected.get(to) === null ? Status.ABORT : Status.OK);
        if (status === Status.OK) expect(pa()).toBe(expected.get(to));
      }
    }
    expect(driver.drainEvents(() => {})).toBe(0);
    driver.attach(SID, driver.blocked);
    const before = context.memory.allocated;
    for (const domain of [a, b, c]) domain.free();
    // Each had four levels of one table, stage 2 likewise: 44 bits begin at level 0.
    expect(before - context.memory.allocated).toBe(3 * 4 * 4096);
  });

  it('gives tags back, so that domains can come and go', () => {
    const { driver, context } = smmuHost();
    const before = context.memory.allocated;
    for (let i = 0; i < 300; i++) paging(driver.allocate(SID, i % 2 === 0 ? 1 : 2)).free();
    expect(context.memory.allocated).toBe(before);
    expect(paging(driver.allocate(SID, 1)).tag).toBe(1);
  });

  it('refuses what is not a mapping', () => {
    const { driver, context } = smmuHost();
    const domain = paging(driver.allocate(SID, 1));
    expect(domain.map(0x800, 0x4000_0000, 0x1000, Prot.READ)).toBe(-22);
    expect(domain.map(0x1000, 0x4000_0000, 0x1000, 0)).toBe(-22);
    expect(domain.map(2 ** 48, 0x4000_0000, 0x1000, Prot.READ)).toBe(-34);
    expect(domain.map(0x1000, 2 ** 44, 0x1000, Prot.READ)).toBe(-34);
    expect(domain.map(0x1000, 0x4000_0000, 0x3000, Prot.READ)).toBe(0);
    expect(domain.map(0x0, 0x4000_0000, 0x2000, Prot.READ)).toBe(-17);
    expect(domain.lookup(0)).toBe(-1);
    expect(domain.lookup(0x1000)).toBe(0x4000_0000);
    context.refusals.last = null;
    expect(smmuHost({ stage2: false }).driver.allocate(SID, 2)).toBe(-95);
    expect(smmuHost().driver.attach(SID, domain)).toBe(-22);
  });
});
