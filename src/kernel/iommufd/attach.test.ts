import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import { MapDomain, TestOps, testDevice, testUnit } from '../vfio/test-host.ts';
import { attachedHost, Iommufd, iommufdHost } from './testing.ts';

const WINDOW = 0x800_0000;
const PAGE = 4096;

/** Two devices in group 0: vfio0 and vfio1. */
function twins() {
  const host = iommufdHost();
  const name = '0000:01:00.1';
  host.vfio.register(testDevice(name, host.groups[0]!), new TestOps(name, host.events, host.context));
  const devices = [host.devices[0]!, host.client.open('/dev/vfio/devices/vfio1')];
  return { ...host, devices };
}

describe('an attach to an IOAS', () => {
  it('makes a page table of its own accord, shares it with the next device, and takes it away with the last', () => {
    const { iommufd, devices, groups } = iommufdHost({ groups: 2 });
    const id = iommufd.ioas();
    expect(devices.map((device) => iommufd.bind(device))).toEqual([2, 3]);
    expect(devices.map((device) => iommufd.attach(device, id))).toEqual([4, 4]);
    expect(groups[0]!.domain).toBe(groups[1]!.domain);
    expect(iommufd.destroy(id)).toBe('EBUSY');
    expect(iommufd.destroy(4)).toBe('EBUSY');
    iommufd.detach(devices[0]!);
    expect(groups[0]!.domain).toBe(groups[0]!.blockingDomain);
    expect(iommufd.destroy(4)).toBe('EBUSY');
    iommufd.detach(devices[1]!);
    expect(iommufd.destroy(4)).toBe('ENOENT');
    expect(groups[0]!.made.every((domain) => domain.freed)).toBe(true);
    expect(iommufd.destroy(id)).toBe(0);
  });

  it('gives each IOMMU its own, with the same mappings', () => {
    const units = [testUnit(), testUnit({ aperture: [0, 2 ** 39 - 1] })];
    const { iommufd, devices, groups, memory } = iommufdHost({ groups: 2, units });
    // A table of another IOMMU is refused by the driver with EINVAL.
    groups[1]!.attach = function attach(domain) {
      if (domain instanceof MapDomain && domain.unit !== units[1]) return -ERRNO.EINVAL;
      this.domain = domain;
      return 0;
    };
    const id = iommufd.ioas();
    for (const device of devices) iommufd.bind(device);
    iommufd.mapAt(id, 0x1000, memory.address, PAGE);
    expect(devices.map((device) => iommufd.attach(device, id))).toEqual([4, 5]);
    expect(iommufd.ranges(id).list.at(-1)).toEqual([0x810_0000n, 2n ** 39n - 1n]);
    expect(groups.map((group) => (group.domain as MapDomain).pages.size)).toEqual([1, 1]);
    expect(iommufd.mapAt(id, 0x3000, memory.address, PAGE)).toBe(0);
    expect(groups.map((group) => (group.domain as MapDomain).pages.size)).toEqual([2, 2]);
    groups[1]!.made.at(-1)!.refuseMaps = -ERRNO.ENOMEM;
    expect(iommufd.mapAt(id, 0x5000, memory.address, PAGE)).toBe('ENOMEM');
    expect(groups.map((group) => (group.domain as MapDomain).pages.size)).toEqual([2, 2]);
    iommufd.detach(devices[1]!);
    expect(iommufd.ranges(id).list.at(-1)).toEqual([0x810_0000n, 2n ** 48n - 1n]);
    expect(iommufd.mapAt(id, 0x5000, memory.address, PAGE)).toBe(0);
  });

  it('leaves nothing behind when the driver, the mappings or the page size are in the way', () => {
    const { iommufd, devices, groups, memory } = iommufdHost();
    const [group] = groups;
    const id = iommufd.ioas();
    iommufd.bind(devices[0]!);
    group!.refuseAttach = -ERRNO.EBUSY;
    expect(iommufd.attach(devices[0]!, id)).toBe('EBUSY');
    group!.refuseAttach = 0;
    iommufd.mapAt(id, 0x1000, memory.address, PAGE);
    group!.allocateDomain = () => {
      const domain = new MapDomain(testUnit());
      domain.refuseMaps = -ERRNO.ENOMEM;
      return domain;
    };
    expect(iommufd.attach(devices[0]!, id)).toBe('ENOMEM');
    group!.allocateDomain = () => new MapDomain(testUnit({ pageSizes: [0x1_0000] }));
    expect(iommufd.attach(devices[0]!, id)).toBe('EINVAL');
    group!.allocateDomain = () => -ERRNO.ENOSPC;
    expect(iommufd.attach(devices[0]!, id)).toBe('ENOSPC');
    expect(group!.domain).toBe(group!.blockingDomain);
    expect(iommufd.ranges(id).total).toBe(1);
    expect([iommufd.ctx.objects.size, iommufd.destroy(id)]).toEqual([2, 0]);
  });

  it('may name neither nothing nor another type', () => {
    const { iommufd, devices } = iommufdHost();
    expect(iommufd.bind(devices[0]!)).toBe(1);
    expect(iommufd.attach(devices[0]!, 0)).toBe('ENOENT');
    expect(iommufd.attach(devices[0]!, 2)).toBe('ENOENT');
    expect(iommufd.attach(devices[0]!, 1)).toBe('EINVAL');
  });

  it('refuses a device with both kinds of MSI region, after their conflicts', () => {
    const { iommufd, devices, groups, memory } = iommufdHost();
    const id = iommufd.ioas();
    iommufd.bind(devices[0]!);
    groups[0]!.regions = [
      { start: WINDOW, end: WINDOW + 0xf_ffff, type: 'sw-msi' },
      { start: 0xfee0_0000, end: 0xfeef_ffff, type: 'msi' },
    ];
    iommufd.mapAt(id, 0xfee0_0000, memory.address, PAGE);
    expect(iommufd.attach(devices[0]!, id)).toBe('EADDRINUSE');
    iommufd.unmap(id, 0xfee0_0000, PAGE);
    expect(iommufd.attach(devices[0]!, id)).toBe('EINVAL');
    expect(iommufd.ranges(id).total).toBe(1);
  });

  it('leaves direct-relaxable regions usable, and takes all others out', () => {
    const { iommufd, devices, groups } = iommufdHost();
    groups[0]!.regions = [
      { start: 0x1000, end: 0x1fff, type: 'direct-relaxable' },
      { start: 0x3000, end: 0x3fff, type: 'reserved' },
      { start: 0x5000, end: 0x5fff, type: 'direct' },
    ];
    const id = iommufd.ioas();
    iommufd.bind(devices[0]!);
    iommufd.attach(devices[0]!, id);
    expect(iommufd.ranges(id).list.map(([start]) => start)).toEqual([0n, 0x4000n, 0x6000n]);
  });
});

describe('the devices of one group', () => {
  it('are of one iommufd', () => {
    const { iommufd, client, devices, groups } = twins();
    expect(iommufd.bind(devices[0]!)).toBe(1);
    const other = new Iommufd(client);
    expect(other.bind(devices[1]!)).toBe('EPERM');
    expect(iommufd.bind(devices[1]!)).toBe(2);
    client.close(devices[0]!);
    expect(groups[0]!.dmaOwner).toBe(iommufd.ctx);
    client.close(devices[1]!);
    expect(groups[0]!.dmaOwner).toBe(null);
  });

  it('translate through one page table, and move as one', () => {
    const { iommufd, devices, groups } = twins();
    const [a, b] = [iommufd.ioas(), iommufd.ioas()];
    expect(devices.map((device) => iommufd.bind(device))).toEqual([3, 4]);
    expect(iommufd.attach(devices[0]!, a)).toBe(5);
    expect(iommufd.attach(devices[1]!, b)).toBe('EINVAL');
    expect(iommufd.attach(devices[1]!, a)).toBe(5);
    // A replace of either moves both: nothing of A is reserved any more, and its table is gone.
    expect(iommufd.attach(devices[1]!, b)).toBe(6);
    expect([iommufd.ranges(a).total, iommufd.ranges(b).total]).toEqual([1, 2]);
    expect(iommufd.destroy(5)).toBe('ENOENT');
    expect(iommufd.detach(devices[0]!)).toBe(0);
    expect(groups[0]!.domain).not.toBe(groups[0]!.blockingDomain);
    expect(iommufd.ranges(b).total).toBe(2);
    expect(iommufd.detach(devices[1]!)).toBe(0);
    expect(groups[0]!.domain).toBe(groups[0]!.blockingDomain);
    expect(iommufd.ranges(b).total).toBe(1);
    expect([iommufd.destroy(a), iommufd.destroy(b)]).toEqual([0, 0]);
  });
});

describe('replace', () => {
  it('with the same table changes nothing, not even the users', () => {
    const { iommufd, id, devices } = attachedHost();
    expect(iommufd.attach(devices[0]!, id)).toBe(3);
    expect(iommufd.attach(devices[0]!, 3)).toBe(3);
    expect(iommufd.detach(devices[0]!)).toBe(0);
    expect(iommufd.destroy(3)).toBe('ENOENT');
  });

  it('keeps the old one when the new IOAS, the driver or the mappings refuse', () => {
    const { iommufd, id, devices, groups, va } = attachedHost();
    const [group] = groups;
    const before = group!.domain;
    const other = iommufd.ioas();
    const unchanged = () => {
      expect(group!.domain).toBe(before);
      expect([iommufd.ranges(id).total, iommufd.ranges(other).total]).toEqual([2, 1]);
      expect(iommufd.ctx.objects.size).toBe(4);
    };
    iommufd.mapAt(other, WINDOW, va, PAGE);
    expect(iommufd.attach(devices[0]!, other)).toBe('EADDRINUSE');
    unchanged();
    iommufd.unmap(other, WINDOW, PAGE);
    iommufd.mapAt(other, 0x1000, 0x1000, PAGE);
    expect(iommufd.attach(devices[0]!, other)).toBe('EFAULT');
    unchanged();
    iommufd.unmap(other, 0x1000, PAGE);
    const { replace } = group!;
    group!.replace = () => -ERRNO.EBUSY;
    expect(iommufd.attach(devices[0]!, other)).toBe('EBUSY');
    unchanged();
    group!.replace = replace;
    expect(iommufd.attach(devices[0]!, other)).toBe(5);
    expect([iommufd.ranges(id).total, iommufd.ranges(other).total]).toEqual([1, 2]);
  });

  it('has the mappings in the new table before the switch', () => {
    const { iommufd, devices, groups, va } = attachedHost();
    const [group] = groups;
    const other = iommufd.ioas();
    iommufd.mapAt(other, 0x1000, va, PAGE);
    let pagesAtSwitch = 0;
    const { replace } = group!;
    group!.replace = function switched(domain) {
      pagesAtSwitch = (domain as MapDomain).pages.size;
      return replace.call(this, domain);
    };
    expect(iommufd.attach(devices[0]!, other)).toBe(5);
    expect(pagesAtSwitch).toBe(1);
    expect(group!.made[0]!.freed).toBe(true);
  });
});
