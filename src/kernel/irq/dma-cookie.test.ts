import { describe, expect, it } from 'vitest';
import { createDmaCookie } from './dma-cookie.ts';
import { setMsiCookie } from './msi-cookie.ts';
import { FakeDomain, SW_MSI } from './testing/fakes.ts';
import { MsiHost, outcome } from './testing/msi-host.ts';

/** A device in the hands of a host driver, whose vectors alternate between two doorbell pages. */
function owned(domain: FakeDomain, reserved: Parameters<typeof createDmaCookie>[2] = [SW_MSI]) {
  const host = new MsiHost();
  const dev = host.add({ msix: 4 });
  setMsiCookie(domain, createDmaCookie(host.context, domain, reserved));
  dev.iommuGroup.attach(domain);
  host.parent.frameOf = ({ index }) => ({
    base: 0x809_0000 + (index % 2) * 0x2_0000,
    size: 0x1_0000,
    register: 0x40,
    isolated: true,
  });
  return { host, dev };
}

describe('the doorbell of a host driver’s device', () => {
  it('stands at the top of the 32-bit IOVAs, where real Linux put an NVMe’s: 0xffff_f040', () => {
    const domain = new FakeDomain('dma');
    const { host, dev } = owned(domain);
    expect(host.msi.allocIrqVectors(dev, 1, 4, 'msix')).toBe(4);
    const addresses = [0, 1, 2, 3].map((i) => host.entry(dev, i).address);
    expect(addresses).toEqual([0xffff_f040, 0xffff_e040, 0xffff_f040, 0xffff_e040]);
    expect(domain.lookup(0xffff_e040)).toBe(0x80b_0040);
  });

  it('in pages of the domain’s granule, below what is reserved', () => {
    const { host, dev } = owned(new FakeDomain('dma', [65536]), [
      { start: 0xffff_8000, end: 0xffff_ffff, type: 'reserved' },
      SW_MSI,
    ]);
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    expect(host.entry(dev, 0).address).toBe(0xfffe_0040);
  });

  it('ENOSPC for the driver when no IOVA is left', () => {
    const { host, dev } = owned(new FakeDomain('dma'), [{ start: 0, end: 0xffff_ffff, type: 'reserved' }]);
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 1, 'msix'))).toBe('ENOSPC');
  });
});
