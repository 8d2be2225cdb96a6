import { describe, expect, it } from 'vitest';
import { Command } from '../../arch/pci/config.ts';
import { setMsiCookie } from './msi-cookie.ts';
import { type FakeDev, FakeDomain, type FakeGroup, SW_MSI } from './testing/fakes.ts';
import { MsiHost, outcome } from './testing/msi-host.ts';
import { createType1WindowCookie } from './type1-cookie.ts';

const handler = { handleIrq: () => {} };

/** Attaches the device to a new type1-like domain with the kernel's window. */
function attach(host: MsiHost, dev: FakeDev, domain = new FakeDomain()): FakeDomain {
  setMsiCookie(domain, createType1WindowCookie(host.context, domain, 0x800_0000));
  (dev.iommuGroup as FakeGroup).attach(domain);
  return domain;
}

describe('MSI-X: what pci_alloc_irq_vectors refuses, in its order', () => {
  it('ERANGE for max below min, even while the other mode is enabled', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 4, msi: 1 });
    attach(host, dev);
    expect(host.msi.allocIrqVectors(dev, 1, 1, 'msi')).toBe(1);
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 0, 'msix'))).toBe('ERANGE');
    expect(host.refusal()).toBe('ERANGE count');
  });

  it('EINVAL while the other mode is enabled, before ENOTSUPP', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 4, msi: 1 });
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 1, 'msi');
    host.parent.msix = false;
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 1, 'msix'))).toBe('EINVAL');
    expect(host.refusal()).toBe('EINVAL index');
  });

  it('ENOTSUPP (524) without a controller for MSI-X, before the power state', () => {
    const host = new MsiHost({ noParent: true });
    const dev = host.add({ msix: 4 });
    dev.configWrite(0x54, 2, 3);
    expect(host.msi.allocIrqVectors(dev, 1, 4, 'msix')).toBe(-524);
  });

  it('EINVAL in D3hot, before the missing capability', () => {
    const host = new MsiHost();
    const dev = host.add({});
    dev.configWrite(0x54, 2, 3);
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 4, 'msix'))).toBe('EINVAL');
    expect(host.refusal()).toBe('EINVAL power state');
    dev.configWrite(0x54, 2, 0);
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 4, 'msix'))).toBe('EINVAL');
    expect(host.refusal()).toBe('EINVAL index');
  });

  it('ENOSPC for a table below min, and a silent cut to the table above it', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 4 });
    attach(host, dev);
    expect(outcome(host.msi.allocIrqVectors(dev, 5, 8, 'msix'))).toBe('ENOSPC');
    expect(host.msi.allocIrqVectors(dev, 1, 8, 'msix')).toBe(4);
  });

  it('ENODEV when the controller cannot serve the device, which then is as it was', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 4 });
    attach(host, dev);
    host.parent.failDevice = -12;
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 4, 'msix'))).toBe('ENODEV');
    expect(host.refusal()).toBe('ENODEV count');
    expect(host.msixControl(dev) & 0xc000).toBe(0);
  });

  it('ENOMEM when the BAR of the table is not there', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 4 });
    attach(host, dev);
    dev.config.put(0x84, 4, 5);
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 4, 'msix'))).toBe('ENOMEM');
    expect(host.msixControl(dev) & 0xc000).toBe(0);
    expect(host.parent.devices.size).toBe(0);
  });

  it('ENOSPC for the first vector whatever was behind it: nothing attached (G9)', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 4 });
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 4, 'msix'))).toBe('ENOSPC');
    expect(host.context.refusals.last).toMatchObject({ code: 'ENOSPC', errno: 28 });
    expect(host.context.refusals.last?.why).toContain('attached to nothing');
    expect(host.parent.allocated.size).toBe(0);
    expect(host.msi.mode(dev)).toBeNull();
  });

  it('a short count when a later vector cannot be had, with nobody to blame', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 8 });
    attach(host, dev);
    host.parent.capacity = 5;
    expect(host.msi.allocIrqVectors(dev, 1, 8, 'msix')).toBe(5);
    expect(host.refusal()).toBe('');
    expect(host.parent.allocated.size).toBe(5);
  });

  it('ENOSPC when the short count is below min', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 8 });
    attach(host, dev);
    host.parent.capacity = 5;
    expect(outcome(host.msi.allocIrqVectors(dev, 6, 8, 'msix'))).toBe('ENOSPC');
    expect(host.parent.allocated.size).toBe(0);
    expect(host.parent.devices.size).toBe(0);
  });
});

describe('MSI: the same list with the power state first', () => {
  it('EINVAL in D3hot before ERANGE and before the other mode', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 4, msi: 4 });
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 4, 'msix');
    dev.configWrite(0x54, 2, 3);
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 0, 'msi'))).toBe('EINVAL');
    expect(host.refusal()).toBe('EINVAL power state');
    dev.configWrite(0x54, 2, 0);
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 0, 'msi'))).toBe('EINVAL');
    expect(host.refusal()).toBe('EINVAL index');
    host.msi.freeIrqVectors(dev);
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 0, 'msi'))).toBe('ERANGE');
  });

  it('ENOTSUPP without a controller', () => {
    const host = new MsiHost({ noParent: true });
    expect(host.msi.allocIrqVectors(host.add({ msi: 4 }), 1, 4, 'msi')).toBe(-524);
  });

  it('one message where the controller takes no more', () => {
    const host = new MsiHost();
    const dev = host.add({ msi: 4 });
    attach(host, dev);
    host.parent.multiMsi = false;
    expect(host.msi.allocIrqVectors(dev, 1, 4, 'msi')).toBe(1);
    expect(host.refusal()).toBe('');
  });

  it('retries with one when the block cannot be had', () => {
    const host = new MsiHost();
    const dev = host.add({ msi: 8 });
    attach(host, dev);
    host.parent.capacity = 3;
    expect(host.msi.allocIrqVectors(dev, 1, 8, 'msi')).toBe(1);
  });

  it('EIO when a 32-bit function would need an address above 4 GiB, in either mode', () => {
    const host = new MsiHost();
    for (const mode of ['msi', 'msix'] as const) {
      const dev = host.add({ msi: 1, msix: 2, address64: false });
      const group = dev.iommuGroup;
      group.attach(new FakeDomain('identity'));
      host.parent.doorbells = [{ base: 0x20_0809_0000, size: 0x1_0000, register: 0x40, isolated: true }];
      expect(outcome(host.msi.allocIrqVectors(dev, 1, 1, mode))).toBe('EIO');
      expect(host.parent.allocated.size).toBe(0);
      host.context.refusals.last = null;
    }
  });

  it('grants the next power of two, and writes the block’s base', () => {
    const host = new MsiHost();
    const dev = host.add({ msi: 8, perVectorMask: true });
    attach(host, dev);
    expect(host.msi.allocIrqVectors(dev, 1, 3, 'msi')).toBe(3);
    expect(dev.config.read(0x62, 2) & 0x71).toBe(0x21);
    expect([dev.config.read(0x64, 4), dev.config.read(0x68, 4), dev.config.read(0x6c, 2)]).toEqual([0x800_0040, 0, 0]);
    expect(dev.config.read(0x70, 4)).toBe(0xff);
    host.msi.requestIrq(host.msi.irqVector(dev, 1), handler, 'one');
    expect(dev.config.read(0x70, 4)).toBe(0xfd);
    host.msi.freeIrqVectors(dev);
    expect(dev.config.read(0x62, 2) & 1).toBe(0);
    expect(dev.config.read(0x70, 4)).toBe(0);
    // kernel/irq/msi.c msi_domain_deactivate writes a message of zeros.
    expect([dev.config.read(0x64, 4), dev.config.read(0x68, 4), dev.config.read(0x6c, 2)]).toEqual([0, 0, 0]);
  });
});

describe('an enabled function', () => {
  it('G5: four vectors at 0x0800_0040 with data 0 to 3, mapped onto the ITS, unmasked by their handlers', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 8 });
    const domain = attach(host, dev);
    expect(host.msi.allocIrqVectors(dev, 1, 4, 'msix')).toBe(4);
    expect(host.msixControl(dev) & 0xc000).toBe(0x8000);
    for (let i = 0; i < 4; i++) {
      expect(host.entry(dev, i)).toEqual({ address: 0x800_0040, data: i, masked: true });
      host.msi.requestIrq(host.msi.irqVector(dev, i), handler, `vector ${i}`);
      expect(host.entry(dev, i).masked).toBe(false);
    }
    for (let i = 4; i < 8; i++) expect(host.entry(dev, i)).toEqual({ address: 0, data: 0, masked: true });
    expect(domain.lookup(0x800_0000)).toBe(0x809_0000);
    expect(domain.pages.size).toBe(1);
  });

  it('G6: a second device of the domain shares the page', () => {
    const host = new MsiHost();
    const [a, b] = [host.add(), host.add()];
    const domain = attach(host, a);
    b.iommuGroup.attach(domain);
    host.msi.allocIrqVectors(a, 1, 2, 'msix');
    host.msi.allocIrqVectors(b, 1, 2, 'msix');
    expect(host.entry(b, 1)).toEqual({ address: 0x800_0040, data: 1, masked: true });
    expect([domain.mapped, domain.pages.size]).toEqual([1, 1]);
  });

  it('G7: a second ITS at another page takes the next page of the window', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 2 });
    attach(host, dev);
    host.parent.doorbells = [
      { base: 0x809_0000, size: 0x1_0000, register: 0x40, isolated: true },
      { base: 0x80b_0000, size: 0x1_0000, register: 0x40, isolated: true },
    ];
    host.parent.frameOf = (desc) => host.parent.doorbells[desc.index]!;
    host.msi.allocIrqVectors(dev, 1, 2, 'msix');
    expect([host.entry(dev, 0).address, host.entry(dev, 1).address]).toEqual([0x800_0040, 0x800_1040]);
  });

  it('G8: a GICv2m frame at its page, with the SPI number as data', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 1 });
    attach(host, dev);
    host.parent.doorbells = [{ base: 0x802_0000, size: 0x1000, register: 0x40, isolated: false }];
    host.parent.shift = 80;
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    expect(host.entry(dev, 0)).toEqual({ address: 0x800_0040, data: 80, masked: true });
  });

  it('G15: a platform that never prepares keeps its own address, and maps nothing', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 1 });
    host.parent.prepares = false;
    host.parent.doorbells = [{ base: 0xfee0_0000, size: 0x10_0000, register: 0x218, isolated: true }];
    expect(host.msi.allocIrqVectors(dev, 1, 1, 'msix')).toBe(1);
    expect(host.entry(dev, 0).address).toBe(0xfee0_0218);
  });

  it('turns INTx off while it sends messages', () => {
    const host = new MsiHost();
    const dev = host.add();
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    expect(dev.config.read(4, 2) & Command.INTX_DISABLE).toBe(Command.INTX_DISABLE);
    host.msi.freeIrqVectors(dev);
    expect(dev.config.read(4, 2) & Command.INTX_DISABLE).toBe(0);
  });

  it('hears its interrupts, by the interrupt id that its controller gave', () => {
    const host = new MsiHost();
    const dev = host.add();
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 2, 'msix');
    const heard: number[] = [];
    host.msi.requestIrq(host.msi.irqVector(dev, 1), { handleIrq: () => heard.push(1) }, 'one');
    const { hwirq } = host.msi.vectors(dev)[1]!.desc;
    host.irqs.interrupt(hwirq, 0);
    expect(heard).toEqual([1]);
    host.msi.freeIrqVectors(dev);
    expect(host.irqs.irqOf(hwirq)).toBe(0);
  });

  it('gives everything back in reverse: masked, off, then freed', () => {
    const host = new MsiHost();
    const dev = host.add();
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 3, 'msix');
    const irqs = [0, 1, 2].map((i) => host.msi.irqVector(dev, i));
    for (const irq of irqs) host.msi.requestIrq(irq, handler, 'x');
    host.msi.freeIrqVectors(dev);
    expect(host.parent.log).toEqual(['deactivate 2', 'deactivate 1', 'deactivate 0', 'free 2', 'free 1', 'free 0']);
    expect([0, 1, 2].map((i) => host.entry(dev, i))).toEqual(Array(3).fill({ address: 0, data: 0, masked: true }));
    expect(host.msixControl(dev) & 0xc000).toBe(0);
    expect(host.irqs.interrupts()).toEqual([]);
    expect(outcome(host.msi.irqVector(dev, 0))).toBe('EINVAL');
    expect(host.parent.devices.size).toBe(0);
    host.msi.freeIrqVectors(dev);
  });
});

describe('prepare and compose are two steps', () => {
  it('an affinity change composes anew and keeps the IOVA', () => {
    const host = new MsiHost();
    const dev = host.add();
    const domain = attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    const irq = host.msi.irqVector(dev, 0);
    host.msi.requestIrq(irq, handler, 'x');
    host.parent.shift = 7;
    host.msi.recompose(irq);
    expect(host.entry(dev, 0)).toEqual({ address: 0x800_0040, data: 7, masked: false });
    expect(domain.mapped).toBe(1);
  });

  it('writes a message only while the entry is masked', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 1 });
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    const irq = host.msi.irqVector(dev, 0);
    host.msi.requestIrq(irq, handler, 'x');
    const { bus } = host.context;
    const write = bus.write32.bind(bus);
    const torn: number[] = [];
    bus.write32 = (pa, value) => {
      const field = pa - dev.table;
      if (field >= 0 && field < 12 && host.live(dev, 0)) torn.push(field);
      write(pa, value);
    };
    host.msi.recompose(irq);
    host.msi.rewriteMessage(irq);
    expect(torn).toEqual([]);
    expect(host.live(dev, 0)).toBe(true);
  });

  it('rewrites the cached message without composing', () => {
    const host = new MsiHost();
    const dev = host.add();
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    host.context.bus.write32(dev.table, 0xdead_b000);
    host.parent.shift = 9;
    host.msi.rewriteMessage(host.msi.irqVector(dev, 0));
    expect(host.entry(dev, 0)).toEqual({ address: 0x800_0040, data: 0, masked: true });
  });

  it('restores the same messages and masks after a reset', () => {
    const host = new MsiHost();
    const dev = host.add({ msix: 2 });
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 2, 'msix');
    host.msi.requestIrq(host.msi.irqVector(dev, 1), handler, 'x');
    for (let at = 0; at < 32; at += 4) host.context.bus.write32(dev.table + at, at % 16 === 12 ? 1 : 0);
    dev.config.put(0x82, 2, 1);
    dev.restoreMsiState?.();
    expect(host.entry(dev, 0)).toEqual({ address: 0x800_0040, data: 0, masked: true });
    expect(host.entry(dev, 1)).toEqual({ address: 0x800_0040, data: 1, masked: false });
    expect(host.msixControl(dev) & 0xc000).toBe(0x8000);
  });
});

describe('vectors added while MSI-X is enabled', () => {
  it('ENOTSUPP where the controller cannot', () => {
    const host = new MsiHost();
    const dev = host.add();
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    expect(host.msi.msixAllocAt(dev, 1)).toBe(-524);
  });

  it('come and go one by one; EBUSY when taken, ENOSPC beyond the table', () => {
    const host = new MsiHost();
    host.parent.dynamicMsix = true;
    const dev = host.add({ msix: 4 });
    attach(host, dev);
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    const irq = host.msi.msixAllocAt(dev, 3);
    expect(irq).toBe(host.msi.irqVector(dev, 3));
    expect(host.entry(dev, 3)).toEqual({ address: 0x800_0040, data: 3, masked: true });
    expect(outcome(host.msi.msixAllocAt(dev, 3))).toBe('EBUSY');
    expect(outcome(host.msi.msixAllocAt(dev, 4))).toBe('ENOSPC');
    host.msi.msixFreeAt(dev, 3);
    expect(outcome(host.msi.irqVector(dev, 3))).toBe('EINVAL');
    expect(host.parent.allocated.size).toBe(1);
  });
});

describe('where the doorbell’s IOVA comes from', () => {
  it('identity: the physical address', () => {
    const host = new MsiHost();
    const dev = host.add();
    dev.iommuGroup.attach(new FakeDomain('identity'));
    expect(host.msi.allocIrqVectors(dev, 1, 1, 'msix')).toBe(1);
    expect(host.entry(dev, 0).address).toBe(0x809_0040);
  });

  it('no IOMMU: the physical address', () => {
    const host = new MsiHost();
    const dev = host.add();
    (dev as FakeDev).iommuGroup = null;
    expect(host.msi.allocIrqVectors(dev, 1, 1, 'msix')).toBe(1);
    expect(host.entry(dev, 0).address).toBe(0x809_0040);
  });

  it('policy none, the kernel before the window: the physical address, and nothing mapped', () => {
    const host = new MsiHost({ policy: 'none' });
    const dev = host.add();
    const domain = attach(host, dev);
    expect(host.msi.allocIrqVectors(dev, 1, 1, 'msix')).toBe(1);
    expect(host.entry(dev, 0).address).toBe(0x809_0040);
    expect(domain.mapped).toBe(0);
  });

  it('a domain without a cookie: ENOSPC, because EOPNOTSUPP', () => {
    const host = new MsiHost();
    const dev = host.add();
    dev.iommuGroup.attach(new FakeDomain());
    expect(outcome(host.msi.allocIrqVectors(dev, 1, 1, 'msix'))).toBe('ENOSPC');
    expect(host.context.refusals.last?.why).toContain('EOPNOTSUPP');
  });

  it('the window has no upper bound, and steps over what user space took', () => {
    const host = new MsiHost();
    const domain = new FakeDomain();
    const taken = {
      takenEnd: (start: number, end: number) => (start <= 0x800_2fff && end >= 0x800_1000 ? 0x800_2fff : -1),
    };
    const cookie = createType1WindowCookie(host.context, domain, 0x800_0000, taken);
    const dev = host.add({ msix: 300 });
    setMsiCookie(domain, cookie);
    dev.iommuGroup.attach(domain);
    host.parent.frameOf = (desc) => ({
      base: 0x1000_0000 + desc.index * 0x1000,
      size: 0x1000,
      register: 0,
      isolated: true,
    });
    expect(host.msi.allocIrqVectors(dev, 1, 300, 'msix')).toBe(300);
    expect(host.entry(dev, 0).address).toBe(0x800_0000);
    expect(host.entry(dev, 1).address).toBe(0x800_3000);
    expect(host.entry(dev, 299).address).toBe(0x800_3000 + 298 * 0x1000);
    expect(host.entry(dev, 299).address).toBeGreaterThan(SW_MSI.end);
  });

  it('64 KiB pages: the page of the doorbell is 64 KiB, and the low 16 bits stay', () => {
    const host = new MsiHost({ pageSize: 65536 });
    const dev = host.add();
    const domain = attach(host, dev, new FakeDomain('unmanaged', [65536]));
    host.parent.doorbells = [{ base: 0x808_0000, size: 0x2_0000, register: 0x1_0040, isolated: true }];
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    expect(host.entry(dev, 0).address).toBe(0x800_0040);
    expect(domain.lookup(0x800_0000)).toBe(0x809_0000);
  });
});
