import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { IommuDriver } from '../../ports/iommu.ts';
import { Prot } from '../../ports/iommu.ts';
import { Status } from '../../ports/transaction.ts';
import { PagingDomain } from './paging-domain.ts';
import { type IommuHost, smmuHost, vtdHost } from './testing.ts';

/** A page that devices use, so that the TLB holds it, at every step: what the device sees must be what is mapped. */
const PAGES = 24;

interface Subject {
  readonly name: string;
  readonly host: IommuHost & { readonly driver: IommuDriver };
  readonly stage?: 1 | 2;
  readonly granule: number;
}

const subjects = (): Subject[] => [
  { name: 'SMMUv3 stage 1', host: smmuHost(), stage: 1, granule: 4096 },
  { name: 'SMMUv3 stage 2', host: smmuHost(), stage: 2, granule: 4096 },
  { name: 'SMMUv3 stage 1 with 64K pages', host: smmuHost({}, 65536), stage: 1, granule: 65536 },
  { name: 'VT-d', host: vtdHost(), granule: 4096 },
];

describe('what a device sees, step by step', () => {
  it.each(subjects().map((subject) => [subject.name, subject] as const))(
    '%s: after sync exactly what is mapped, in the domain that is attached',
    (_, { host, stage, granule }) => {
      const { driver, dma, pa, context } = host;
      const requesters = [0x28, 0x130];
      for (const requester of requesters) driver.attach(requester, driver.blocked);
      const empty = context.memory.allocated;
      const step = fc.record({
        what: fc.constantFrom('map', 'unmap', 'unmap', 'attach', 'dma'),
        domain: fc.nat(1),
        requester: fc.nat(1),
        page: fc.nat(PAGES - 1),
        length: fc.integer({ min: 1, max: 9 }),
      });
      fc.assert(
        fc.property(fc.array(step, { minLength: 5, maxLength: 40 }), (steps) => {
          const domains = [0, 1].map(() => driver.allocate(0x28, stage));
          const mapped = domains.map(() => new Map<number, number>());
          const attached = [-1, -1];
          const [a, b] = domains;
          if (!(a instanceof PagingDomain) || !(b instanceof PagingDomain)) throw new Error('allocate');
          const look = (which: number, page: number): number => {
            const status = dma(requesters[which], page * granule + 0x40);
            return status === Status.OK ? pa() : -1;
          };
          for (const { what, domain, requester, page, length } of steps) {
            const target = [a, b][domain];
            const model = mapped[domain];
            if (what === 'map') {
              const free = [...Array(length).keys()].every((i) => !model.has(page + i));
              const base = 0x5000_0000 + (domain * 64 + ((page * 7) % 32)) * granule;
              const result = target.map(page * granule, base, length * granule, Prot.READ | Prot.WRITE);
              expect(result).toBe(free ? 0 : -17);
              if (free) for (let i = 0; i < length; i++) model.set(page + i, base + i * granule);
            } else if (what === 'unmap') {
              let there = 0;
              while (there < length && model.has(page + there)) there++;
              expect(target.unmap(page * granule, length * granule)).toBe(there * granule);
              for (let i = 0; i < there; i++) model.delete(page + i);
              target.sync();
            } else if (what === 'attach') {
              expect(driver.attach(requesters[requester], target)).toBe(0);
              attached[requester] = domain;
            } else {
              look(requester, page);
            }
            for (const which of [0, 1]) {
              for (const at of [page, page + length - 1]) {
                const expected = attached[which] < 0 ? undefined : mapped[attached[which]].get(at);
                const seen = look(which, at);
                if (seen !== (expected === undefined ? -1 : expected + 0x40)) {
                  throw new Error(`${what}: requester ${which} sees ${seen.toString(16)} at page ${at}`);
                }
              }
            }
          }
          for (const requester of requesters) driver.attach(requester, driver.blocked);
          a.free();
          b.free();
          driver.drainEvents(() => {});
          return context.memory.allocated === empty;
        }),
        { numRuns: 300 },
      );
    },
  );
});
