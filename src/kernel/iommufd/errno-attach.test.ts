/** Attach and replace of a device's page table: each errno by name, in the order of Linux (iommufd/device.c, io_pagetable.c). */
import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import { MapDomain, testUnit } from '../vfio/test-host.ts';
import { iommufdHost } from './testing.ts';
import { blamed, PAGE, twins, WINDOW } from './testing-errno.ts';

type Host = ReturnType<typeof iommufdHost>;

const bind = ({ client, iommufd, devices }: Host, fields: { iommufd?: number } = {}, device = devices[0]!) =>
  blamed(client, iommufd.bind(device, fields));
const attach = ({ client, iommufd, devices }: Host, id: number, device = devices[0]!) =>
  blamed(client, iommufd.attach(device, id));

describe('errno of an attach', () => {
  it('attach: EINVAL another page table than the group has, before EADDRINUSE', () => {
    const host = twins();
    const { iommufd, devices, id, memory } = host;
    expect(attach(host, id)).toBe(4);
    const other = iommufd.ioas();
    iommufd.mapAt(other, WINDOW, memory.address, PAGE);
    const hwpt = Number(iommufd.hwpt(1, other));
    expect(hwpt).toBe(6);
    expect(attach(host, hwpt, devices[1]!)).toBe('EINVAL pt_id');
  });

  it('attach: EADDRINUSE a reserved region over a mapping, before the errno of the IOMMU', () => {
    const host = iommufdHost();
    const id = host.iommufd.ioas();
    bind(host);
    host.iommufd.mapAt(id, WINDOW, host.memory.address, PAGE);
    host.groups[0]!.refuseAttach = -ERRNO.EBUSY;
    expect(attach(host, id)).toBe('EADDRINUSE pt_id');
  });

  it('attach: EADDRINUSE a reserved region over ALLOW_IOVAS', () => {
    const host = iommufdHost();
    const id = host.iommufd.ioas();
    bind(host);
    host.iommufd.allow(id, [[0, WINDOW]]);
    host.groups[0]!.refuseAttach = -ERRNO.EBUSY;
    expect(attach(host, id)).toBe('EADDRINUSE pt_id');
    expect(host.iommufd.ranges(id).total).toBe(1);
  });

  it('attach: EINVAL a software and a hardware MSI region, before the errno of the IOMMU', () => {
    const host = iommufdHost();
    const id = host.iommufd.ioas();
    bind(host);
    const [group] = host.groups;
    group!.regions = [...group!.regions, { start: 0xfee0_0000, end: 0xfeef_ffff, type: 'msi' }];
    group!.refuseAttach = -ERRNO.EBUSY;
    expect(attach(host, id)).toBe('EINVAL pt_id');
  });

  it('attach: the errno of the IOMMU, before EINVAL of its page size, EADDRINUSE of its aperture, and EFAULT', () => {
    const units = [testUnit({ pageSizes: [0x1_0000], aperture: [0, 0xffff_ffff] })];
    const host = iommufdHost({ units });
    const id = host.iommufd.ioas();
    bind(host);
    host.iommufd.mapAt(id, 2 ** 32, PAGE, PAGE);
    host.groups[0]!.refuseAttach = -ERRNO.EBUSY;
    expect(attach(host, id)).toBe('EBUSY');
  });

  it('attach: EINVAL the smallest page of the IOMMU is larger than the kernel’s, before EADDRINUSE', () => {
    const host = iommufdHost({ units: [testUnit({ pageSizes: [0x1_0000], aperture: [0, 0xffff_ffff] })] });
    const id = host.iommufd.ioas();
    bind(host);
    host.iommufd.mapAt(id, 2 ** 32 + 1, PAGE, PAGE);
    expect(attach(host, id)).toBe('EINVAL pt_id');
  });

  it('attach: EADDRINUSE a mapping that is no multiple of the IOMMU’s page, and one beyond its aperture, before EFAULT', () => {
    for (const iova of [0x1001, 2 ** 48]) {
      const host = iommufdHost();
      const id = host.iommufd.ioas();
      bind(host);
      expect(host.iommufd.mapAt(id, iova, PAGE, PAGE)).toBe(0);
      expect(attach(host, id)).toBe('EADDRINUSE pt_id');
      expect(host.iommufd.ranges(id)).toMatchObject({ total: 1, alignment: 1n });
    }
  });

  it('attach: EFAULT and ENOMEM of what has to be pinned now, and the group stays blocked', () => {
    const host = iommufdHost({ process: { capabilities: [], limits: { memlock: 0 } } });
    const id = host.iommufd.ioas();
    bind(host);
    host.iommufd.mapAt(id, 0x1000, PAGE, PAGE);
    expect(attach(host, id)).toBe('EFAULT user_va');
    host.iommufd.unmap(id, 0x1000, PAGE);
    host.iommufd.mapAt(id, 0x1000, host.memory.address, PAGE);
    expect(attach(host, id)).toBe('ENOMEM length');
    expect(host.groups[0]!.domain).toBe(host.groups[0]!.blockingDomain);
  });

  it('attach: EINVAL of an automatic page table means another: one is made for the device', () => {
    const units = [testUnit(), testUnit()];
    const host = iommufdHost({ groups: 2, units });
    const [, second] = host.groups;
    second!.attach = function attach(domain) {
      if (domain instanceof MapDomain && domain.unit !== units[1]) return -ERRNO.EINVAL;
      this.domain = domain;
      return 0;
    };
    const id = host.iommufd.ioas();
    for (const device of host.devices) bind(host, {}, device);
    expect(host.devices.map((device) => attach(host, id, device))).toEqual([4, 5]);
  });

  it('replace: the errno of the new IOAS, of the doorbell page and of the IOMMU leave the old page table', () => {
    const host = iommufdHost();
    const { iommufd, groups, memory } = host;
    const [id, other] = [iommufd.ioas(), iommufd.ioas()];
    bind(host);
    expect(attach(host, id)).toBe(4);
    const before = groups[0]!.domain;
    iommufd.mapAt(other, WINDOW, memory.address, PAGE);
    const { replace } = groups[0]!;
    groups[0]!.replace = () => -ERRNO.EBUSY;
    expect(attach(host, other)).toBe('EADDRINUSE pt_id');
    iommufd.unmap(other, WINDOW, PAGE);
    expect(attach(host, other)).toBe('EBUSY');
    groups[0]!.replace = replace;
    expect([groups[0]!.domain === before, iommufd.ranges(other).total, iommufd.ranges(id).total]).toEqual([true, 1, 2]);
  });
});
