import { describe, expect, it } from 'vitest';
import { Prot } from '../../ports/iommu.ts';
import { FakeDomain } from '../irq/testing/fakes.ts';
import { outcome } from '../irq/testing/msi-host.ts';
import { testContext } from '../test-context.ts';
import { mapDeviceMemory, unmapDeviceMemory } from './device-memory.ts';

const PROT = Prot.WRITE | Prot.NOEXEC | Prot.MMIO;
const memory = { iova: 0x809_0000, pa: 0x5081_0000, size: 0x2000, prot: PROT };

describe('mapping device memory by the kernel', () => {
  it('maps any physical page into every domain, with the protection asked for', () => {
    const domains = [new FakeDomain(), new FakeDomain()];
    expect(mapDeviceMemory(testContext(), domains, memory)).toBe(0);
    for (const domain of domains) {
      expect(domain.pages.get(0x809_1000)).toEqual({ pa: 0x5081_1000, prot: PROT });
    }
  });

  it('into all of them or none: what was mapped is taken back, and invalidated', () => {
    const context = testContext();
    const domains = [new FakeDomain(), new FakeDomain(), new FakeDomain()];
    domains[2]!.failNext = -12;
    expect(outcome(mapDeviceMemory(context, domains, memory))).toBe('ENOMEM');
    expect(domains.map((domain) => [domain.pages.size, domain.stale.size])).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
    expect(context.refusals.last).toMatchObject({ code: 'ENOMEM' });
  });

  it('EEXIST over anything that is mapped, in any domain, before it touches one', () => {
    const context = testContext();
    const domains = [new FakeDomain(), new FakeDomain()];
    domains[1]!.map(0x809_1000, 0x4000_0000, 0x1000, Prot.READ);
    expect(outcome(mapDeviceMemory(context, domains, memory))).toBe('EEXIST');
    expect(domains[0]!.mapped).toBe(0);
    expect(context.refusals.last?.field).toBe('iova');
  });

  it.each([
    [{ size: 0 }, 'size'],
    [{ iova: 0x809_0800 }, 'iova'],
    [{ pa: 0x5081_0040 }, 'pa'],
    [{ size: 0x1800 }, 'size'],
    [{ iova: 2 ** 48 - 0x1000 }, 'iova'],
  ])('EINVAL for %o, naming %s', (change, field) => {
    const context = testContext();
    expect(outcome(mapDeviceMemory(context, [new FakeDomain()], { ...memory, ...change }))).toBe('EINVAL');
    expect(context.refusals.last?.field).toBe(field);
  });

  it('the last pages of the aperture are fine', () => {
    expect(mapDeviceMemory(testContext(), [new FakeDomain()], { ...memory, iova: 2 ** 48 - 0x2000 })).toBe(0);
  });

  it('judges alignment by each domain’s own page', () => {
    const domains = [new FakeDomain(), new FakeDomain('unmanaged', [65536])];
    expect(outcome(mapDeviceMemory(testContext(), domains, memory))).toBe('EINVAL');
    expect(domains[0]!.mapped).toBe(0);
  });

  it('unmaps everywhere, and nothing of it stays cached', () => {
    const domains = [new FakeDomain(), new FakeDomain()];
    mapDeviceMemory(testContext(), domains, memory);
    unmapDeviceMemory(domains, memory.iova, memory.size);
    expect(domains.map((domain) => [domain.pages.size, domain.stale.size])).toEqual([
      [0, 0],
      [0, 0],
    ]);
  });
});
