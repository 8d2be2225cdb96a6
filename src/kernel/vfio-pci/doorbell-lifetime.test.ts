/** The 19 rules of the user-given doorbell (docs/doorbell.md), each with its cases: rules 11 to 15, and 17 to 19. */
import { describe, expect, it } from 'vitest';
import { Prot } from '../../ports/iommu.ts';
import { setMsiCookie } from '../irq/msi-cookie.ts';
import { FakeDomain } from '../irq/testing/fakes.ts';
import { outcome } from '../irq/testing/msi-host.ts';
import { createType1WindowCookie } from '../irq/type1-cookie.ts';
import { doorbellPages } from '../vfio/doorbell-pages.ts';
import { attach, DoorbellHost, detach, FakeIoas, ITS, frame as page } from './testing/doorbell-host.ts';

const slots = (host: DoorbellHost, domain: FakeDomain) => doorbellPages(host.context, 'iommufd', domain).slots;

describe('rule 11: conflicts that come later', () => {
  it('a device that is not attached: accepted now, EADDRINUSE at the attach, which changes nothing', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    const ioas = new FakeIoas();
    expect(host.set(dev, { iova: 0x900_0000 })).toBe(0);
    ioas.maps.push({ start: 0x900_0000, end: 0x900_0fff });
    expect(outcome(attach(host, dev, ioas))).toBe('EADDRINUSE');
    expect(host.refusal()).toBe('EADDRINUSE iova');
    expect(ioas.reserved).toEqual([]);
    ioas.maps.pop();
    expect(attach(host, dev, ioas)).toBe(0);
    expect(ioas.reserved).toEqual([{ start: 0x900_0000, end: 0x900_0fff }]);
  });

  it('one of two ranges in the way: neither is reserved', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    const ioas = new FakeIoas();
    host.set(dev, { start: 0, count: 1, iova: 0x900_0000 });
    host.set(dev, { start: 1, count: 1, iova: 0xa00_0000 });
    ioas.maps.push({ start: 0xa00_0000, end: 0xa00_0fff });
    expect(outcome(attach(host, dev, ioas))).toBe('EADDRINUSE');
    expect(ioas.reserved).toEqual([]);
  });

  it('checks granule and aperture at the attach, when there is a domain to ask', () => {
    const host = new DoorbellHost();
    const ioas = new FakeIoas();
    const a = host.bell();
    host.set(a, { iova: 0x900_1000 });
    expect(outcome(attach(host, a, ioas, ioas.hwpt(new FakeDomain('unmanaged', [65536]))))).toBe('EINVAL');
    expect(host.refusal()).toBe('EINVAL iova');
    const b = host.bell();
    host.set(b, { iova: 2 ** 50 });
    expect(outcome(attach(host, b, ioas))).toBe('EINVAL');
    expect(host.refused(b, { iova: 2n ** 52n })).toBe('EINVAL iova');
  });

  it('a later group with a reserved region there: EINVAL with type1', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x900_0000 });
    const late = host.bell();
    late.iommuGroup.regions = [{ start: 0x8ff_0000, end: 0x900_0fff, type: 'reserved' }];
    expect(outcome(host.join(late))).toBe('EINVAL');
    late.iommuGroup.regions = [{ start: 0x8ff_0000, end: 0x900_0fff, type: 'direct-relaxable' }];
    expect(host.join(late)).toBe(0);
  });
});

describe('rule 12: the key is (domain, range, physical page)', () => {
  it('first need takes the first slot; two doorbell pages need size 2G', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 4 });
    host.parent.frameOf = (desc) => page(desc.index % 2);
    host.set(dev, { iova: 0x900_0000, size: 0x2000 });
    expect(host.enable(dev, 4)).toBe(4);
    const addresses = [0, 1, 2, 3].map((i) => host.entry(dev, i).address);
    expect(addresses).toEqual([0x900_0040, 0x900_1040, 0x900_0040, 0x900_1040]);
    expect([0, 1].map((i) => host.arrives(dev, i))).toEqual([ITS + 0x40, ITS + 0x2_0040]);
  });

  it('full: vector k returns k', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 4 });
    host.parent.frameOf = (desc) => page(desc.index);
    host.set(dev, { iova: 0x900_0000, size: 0x2000 });
    expect(host.msi.allocIrqVectors(dev, 1, 4, 'msix')).toBe(2);
    expect(host.domain(dev).pages.size).toBe(2);
  });

  it('full for vector 0: ENOSPC, and the reason names size', () => {
    const host = new DoorbellHost();
    const [a, b] = [host.attached({ msix: 1 }), host.attached({ msix: 1 })];
    host.parent.frameOf = (desc) => page(desc.dev === a ? 0 : 1);
    host.set(a, { iova: 0x900_0000 });
    host.set(b, { iova: 0x900_0000 });
    expect(host.enable(a, 1)).toBe(1);
    expect(outcome(host.enable(b, 1))).toBe('ENOSPC');
    expect(host.context.refusals.last).toMatchObject({ field: 'size', hint: 'a size of 0x0000_2000 holds it' });
  });

  it('two devices share range and slot; one going away leaves the other its page', () => {
    const host = new DoorbellHost();
    const [a, b] = [host.attached(), host.attached()];
    for (const dev of [a, b]) host.set(dev, { iova: 0x900_0000 });
    host.enable(a, 2);
    host.enable(b, 2);
    expect(host.domain(a).pages.size).toBe(1);
    a.bell.close();
    expect(host.arrives(b, 0)).toBe(ITS + 0x40);
    b.bell.close();
    expect(host.domain(b).pages.size).toBe(0);
  });

  it('two ranges onto one physical page are allowed', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { start: 0, count: 1, iova: 0x900_0000 });
    host.set(dev, { start: 1, count: 1, iova: 0xa00_0000 });
    host.enable(dev, 2);
    expect([0, 1].map((i) => host.arrives(dev, i))).toEqual([ITS + 0x40, ITS + 0x40]);
  });

  it('a huge range costs nothing', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    expect(host.set(dev, { iova: 2 ** 40, size: 2 ** 46 })).toBe(0);
    expect(host.enable(dev, 4)).toBe(4);
    expect(host.domain(dev).pages.size).toBe(1);
  });
});

describe('rule 13: mapped only in the device’s domain, one page of G', () => {
  it('with WRITE|NOEXEC|MMIO under type1', () => {
    const host = new DoorbellHost();
    const [dev, other] = [host.bell(), host.bell()];
    other.iommuGroup.canShare = () => false;
    host.join(dev);
    host.join(other);
    expect(host.type1.domains.length).toBe(2);
    host.set(dev, { iova: 0x900_0000, size: 0x4000 });
    host.enable(dev, 4);
    const pages = [...host.domain(dev).pages];
    expect(pages).toEqual([[0x900_0000, { pa: ITS, prot: Prot.WRITE | Prot.NOEXEC | Prot.MMIO }]]);
    expect(host.domain(other).pages.size).toBe(0);
  });

  it('with READ|WRITE|MMIO under iommufd, as iommufd maps its own window', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    const ioas = new FakeIoas();
    const domain = ioas.hwpt();
    attach(host, dev, ioas, domain);
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1);
    expect([...domain.pages]).toEqual([[0x900_0000, { pa: ITS, prot: Prot.READ | Prot.WRITE | Prot.MMIO }]]);
  });

  it('a page of 64 KiB where G is 64 KiB', () => {
    const host = new DoorbellHost();
    const domain = new FakeDomain('unmanaged', [65536]);
    const dev = host.attached({ msix: 1 }, domain);
    host.set(dev, { iova: 0x900_0000, size: 0x1_0000 });
    host.enable(dev, 1);
    expect([...domain.pages]).toEqual([[0x900_0000, { pa: ITS, prot: Prot.WRITE | Prot.NOEXEC | Prot.MMIO }]]);
    expect(host.entry(dev, 0).address).toBe(0x900_0040);
  });
});

describe('rule 14: a page that holds more than the doorbell', () => {
  const v2m = { base: 0x802_0000, size: 0x1000, register: 0x40, isolated: false };

  it('EPERM for a 4 KiB GICv2m frame with 64 KiB pages', () => {
    const host = new DoorbellHost({ pageSize: 65536 });
    host.parent.doorbells = [v2m];
    const dev = host.attached({ msix: 1 }, new FakeDomain('unmanaged', [65536]));
    expect(host.refused(dev, { iova: 0x900_0000, size: 0x1_0000 })).toBe('EPERM iova');
    host.context.modules.vfio_iommu_type1.allow_unsafe_interrupts = true;
    expect(host.set(dev, { iova: 0x900_0000, size: 0x1_0000 })).toBe(0);
    expect(host.enable(dev, 1)).toBe(1);
  });

  it('fine with 4 KiB pages, and for the ITS with 64 KiB pages', () => {
    const host = new DoorbellHost();
    host.parent.doorbells = [v2m];
    expect(host.set(host.attached(), { iova: 0x900_0000 })).toBe(0);
    const large = new DoorbellHost({ pageSize: 65536 });
    const dev = large.attached({ msix: 1 }, new FakeDomain('unmanaged', [65536]));
    expect(large.set(dev, { iova: 0x900_0000, size: 0x1_0000 })).toBe(0);
  });

  it('each kind of context has its own parameter', () => {
    const host = new DoorbellHost({ pageSize: 65536 });
    host.parent.doorbells = [v2m];
    const dev = host.bell({ msix: 1 });
    const ioas = new FakeIoas();
    attach(host, dev, ioas, ioas.hwpt(new FakeDomain('unmanaged', [65536])));
    host.context.modules.vfio_iommu_type1.allow_unsafe_interrupts = true;
    expect(host.refused(dev, { iova: 0x900_0000, size: 0x1_0000 })).toBe('EPERM iova');
    host.context.modules.iommufd.allow_unsafe_interrupts = true;
    expect(host.set(dev, { iova: 0x900_0000, size: 0x1_0000 })).toBe(0);
  });

  it('is found at the attach, and at the allocation when the parameter was taken back', () => {
    const host = new DoorbellHost({ pageSize: 65536 });
    host.parent.doorbells = [v2m];
    const dev = host.bell({ msix: 1 });
    const ioas = new FakeIoas();
    const domain = ioas.hwpt(new FakeDomain('unmanaged', [65536]));
    expect(host.set(dev, { iova: 0x900_0000, size: 0x1_0000 })).toBe(0);
    expect(outcome(attach(host, dev, ioas, domain))).toBe('EPERM');
    host.context.modules.iommufd.allow_unsafe_interrupts = true;
    expect(attach(host, dev, ioas, domain)).toBe(0);
    host.context.modules.iommufd.allow_unsafe_interrupts = false;
    expect(outcome(host.enable(dev, 1))).toBe('ENOSPC');
    expect(domain.pages.size).toBe(0);
  });
});

describe('rule 15: counted by allocated vectors', () => {
  it('vectors without an eventfd count; at zero the page is unmapped', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x900_0000 });
    expect(host.msi.allocIrqVectors(dev, 1, 4, 'msix')).toBe(4);
    const domain = host.domain(dev);
    expect(doorbellPages(host.context, 'type1', domain).slots).toEqual([{ iova: 0x900_0000, pa: ITS, vectors: 4 }]);
    for (let i = 0; i < 4; i++) host.msi.freeIrq(host.msi.irqVector(dev, i));
    expect(domain.pages.size).toBe(1);
    host.msi.freeIrqVectors(dev);
    expect([domain.pages.size, domain.stale.size]).toEqual([0, 0]);
    expect(host.type1.reservations.length).toBe(1);
  });

  it('vectors that come and go one by one', () => {
    const host = new DoorbellHost();
    host.parent.dynamicMsix = true;
    const dev = host.attached();
    host.set(dev, { start: 3, count: 1, iova: 0x900_0000 });
    host.msi.allocIrqVectors(dev, 1, 1, 'msix');
    expect(host.domain(dev).lookup(0x900_0000)).toBe(-1);
    host.msi.msixAllocAt(dev, 3);
    expect(host.domain(dev).lookup(0x900_0000)).toBe(ITS);
    host.msi.msixFreeAt(dev, 3);
    expect(host.domain(dev).lookup(0x900_0000)).toBe(-1);
  });

  it('the kernel’s window keeps its page for as long as the domain lives', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.enable(dev, 2);
    host.msi.freeIrqVectors(dev);
    expect(host.domain(dev).lookup(0x800_0000)).toBe(ITS);
  });

  it('a failed allocation leaves no count behind', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x900_0000 });
    host.parent.allocate = () => -28;
    expect(outcome(host.enable(dev, 2))).toBe('ENOSPC');
    expect(host.domain(dev).pages.size).toBe(0);
  });
});

describe('rule 17: replacing the domain', () => {
  it('G10: installs in the new one before the switch; the message does not change', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    const [a, b] = [new FakeIoas(), new FakeIoas()];
    const [from, to] = [a.hwpt(), b.hwpt()];
    attach(host, dev, a, from);
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 2);
    const move = dev.bell.beginMove({ dma: b, domain: to });
    if (typeof move === 'number') throw new Error(`${move}`);
    expect([from.lookup(0x900_0040), to.lookup(0x900_0040)]).toEqual([ITS + 0x40, ITS + 0x40]);
    dev.iommuGroup.replace(to);
    move.commit();
    expect([from.pages.size, from.stale.size, to.pages.size]).toEqual([0, 0, 1]);
    expect([a.reserved.length, b.reserved.length]).toEqual([0, 1]);
    expect(host.entry(dev, 1)).toEqual({ address: 0x900_0040, data: 1, masked: false });
    host.msi.freeIrqVectors(dev);
    expect(to.pages.size).toBe(0);
  });

  it('failure keeps the old: a map of the new IOAS is in the way', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    const [a, b] = [new FakeIoas(), new FakeIoas()];
    const from = a.hwpt();
    attach(host, dev, a, from);
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1);
    b.maps.push({ start: 0x900_0000, end: 0x900_0fff });
    expect(outcome(attach(host, dev, b))).toBe('EADDRINUSE');
    expect(host.arrives(dev, 0)).toBe(ITS + 0x40);
    expect([a.reserved.length, b.reserved.length]).toEqual([1, 0]);
  });

  it('failure keeps the old: the slot stands for another doorbell in the new domain', () => {
    const host = new DoorbellHost();
    const [dev, other] = [host.bell({ msix: 1 }), host.bell({ msix: 1 })];
    host.parent.frameOf = (desc) => page(desc.dev === dev ? 0 : 1);
    const [a, b] = [new FakeIoas(), new FakeIoas()];
    const to = b.hwpt();
    attach(host, dev, a);
    attach(host, other, b, to);
    for (const each of [dev, other]) {
      host.set(each, { iova: 0x900_0000 });
      host.enable(each, 1);
    }
    expect(outcome(attach(host, dev, b, to))).toBe('EADDRINUSE');
    expect(slots(host, to)).toEqual([{ iova: 0x900_0000, pa: ITS + 0x2_0000, vectors: 1 }]);
    expect([a.reserved.length, b.reserved.length]).toEqual([1, 1]);
  });

  it('a cancelled move leaves nothing behind', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    const [a, b] = [new FakeIoas(), new FakeIoas()];
    const to = b.hwpt();
    attach(host, dev, a);
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1);
    const move = dev.bell.beginMove({ dma: b, domain: to });
    if (typeof move === 'number') throw new Error(`${move}`);
    move.cancel();
    expect([to.pages.size, b.reserved.length, a.reserved.length]).toEqual([0, 0, 1]);
    expect(host.arrives(dev, 0)).toBe(ITS + 0x40);
  });

  it('between two domains of one IOAS the reservation stays', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    const ioas = new FakeIoas();
    const [from, to] = [ioas.hwpt(), ioas.hwpt()];
    attach(host, dev, ioas, from);
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1);
    expect(attach(host, dev, ioas, to)).toBe(0);
    expect(ioas.reserved.length).toBe(1);
    expect([from.pages.size, to.pages.size]).toEqual([0, 1]);
    dev.bell.close();
    expect(ioas.reserved.length).toBe(0);
  });
});

describe('rule 18: how it ends', () => {
  it('at clear, at last close, at detach', () => {
    const host = new DoorbellHost();
    const ioas = new FakeIoas();
    const dev = host.bell();
    attach(host, dev, ioas);
    host.set(dev, { iova: 0x900_0000 });
    host.set(dev, { size: 0 });
    expect(ioas.reserved).toEqual([]);
    host.set(dev, { iova: 0x900_0000 });
    detach(dev);
    expect(ioas.reserved).toEqual([]);
    attach(host, dev, ioas);
    expect(ioas.reserved.length).toBe(1);
    dev.bell.close();
    expect(ioas.reserved).toEqual([]);
    detach(dev);
    expect(host.get(dev).iova).toBe(0);
  });

  it('on close, or kill: vectors masked, off and freed; then unmap, invalidate; then the reservation', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 2 });
    const shared = host.attached({ msix: 2 });
    for (const each of [dev, shared]) {
      host.set(each, { iova: 0x900_0000 });
      host.enable(each, 2);
    }
    const domain = host.domain(dev);
    const order: string[] = [];
    domain.onUnmap = () => {
      order.push(
        `unmap, enable ${host.msixControl(shared) >> 15}, live ${host.live(shared, 0) || host.live(shared, 1)}`,
      );
      order.push(`reserved ${host.type1.reservations.length}, events ${host.parent.active.size}`);
    };
    const sync = domain.sync.bind(domain);
    domain.sync = () => void [order.push('sync'), sync()];
    const release = host.type1.release.bind(host.type1);
    host.type1.release = (...given) => void [order.push('release'), release(...given)];
    dev.bell.close();
    expect(order).toEqual([]);
    shared.bell.close();
    expect(order).toEqual(['unmap, enable 0, live false', 'reserved 1, events 0', 'sync', 'release']);
  });

  it('no vector is unmasked when its page disappears, in any order of closing', () => {
    const host = new DoorbellHost();
    const devs = [host.attached(), host.attached(), host.attached()];
    for (const dev of devs) {
      host.set(dev, { iova: 0x900_0000 });
      host.enable(dev, 4);
    }
    for (const dev of [devs[1]!, devs[2]!, devs[0]!]) dev.bell.close();
    expect(host.violations).toEqual([]);
    expect(host.domain(devs[0]!).pages.size).toBe(0);
  });

  it('detach and attach again with vectors allocated: the same message works in the new domain', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    const [a, b] = [new FakeIoas(), new FakeIoas()];
    const from = a.hwpt();
    attach(host, dev, a, from);
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1);
    detach(dev);
    expect([from.pages.size, host.arrives(dev, 0)]).toEqual([0, -1]);
    expect(host.get(dev)).toMatchObject({ iova: 0x900_0040, flags: 0 });
    expect(attach(host, dev, b)).toBe(0);
    expect(host.arrives(dev, 0)).toBe(ITS + 0x40);
  });

  it('a reset rewrites the same message', () => {
    const host = new DoorbellHost();
    const dev = host.attached({ msix: 1 });
    host.set(dev, { iova: 0x900_0000 });
    host.enable(dev, 1);
    host.context.bus.write32(dev.table, 0);
    dev.restoreMsiState?.();
    expect(host.entry(dev, 0)).toEqual({ address: 0x900_0040, data: 0, masked: false });
  });

  it('closed, it is as new: the next owner finds the kernel’s window', () => {
    const host = new DoorbellHost();
    const dev = host.attached();
    host.set(dev, { iova: 0x900_0000 });
    dev.bell.close();
    host.enable(dev, 1);
    expect(host.entry(dev, 0).address).toBe(0x800_0040);
    expect(host.map(0x900_0000, 0x1000)).toBe(0);
  });
});

describe('rule 19: where no IOVA can stand for the doorbell', () => {
  it('bypass: EOPNOTSUPP, behind a wrong start and before a wrong size', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    dev.iommuGroup.regions = [{ start: 0xfee0_0000, end: 0xfeef_ffff, type: 'msi' }];
    host.join(dev);
    expect(host.refused(dev, { start: 9, count: 1 })).toBe('EINVAL start');
    expect(host.refused(dev, { iova: 0x900_0000, size: 1 })).toBe('EOPNOTSUPP index');
    expect(host.refused(dev, { size: 0 })).toBe('EOPNOTSUPP index');
  });

  it('identity: EOPNOTSUPP', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    dev.iommuGroup.attach(new FakeDomain('identity'));
    expect(host.refused(dev, { iova: 0x900_0000 })).toBe('EOPNOTSUPP index');
  });

  it('nested: SET is EOPNOTSUPP and points to PREPARE', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    dev.iommuGroup.attach(new FakeDomain('nested'));
    expect(host.set(dev, { iova: 0x900_0000 })).toBe('EOPNOTSUPP');
    expect(host.context.refusals.last?.hint).toContain('PREPARE');
  });

  it('nested: PREPARE names the stage-1 page, the window’s page is installed in stage 2', () => {
    const host = new DoorbellHost();
    const dev = host.bell({ msix: 2 });
    const [nested, parent] = [new FakeDomain('nested'), new FakeDomain()];
    setMsiCookie(nested, createType1WindowCookie(host.context, parent, 0x800_0000));
    dev.iommuGroup.attach(nested);
    expect(dev.bell.prepareStage1('msix', 1, [0xffbf_0000n])).toBe(0);
    expect(host.enable(dev, 2)).toBe(2);
    expect([0, 1].map((i) => host.entry(dev, i).address)).toEqual([0x800_0040, 0xffbf_0040]);
    expect([...parent.pages.keys()]).toEqual([0x800_0000]);
    host.msi.freeIrqVectors(dev);
    expect(dev.bell.prepareStage1('msix', 0, null)).toBe(0);
    host.enable(dev, 2);
    expect(host.entry(dev, 1).address).toBe(0x800_0040);
  });

  it('PREPARE: EOPNOTSUPP without nesting, EINVAL for the other index, what no stage 1 reaches, and abi linux-7.2', () => {
    const host = new DoorbellHost();
    expect(outcome(host.attached().bell.prepareStage1('msix', 0, [0x1000n]))).toBe('EOPNOTSUPP');
    const dev = host.bell({ msix: 2, msi: 1 });
    const nested = new FakeDomain('nested');
    setMsiCookie(nested, createType1WindowCookie(host.context, new FakeDomain(), 0x800_0000));
    dev.iommuGroup.attach(nested);
    host.context.refusals.last = null;
    expect(outcome(dev.bell.prepareStage1('msix', 0, [0x1040n]))).toBe(0);
    expect(outcome(dev.bell.prepareStage1('msix', 0, [2n ** 52n]))).toBe('EINVAL');
    expect(host.refusal()).toBe('EINVAL data');
    host.enable(dev, 1, 'msi');
    expect(outcome(dev.bell.prepareStage1('msix', 0, [0x1000n]))).toBe('EINVAL');
    expect(host.refusal()).toBe('EINVAL index');
    const linux = new DoorbellHost({ abi: 'linux-7.2' });
    expect(outcome(linux.bell().bell.prepareStage1('msix', 0, [0x1000n]))).toBe('EINVAL');
  });

  it('a device with a range cannot be attached to a nested domain', () => {
    const host = new DoorbellHost();
    const dev = host.bell();
    host.set(dev, { iova: 0x900_0000 });
    const ioas = new FakeIoas();
    expect(outcome(attach(host, dev, ioas, ioas.hwpt(new FakeDomain('nested'))))).toBe('EOPNOTSUPP');
    expect(host.refusal()).toBe('EOPNOTSUPP pt_id');
  });
});
