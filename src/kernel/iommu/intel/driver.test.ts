import { describe, expect, it } from 'vitest';
import { hi32, lo32, pack, word64 } from '../../../arch/bits.ts';
import { CCMD, IOTLB } from '../../../arch/vtd/registers.ts';
import { type IommuDomain, Prot } from '../../../ports/iommu.ts';
import { Count } from '../../../ports/ledger.ts';
import { Access, Status } from '../../../ports/transaction.ts';
import type { PagingDomain } from '../paging-domain.ts';
import { vtdHost } from '../testing.ts';

const SID = 0x28;
const RW = Prot.READ | Prot.WRITE;
const paging = (result: PagingDomain | number): PagingDomain => {
  if (typeof result === 'number') throw new Error(`allocate: ${result}`);
  return result;
};

function attached(changes: Parameters<typeof vtdHost>[0] = {}) {
  const host = vtdHost(changes);
  const domain = paging(host.driver.allocate(SID));
  expect(host.driver.attach(SID, domain)).toBe(0);
  return { ...host, domain };
}

describe('IntelVtdDriver', () => {
  it('offers what the lab saw of the second level: widths, large pages, queue, one fault register', () => {
    const { driver } = vtdHost();
    // MGAW 47, SAGAW 39 and 48 bits, FRO 0x22, SLLPS 3, PSI, MAMV 18, DWD, DRD, ND 6.
    expect(driver.cap).toBe(0x00d2008c226f0606n);
    // QI, PT, IRO 0xf, MHMV 15; without interrupt remapping.
    expect(driver.ecap).toBe(0xf00f42n);
    expect(driver.reservedRegions(SID)).toEqual([{ start: 0xfee0_0000, end: 0xfeef_ffff, type: 'msi' }]);
  });

  it('translates, and forgets only on sync', () => {
    const { domain, dma, pa } = attached();
    expect([domain.apertureEnd, domain.pageSizes]).toEqual([2 ** 48 - 1, [0x1000, 0x20_0000, 0x4000_0000]]);
    expect(domain.map(0x12_3456_7000, 0x4000_5000, 0x1000, RW)).toBe(0);
    expect(dma(SID, 0x12_3456_7abc)).toBe(Status.OK);
    expect(pa()).toBe(0x4000_5abc);
    expect(domain.unmap(0x12_3456_7000, 0x1000)).toBe(0x1000);
    expect(dma(SID, 0x12_3456_7abc)).toBe(Status.OK);
    domain.sync();
    expect(dma(SID, 0x12_3456_7abc)).toBe(Status.FAULT);
  });

  it('uses three levels of 39 bits where the unit has no more', () => {
    const { domain, dma } = attached({ addressWidth: 39 });
    expect(domain.apertureEnd).toBe(2 ** 39 - 1);
    expect(domain.map(2 ** 39 - 0x1000, 0x4000_0000, 0x1000, RW)).toBe(0);
    expect(dma(SID, 2 ** 39 - 0x1000)).toBe(Status.OK);
    expect(domain.map(2 ** 39, 0x4000_0000, 0x1000, RW)).toBe(-34);
    expect(dma(SID, 2 ** 39)).toBe(Status.FAULT);
  });

  it('records faults as the lab’s log shows them, one at a time', () => {
    const { context, driver, dma } = attached();
    expect(dma(SID, 0x30_0010, Access.READ)).toBe(Status.FAULT);
    // The register still holds the first.
    expect(dma(SID, 0x30_0010, Access.WRITE)).toBe(Status.FAULT);
    expect(context.tap.ledger[Count.FAULTS]).toBe(1);
    expect(context.tap.ledger[Count.FAULTS_OVERFLOWED]).toBe(1);
    driver.eventJob.run();
    expect(dma(SID, 0x30_0010, Access.WRITE)).toBe(Status.FAULT);
    driver.eventJob.run();
    // PPF, and PFO of the one that found no room.
    expect(context.lines).toEqual([
      'DMAR: DRHD: handling fault status reg 3',
      'DMAR: [DMA Read NO_PASID] Request device [0000:00:05.0] fault addr 0x300000 [fault reason 0x06] PTE Read access is not set',
      'DMAR: DRHD: handling fault status reg 2',
      'DMAR: [DMA Write NO_PASID] Request device [0000:00:05.0] fault addr 0x300000 [fault reason 0x05] PTE Write access is not set',
    ]);
    expect(driver.drainEvents(() => {})).toBe(0);
  });

  it('writes the record’s words as the specification lays them out', () => {
    const { driver, dma } = attached();
    const records: bigint[][] = [];
    dma(SID, 0x30_0010, Access.READ);
    driver.drainEvents((record) => records.push([...record]));
    // FI 0x300000; F 127, T1 126 (read), FR 103:96 = 6, SID 79:64 = 0x28.
    expect(records).toEqual([[0x300000n, 0xc000000600000028n]]);
  });

  it('can express write-only, which Arm’s stage 1 cannot', () => {
    const { domain, dma } = attached();
    domain.map(0x1000, 0x4000_0000, 0x1000, Prot.WRITE);
    expect(dma(SID, 0x1000, Access.WRITE)).toBe(Status.OK);
    expect(dma(SID, 0x1000, Access.READ)).toBe(Status.FAULT);
    domain.map(0x2000, 0x4000_0000, 0x1000, Prot.READ);
    expect(dma(SID, 0x2000, Access.READ)).toBe(Status.OK);
    expect(dma(SID, 0x2000, Access.WRITE)).toBe(Status.FAULT);
  });

  it('never translates the interrupt range, whatever is attached and mapped', () => {
    const { driver, domain, dma, pa, context } = attached();
    domain.map(0xfee0_0000, 0x4000_0000, 0x1000, RW);
    for (const to of [domain, driver.identity, driver.blocked]) {
      driver.attach(SID, to);
      expect(dma(SID, 0xfee0_0218)).toBe(Status.OK);
      expect(pa()).toBe(0xfee0_0218);
      expect(dma(SID, 0xfeef_fffc)).toBe(Status.OK);
    }
    expect(dma(SID, 0xfed0_0000)).toBe(Status.FAULT);
    expect(dma(SID, 0xfef0_0000)).toBe(Status.FAULT);
    expect(context.tap.ledger[Count.FAULTS] + context.tap.ledger[Count.FAULTS_OVERFLOWED]).toBe(2);
  });

  it('moves a source between all kinds of domain', () => {
    const { driver, dma, pa } = vtdHost();
    const a = paging(driver.allocate(SID));
    const b = paging(driver.allocate(SID));
    a.map(0x1000, 0x4000_0000, 0x1000, RW);
    b.map(0x1000, 0x4000_1000, 0x1000, RW);
    const expected = new Map<IommuDomain, number | null>([
      [a, 0x4000_0000],
      [b, 0x4000_1000],
      [driver.identity, 0x1000],
      [driver.blocked, null],
    ]);
    for (const from of expected.keys()) {
      for (const [to, where] of expected) {
        driver.attach(SID, from);
        dma(SID, 0x1000);
        expect(driver.attach(SID, to)).toBe(0);
        expect(dma(SID, 0x1000)).toBe(where === null ? Status.FAULT : Status.OK);
        if (where !== null) expect(pa()).toBe(where);
      }
    }
  });

  it('says why a source has no context', () => {
    const { driver, dma, vtd, tx, context } = vtdHost();
    const reason = () => {
      const outcome = vtd.explain(tx);
      return outcome.kind === 'fault' ? outcome.record.id : outcome.kind;
    };
    dma(SID, 0x1000);
    expect(reason()).toBe(0x1);
    driver.attach(0x30, driver.identity);
    dma(SID, 0x1000);
    expect(reason()).toBe(0x2);
    driver.attach(SID, driver.identity);
    dma(SID, 0x1000);
    expect(reason()).toBe('bypass');
    // Translation type 1 needs device TLBs; the cached entry survives until it is invalidated.
    const at = driver.entryOf(SID);
    context.memory.write32(at, (context.memory.read32(at) & ~0xc) | 0x4);
    expect(reason()).toBe('bypass');
    driver.attach(SID, driver.identity);
    context.memory.write32(at, (context.memory.read32(at) & ~0xc) | 0x4);
    dma(SID, 0x1000);
    expect(reason()).toBe(0x3);
  });

  it('a page table entry corrupted in memory loses that page alone, once it is invalidated', () => {
    const { domain, dma, context, vtd, tx } = attached();
    domain.map(0x10_0000, 0x4000_0000, 0x3000, RW);
    for (const page of [0, 1, 2]) expect(dma(SID, 0x10_0000 + page * 0x1000)).toBe(Status.OK);
    dma(SID, 0x10_1000);
    const outcome = vtd.explain(tx);
    if (outcome.kind !== 'translated') throw new Error(outcome.kind);
    expect(outcome.steps.map((step) => step.level)).toEqual([0, 1, 2, 3]);
    const { at } = outcome.steps[3];
    context.memory.write64(at, 0, 0);
    expect(dma(SID, 0x10_1000)).toBe(Status.OK);
    domain.unmap(0x10_1000, 0x1000);
    domain.sync();
    context.bus.write32(0xfed9_0000 + 0xf8, 0);
    context.bus.write32(0xfed9_0000 + 0xfc, hi32(pack(IOTLB, 1, { IVT: 1, IIRG: 1 })[0]));
    expect([0, 1, 2].map((page) => dma(SID, 0x10_0000 + page * 0x1000))).toEqual([Status.OK, Status.FAULT, Status.OK]);
  });

  it('registers invalidate what the queue does, and report it done', () => {
    const { driver, domain, dma, context } = attached();
    const { bus } = context;
    const base = 0xfed9_0000;
    domain.map(0x1000, 0x4000_0000, 0x2000, RW);
    dma(SID, 0x1000);
    dma(SID, 0x2000);
    const at = driver.entryOf(SID);
    const held = word64(context.memory.read32(at), context.memory.read32(at + 4));
    context.memory.write32(at, 0);
    expect(dma(SID, 0x1000)).toBe(Status.OK);
    const ccmd = pack(CCMD, 1, { ICC: 1, CIRG: 3, SID, DID: domain.tag })[0];
    bus.write32(base + 0x28, lo32(ccmd));
    bus.write32(base + 0x2c, hi32(ccmd));
    // ICC is clear again; CIRG still says what was asked for, CAIG what was done.
    expect(bus.read32(base + 0x2c) >>> 27).toBe(0b01111);
    expect(dma(SID, 0x1000)).toBe(Status.FAULT);
    context.memory.write64(at, lo32(held), hi32(held));
    // One page of two.
    domain.unmap(0x1000, 0x2000);
    bus.write32(base + 0xf0, 0x2000);
    bus.write32(base + 0xf4, 0);
    const iotlb = pack(IOTLB, 1, { IVT: 1, IIRG: 3, DID: domain.tag })[0];
    bus.write32(base + 0xf8, lo32(iotlb));
    bus.write32(base + 0xfc, hi32(iotlb));
    expect([dma(SID, 0x1000), dma(SID, 0x2000)]).toEqual([Status.OK, Status.FAULT]);
    domain.sync();
    expect(dma(SID, 0x1000)).toBe(Status.FAULT);
  });

  it('goes on behind a descriptor that the unit does not know', () => {
    const { driver, context } = vtdHost();
    // Without interrupt remapping, descriptor type 4 is none.
    driver.flushInterruptEntries(-1, 0);
    expect(context.lines).toEqual(['DMAR: VT-d detected Invalidation Queue Error: type 4']);
    const domain = paging(driver.allocate(SID));
    domain.free();
    expect(context.lines).toHaveLength(1);
  });

  it('frees everything that a domain took', () => {
    const { driver, context } = vtdHost();
    const before = context.memory.allocated;
    const domain = paging(driver.allocate(SID));
    domain.map(0, 0x4000_0000, 0x40_0000, RW);
    domain.map(0x7f_ffff_f000, 0x4000_0000, 0x1000, RW);
    domain.free();
    expect(context.memory.allocated).toBe(before);
  });
});
