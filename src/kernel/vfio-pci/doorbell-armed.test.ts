/** The 19 rules of the user-given doorbell (docs/doorbell.md), each with its cases: rule 16, moving vectors that are allocated. */
import { describe, expect, it } from 'vitest';
import { attach, DoorbellHost, detach, FakeIoas, ITS, MSI, frame as page } from './testing/doorbell-host.ts';

describe('rule 16: armed vectors move', () => {
  it('from the window to the user’s range, between ranges, and back', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.enable(dev, 4);
    expect(host.set(dev, { iova: 0x809_0000 })).toBe(0);
    expect([0, 3].map((i) => host.entry(dev, i))).toEqual([
      { address: 0x809_0040, data: 0, masked: false },
      { address: 0x809_0040, data: 3, masked: false },
    ]);
    expect(host.set(dev, { start: 1, count: 1, iova: 0xa00_0000 })).toBe(0);
    expect([0, 1].map((i) => host.entry(dev, i).address)).toEqual([0x809_0040, 0xa00_0040]);
    expect(host.set(dev, { size: 0 })).toBe(0);
    expect([0, 1].map((i) => host.entry(dev, i).address)).toEqual([0x800_0040, 0xa00_0040]);
    expect(host.domain(dev).lookup(0x809_0000)).toBe(-1);
    expect([0, 1, 2, 3].map((i) => host.arrives(dev, i))).toEqual(Array(4).fill(ITS + 0x40));
    expect(host.violations).toEqual([]);
  });

  it('maps the new, rewrites masked entries, then unmaps the old', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 2 });
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 2);
    const domain = host.domain(dev);
    const order: string[] = [];
    const { bus } = host.context;
    const [map, unmap, write, sync] = [
      domain.map.bind(domain),
      domain.unmap.bind(domain),
      bus.write32.bind(bus),
      domain.sync.bind(domain),
    ];
    domain.map = (...given) => [order.push('map'), map(...given)][1] as number;
    domain.unmap = (...given) => [order.push('unmap'), unmap(...given)][1] as number;
    domain.sync = () => void [order.push('sync'), sync()];
    bus.write32 = (pa, value) => {
      const field = ['lo', 'hi', 'data', 'mask'][((pa - dev.table) / 4) % 4];
      order.push(
        `${Math.floor((pa - dev.table) / 16)} ${field === 'mask' ? (value === 1 ? 'mask' : 'unmask') : field}`,
      );
      write(pa, value);
    };
    host.set(dev, { iova: 0xa00_0000 });
    const each = (i: number) => ['mask', 'lo', 'hi', 'data', 'unmask'].map((step) => `${i} ${step}`);
    expect(order).toEqual(['map', ...each(0), ...each(1), 'unmap', 'sync']);
  });

  it('leaves masked what was masked', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.enable(dev, 2);
    host.msi.freeIrq(host.msi.irqVector(dev, 1));
    host.set(dev, { iova: 0x900_0000 });
    expect([0, 1].map((i) => host.entry(dev, i).masked)).toEqual([false, true]);
    expect(host.entry(dev, 1).address).toBe(0x900_0040);
  });

  it('MSI with a mask for each vector moves, all masked while the shared address changes', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msi: 4, perVectorMask: true });
    host.enable(dev, 4, 'msi');
    const masks: number[] = [];
    dev.config.onWrite = (offset) => {
      if (offset === 0x64) masks.push(dev.config.read(0x70, 4) & 0xf);
    };
    expect(host.set(dev, { index: MSI, iova: 0x900_0000 })).toBe(0);
    expect(masks).toEqual([0xf]);
    expect(dev.config.read(0x70, 4) & 0xf).toBe(0);
    expect(dev.config.read(0x64, 4)).toBe(0x900_0040);
  });

  it('other MSI: EBUSY while enabled, even to clear; fine when disabled', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msi: 1 });
    host.enable(dev, 1, 'msi');
    expect(host.refused(dev, { index: MSI, iova: 0x900_0000 })).toBe('EBUSY index');
    expect(host.refused(dev, { index: MSI, size: 0 })).toBe('EBUSY index');
    expect(host.get(dev, 0, MSI).iova).toBe(0x800_0040);
    host.msi.freeIrqVectors(dev);
    expect(host.set(dev, { index: MSI, iova: 0x900_0000 })).toBe(0);
  });

  it('all or nothing: no room for the second doorbell', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 2 });
    host.parent.doorbells = [page(0), page(1)];
    host.parent.frameOf = (desc) => page(desc.index);
    host.set(dev, { iova: 0x900_0000, size: 0x2000 });
    host.enable(dev, 2);
    const before = [host.entry(dev, 0), host.entry(dev, 1), [...host.domain(dev).pages]];
    expect(host.refused(dev, { iova: 0xa00_0000 })).toBe('ENOSPC size');
    expect([host.entry(dev, 0), host.entry(dev, 1), [...host.domain(dev).pages]]).toEqual(before);
    expect(host.type1.reservations).toEqual([{ start: 0x900_0000, end: 0x900_1fff }]);
    expect(host.get(dev, 1).iova).toBe(0x900_1040);
    host.msi.freeIrqVectors(dev);
    expect(host.domain(dev).pages.size).toBe(0);
  });

  it('all or nothing: the page table refuses', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 2 });
    host.enable(dev, 2);
    host.domain(dev).failNext = -12;
    expect(host.set(dev, { iova: 0x900_0000 })).toBe('ENOMEM');
    expect(host.entry(dev, 0).address).toBe(0x800_0040);
    expect(host.type1.reservations).toEqual([]);
  });

  it('gives the old reservation up last, and takes the new one first', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 1 });
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1);
    const order: string[] = [];
    const { type1 } = host;
    const [reserve, release] = [type1.reserve.bind(type1), type1.release.bind(type1)];
    type1.reserve = (...given) => void [order.push('reserve'), reserve(...given)];
    type1.release = (...given) => void [order.push('release'), release(...given)];
    host.domain(dev).onUnmap = () => order.push('unmap');
    host.set(dev, { iova: 0xa00_0000 });
    host.set(dev, { size: 0 });
    expect(order).toEqual(['reserve', 'unmap', 'release', 'unmap', 'release']);
  });

  it('vectors that do not move do not hinder others’ ranges from growing', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 4 });
    host.set(dev, { start: 3, count: 1, iova: 0x900_0000 });
    host.enable(dev, 2);
    expect(host.set(dev, { start: 3, count: 1, iova: 0x900_0000, size: 0x2000 })).toBe(0);
    expect(host.type1.reservations).toEqual([{ start: 0x900_0000, end: 0x900_1fff }]);
  });

  it('EADDRINUSE for a range over the page that the vectors still use', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 2);
    expect(host.refused(dev, { iova: 0x900_0000, size: 0x2000 })).toBe('EADDRINUSE iova');
    expect(host.entry(dev, 0).address).toBe(0x900_0040);
    expect(host.set(dev, { iova: 0x900_0000 })).toBe(0);
    expect(host.type1.reservations).toEqual([{ start: 0x900_0000, end: 0x900_0fff }]);
  });

  it('an affinity change afterwards keeps the new address', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.enable(dev, 1);
    host.set(dev, { iova: 0x900_0000 });
    host.parent.shift = 5;
    host.msi.recompose(host.msi.irqVector(dev, 0));
    expect(host.entry(dev, 0)).toEqual({ address: 0x900_0040, data: 5, masked: false });
  });
});

describe('a device that is attached to nothing while its vectors are allocated', () => {
  it('EBUSY: there is no domain in which they could move', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    const ioas = new FakeIoas();
    attach(host, dev, ioas);
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1);
    detach(dev);
    expect(host.refused(dev, { iova: 0xa00_0000 })).toBe('EBUSY index');
    expect(host.refused(dev, { size: 0 })).toBe('EBUSY index');
    host.msi.freeIrqVectors(dev);
    expect(host.set(dev, { iova: 0xa00_0000 })).toBe(0);
  });
});
