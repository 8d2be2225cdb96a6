import { describe, expect, it } from 'vitest';
import { getNumber, word64 } from '../../../arch/bits.ts';
import { decodeEvent, Event } from '../../../arch/smmuv3/events.ts';
import { S1Dss, S1Fmt, STE } from '../../../arch/smmuv3/ste.ts';
import { type IommuDomain, Prot } from '../../../ports/iommu.ts';
import { Status } from '../../../ports/transaction.ts';
import { NestedDomain } from '../nested-domain.ts';
import type { PagingDomain } from '../paging-domain.ts';
import { type SmmuHost, smmuHost } from '../testing.ts';

const SID = 0x28;
const IOVA = 0x1000;
const RAM = 0x4000_0000;

/** A host whose stream has `bits` of PASIDs, and domains that map IOVA to pages of their own. */
function pasidHost(bits: number, ssidBits = 20) {
  const host = smmuHost({ ssidBits, eventQueueLog2: 7 });
  host.driver.enablePasids(SID, bits);
  let made = 0;
  const stage1 = (): PagingDomain => {
    const domain = host.driver.allocate(SID, 1);
    if (typeof domain === 'number') throw new Error(`allocate: ${domain}`);
    domain.map(IOVA, pageOf(made), 0x1000, Prot.READ | Prot.WRITE);
    made += 1;
    return domain;
  };
  return { ...host, stage1 };
}

const pageOf = (index: number): number => RAM + index * 0x1000;

/** Where a DMA goes: an address, or the name of what the SMMU says. -1: without a PASID. */
function reach({ driver, tx, dma, pa }: SmmuHost, pasid: number): number | string {
  tx.ssid = pasid;
  const status = dma(SID, IOVA);
  if (status === Status.OK) return pa();
  if (status === Status.ABORT) return 'abort';
  let name = 'no event';
  driver.drainEvents((record) => {
    const { id, substreamId } = decodeEvent(record);
    expect(substreamId).toBe(pasid);
    name = Object.entries(Event).find(([, value]) => value === id)![0];
  });
  return name;
}

const entryWords = ({ context, driver }: SmmuHost): bigint[] => {
  const at = driver.entryOf(SID);
  return [0, 1].map((i) => word64(context.memory.read32(at + i * 8), context.memory.read32(at + i * 8 + 4)));
};

describe('substreams of the SMMU', () => {
  it.each([
    [1, S1Fmt.LINEAR, 2, 'C_BAD_SUBSTREAMID'],
    [10, S1Fmt.LINEAR, 5, 'C_BAD_CD'],
    [11, S1Fmt.TWO_LEVEL_64K, 5, 'C_BAD_CD'],
    [11, S1Fmt.TWO_LEVEL_64K, 2048, 'C_BAD_SUBSTREAMID'],
    [20, S1Fmt.TWO_LEVEL_64K, 5000, 'C_BAD_SUBSTREAMID'],
  ])('%i bits: table, its format %i, and what %i is, %s', (bits, format, missing, event) => {
    const host = pasidHost(bits);
    const { driver, stage1 } = host;
    const last = 2 ** bits - 1;
    const [own, named] = [stage1(), stage1()];
    expect(driver.attach(SID, own)).toBe(0);
    expect(driver.setPasid(SID, last, named)).toBe(0);
    const entry = entryWords(host);
    expect([STE.S1CDMax, STE.S1Fmt, STE.S1DSS].map((field) => getNumber(entry, field))).toEqual([
      bits,
      format,
      S1Dss.SSID0,
    ]);
    expect([reach(host, -1), reach(host, last)]).toEqual([pageOf(0), pageOf(1)]);
    // Descriptor 0 is of what has no substream id (IHI 0070 5.2, S1DSS).
    expect([reach(host, 0), reach(host, missing)]).toEqual(['F_STREAM_DISABLED', event]);
    expect(driver.setPasid(SID, last, driver.blocked)).toBe(0);
    expect(reach(host, last)).toBe('C_BAD_CD');
    expect(reach(host, -1)).toBe(pageOf(0));
  });

  it('is refused beyond what the function and the SMMU have together', () => {
    const { driver, stage1, context } = pasidHost(8, 4);
    expect([driver.maxPasids, smmuHost().driver.maxPasids]).toEqual([16, 1]);
    expect(driver.setPasid(SID, 15, stage1())).toBe(0);
    expect(driver.setPasid(SID, 16, stage1())).toBe(-22);
    expect(context.refusals.last?.why).toContain('PASID 16 is not below 2^4');
  });

  it('what has no PASID keeps what it had: refused, passed, translated', () => {
    const host = pasidHost(4);
    const { driver, stage1, context } = host;
    const own = stage1();
    const named = stage1();
    driver.attach(SID, driver.blocked);
    const before = context.memory.allocated;
    const steps: [IommuDomain, number | string, number, number | string][] = [
      // Domain, with PASIDs in use, S1DSS, without.
      [driver.blocked, 'F_STREAM_DISABLED', S1Dss.TERMINATE, 'abort'],
      [driver.identity, IOVA, S1Dss.BYPASS, IOVA],
      [own, pageOf(0), S1Dss.SSID0, pageOf(0)],
    ];
    for (const [domain, during, dss, without] of steps) {
      expect(driver.attach(SID, domain)).toBe(0);
      expect(driver.setPasid(SID, 3, named)).toBe(0);
      expect([reach(host, -1), reach(host, 3)]).toEqual([during, pageOf(1)]);
      expect(getNumber(entryWords(host), STE.S1DSS)).toBe(dss);
      driver.setPasid(SID, 3, driver.blocked);
      expect(reach(host, -1)).toBe(without);
      // And from each to each other while the PASID is there.
      driver.setPasid(SID, 3, named);
      for (const [next, reached] of steps) {
        driver.attach(SID, domain);
        expect(driver.attach(SID, next)).toBe(0);
        expect([reach(host, -1), reach(host, 3)]).toEqual([reached, pageOf(1)]);
      }
      driver.setPasid(SID, 3, driver.blocked);
      driver.attach(SID, driver.blocked);
      expect(context.memory.allocated).toBe(before);
    }
  });

  it('no stage 2 and no nested stage 1 beside PASIDs, and no stage 2 for a PASID', () => {
    const { driver, stage1, context } = pasidHost(4);
    const stage2 = driver.allocate(SID, 2) as PagingDomain;
    const nested = new NestedDomain(context, stage2, [0n, 0n]);
    driver.attach(SID, driver.blocked);
    expect(driver.setPasid(SID, 1, stage2)).toBe(-22);
    expect(driver.setPasid(SID, 1, driver.identity)).toBe(-22);
    expect(driver.setPasid(0x99, 1, stage1())).toBe(-22);
    for (const other of [stage2, nested]) {
      expect(driver.setPasid(SID, 1, stage1())).toBe(0);
      expect(driver.attach(SID, other)).toBe(-16);
      expect(driver.setPasid(SID, 1, driver.blocked)).toBe(0);
      expect(driver.attach(SID, other)).toBe(0);
      expect(driver.setPasid(SID, 1, stage1())).toBe(-22);
      driver.attach(SID, driver.blocked);
    }
  });

  it('no memory for descriptors changes nothing', () => {
    const host = pasidHost(20);
    const { driver, stage1, context } = host;
    const [own, named] = [stage1(), stage1()];
    driver.attach(SID, driver.identity);
    const { memory } = context;
    const taken: number[] = [];
    for (let at = memory.allocate(0x1_0000); at !== null; at = memory.allocate(0x1_0000)) taken.push(at);
    expect(driver.setPasid(SID, 5, named)).toBe(-12);
    expect(driver.attach(SID, own)).toBe(-12);
    expect([reach(host, -1), driver.domainOf(SID)]).toEqual([IOVA, driver.identity]);
    for (const at of taken) memory.free(at, 0x1_0000);
    expect(driver.setPasid(SID, 5, named)).toBe(0);
    expect([reach(host, -1), reach(host, 5)]).toEqual([IOVA, pageOf(1)]);
  });

  it.each([4, 12])('a replace under fire, %i bits: every access finds the old page or the new one', (bits) => {
    const host = pasidHost(bits);
    const { driver, stage1, context } = host;
    const domains = [stage1(), stage1(), stage1(), stage1()];
    driver.attach(SID, domains[0]!);
    driver.setPasid(SID, 1, domains[2]!);
    driver.setPasid(SID, 2, domains[3]!);
    let looked = 0;
    const { memory } = context;
    const write = memory.write64.bind(memory);
    const pages = (pasid: number): number[] => (pasid === 2 ? [3] : pasid === 1 ? [2, 1] : [0, 1]).map(pageOf);
    memory.write64 = (pa, lo, hi) => {
      const there = write(pa, lo, hi);
      for (const pasid of [-1, 1, 2]) expect(pages(pasid)).toContain(reach(host, pasid));
      looked += 1;
      return there;
    };
    for (let i = 0; i < 6; i++) {
      expect(driver.attach(SID, domains[(i + 1) % 2]!)).toBe(0);
      expect(reach(host, -1)).toBe(pageOf((i + 1) % 2));
      expect(driver.setPasid(SID, 1, domains[1 + (i % 2)]!)).toBe(0);
      expect(reach(host, 1)).toBe(pageOf(1 + (i % 2)));
    }
    expect(looked).toBeGreaterThan(50);
  });

  it('gives all memory back', () => {
    const { driver, stage1, context } = pasidHost(16);
    driver.attach(SID, driver.blocked);
    const before = context.memory.allocated;
    const domains = Array.from({ length: 5 }, stage1);
    for (const [i, domain] of domains.entries()) driver.setPasid(SID, 1 + i * 5000, domain);
    for (let i = 0; i < 5; i++) driver.setPasid(SID, 1 + i * 5000, driver.blocked);
    for (const domain of domains) domain.free();
    expect(context.memory.allocated).toBe(before);
    expect(driver.descriptorOf(SID, 1)).toBe(-1);
  });
});
