import { describe, expect, it } from 'vitest';
import { CdevDevice } from './cdev-device.ts';
import { Hwpt } from './hwpt.ts';
import { Ioas } from './ioas.ts';
import { Iommufd } from './iommufd.ts';
import { caught } from './testing/caught.ts';
import { NAME } from './testing/scripted-host.ts';
import { scriptedIommufd } from './testing/scripted-iommufd.ts';

function bound() {
  const kernel = scriptedIommufd();
  const iommufd = Iommufd.open(kernel);
  const ioas = Ioas.create(iommufd);
  const device = CdevDevice.open(kernel, NAME);
  device.bind(iommufd);
  const table = Hwpt.create(device, ioas, { pasid: true });
  const other = Hwpt.create(device, ioas, { pasid: true });
  kernel.log.length = 0;
  return { kernel, iommufd, ioas, device, table, other };
}

const u32 = (value: number): string => value.toString(16).padStart(2, '0').padEnd(8, '0');

describe('PASIDs of a device', () => {
  it('attach, replace and detach send exactly their structs', () => {
    const { kernel, device, table, other } = bound();
    device.attach(table, { pasid: 5 });
    device.replace(other, { pasid: 5 });
    expect([...device.pasids]).toEqual([[5, other]]);
    device.detach({ pasid: 5 });
    device.detach({ pasid: 5 });
    expect(kernel.log).toEqual([
      // argsz 16, flags 1, pt_id, pasid.
      `VFIO_DEVICE_ATTACH_IOMMUFD_PT 1000000001000000${u32(table.id)}05000000`,
      `VFIO_DEVICE_ATTACH_IOMMUFD_PT 1000000001000000${u32(other.id)}05000000`,
      // argsz 12, flags 1, pasid.
      'VFIO_DEVICE_DETACH_IOMMUFD_PT 0c0000000100000005000000',
    ]);
    expect([device.table, device.pasids.size]).toEqual([null, 0]);
  });

  it('a page table is allocated for PASIDs', () => {
    const { kernel, device, ioas } = bound();
    Hwpt.create(device, ioas, { pasid: true });
    Hwpt.create(device, ioas);
    // size 48, flags 8 or 0.
    expect(kernel.log.map((line) => line.slice(0, 33))).toEqual([
      'IOMMU_HWPT_ALLOC 3000000008000000',
      'IOMMU_HWPT_ALLOC 3000000000000000',
    ]);
  });

  it('are refused in words', () => {
    const { device, table } = bound();
    device.attach(table, { pasid: 1 });
    expect(caught(() => device.attach(table, { pasid: 1 }))).toMatchObject({
      code: 'EBUSY',
      why: `PASID 1 of device ${NAME} is attached to page table ${table.id}`,
    });
    expect(caught(() => device.replace(table, { pasid: 2 })).why).toBe(
      `PASID 2 of device ${NAME} is attached to nothing`,
    );
    for (const pasid of [0, -1, 1.5, 2 ** 20]) {
      expect(caught(() => device.attach(table, { pasid }))).toMatchObject({ code: 'EINVAL', field: 'pasid' });
    }
  });

  it.each([
    ['EINVAL', 22, 'pt_id', 'was not made for PASIDs'],
    ['EBUSY', 16, 'pasid', 'attached already'],
    ['EOPNOTSUPP', 95, 'pasid', 'has no PASIDs'],
  ])('%s of a kernel that does not say why', (code, errno, field, why) => {
    const { kernel, device, table } = bound();
    kernel.on('VFIO_DEVICE_ATTACH_IOMMUFD_PT', () => -errno);
    const error = caught(() => device.attach(table, { pasid: 1 }));
    expect(error).toMatchObject({ code, field });
    expect(error.why).toContain(why);
    expect(device.pasids.size).toBe(0);
  });

  it('a table and its space know the device as long as anything of it is there', () => {
    const { device, ioas, table, other } = bound();
    device.attach(table);
    device.attach(table, { pasid: 1 });
    device.attach(other, { pasid: 2 });
    device.detach();
    expect([ioas.devices, device.uses(table), device.uses(other)]).toEqual([[device], true, true]);
    device.detach({ pasid: 1 });
    expect([ioas.devices, device.uses(table)]).toEqual([[device], false]);
    device.detach({ pasid: 2 });
    expect(ioas.devices).toEqual([]);
  });

  it('leave a table that is closed, and the space, before anything is destroyed', () => {
    const { kernel, device, ioas, table, other } = bound();
    device.attach(table);
    device.attach(table, { pasid: 1 });
    device.attach(other, { pasid: 2 });
    kernel.log.length = 0;
    table.close();
    expect(kernel.log.map((line) => line.split(' ')[0])).toEqual([
      'VFIO_DEVICE_DETACH_IOMMUFD_PT',
      'VFIO_DEVICE_DETACH_IOMMUFD_PT',
      'IOMMU_DESTROY',
    ]);
    expect([device.table, [...device.pasids.keys()]]).toEqual([null, [2]]);
    ioas.close();
    expect(device.pasids.size).toBe(0);
  });

  it('end with the device’s file', () => {
    const { device, ioas, table, other } = bound();
    device.attach(table);
    device.attach(other, { pasid: 2 });
    device.close();
    expect([ioas.devices, device.table, device.pasids.size]).toEqual([[], null, 0]);
  });
});
