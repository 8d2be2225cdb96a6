import { describe, expect, it } from 'vitest';
import { Container } from './container.ts';
import { groupOf } from './device-names.ts';
import { Group } from './group.ts';
import { openDevice } from './open-device.ts';
import { reservedRegions } from './reserved-regions.ts';
import { caught } from './testing/caught.ts';
import { NAME, scriptedHost } from './testing/scripted-host.ts';

describe('a group', () => {
  it('tells viability from its status', () => {
    const kernel = scriptedHost();
    const group = Group.open(kernel, 3);
    expect(group.viable).toBe(true);
    expect(group.containerSet).toBe(false);
    expect(kernel.log.at(-1)).toBe('VFIO_GROUP_GET_STATUS 0800000000000000');
  });

  it('asks for a device by its name, ending in NUL', () => {
    const kernel = scriptedHost();
    const group = Group.open(kernel, 3);
    group.setContainer(Container.open(kernel));
    const device = group.openDevice(NAME);
    expect(kernel.log.at(-1)).toBe(`VFIO_GROUP_GET_DEVICE_FD ${Buffer.from(`${NAME}\0`).toString('hex')}`);
    expect(device.name).toBe(NAME);
  });

  it('names who holds it when it is not viable', () => {
    const kernel = scriptedHost().on('VFIO_GROUP_SET_CONTAINER', () => 'EPERM');
    kernel.lists.set('/sys/kernel/iommu_groups/3/devices', [NAME, '0000:01:00.1']);
    kernel.links.set('/sys/bus/pci/devices/0000:01:00.1/driver', '../../../../bus/pci/drivers/e1000e');
    const group = Group.open(kernel, 3);
    expect(caught(() => group.setContainer(Container.open(kernel))).message).toBe(
      'VFIO_GROUP_SET_CONTAINER: EPERM: group 3 is not viable: 0000:01:00.1 (e1000e); bind these to vfio-pci too',
    );
  });

  it('says what to do when there is no such file', () => {
    expect(caught(() => Group.open(scriptedHost(), 4)).message).toBe(
      'open(/dev/vfio/4): ENOENT: no device of IOMMU group 4 is bound to vfio-pci; bind one: driver_override, then bind',
    );
    expect(caught(() => Group.open(scriptedHost().file('/dev/vfio/3', 'EBUSY'), 3)).message).toContain(
      'is open already',
    );
  });

  it('lists the devices when it has not the one asked for', () => {
    const kernel = scriptedHost().on('VFIO_GROUP_GET_DEVICE_FD', () => 'ENODEV');
    const group = Group.open(kernel, 3);
    expect(caught(() => group.openDevice('0000:02:00.0')).message).toContain(
      'group 3 has no device 0000:02:00.0 of vfio-pci, it has 0000:01:00.0',
    );
  });

  it('leaves its container', () => {
    const kernel = scriptedHost();
    const container = Container.open(kernel);
    const group = Group.open(kernel, 3);
    group.setContainer(container);
    group.unsetContainer();
    expect(container.groups).toEqual([]);
    container.close();
    expect(group.isClosed).toBe(false);
    expect(kernel.openPaths).toEqual(['/dev/vfio/3']);
  });

  it('reads the reserved regions of sysfs', () => {
    const kernel = scriptedHost();
    kernel.texts.set(
      '/sys/kernel/iommu_groups/7/reserved_regions',
      '0x00000000000a0000 0x00000000000fffff direct-relaxable\n0x00000000fee00000 0x00000000feefffff msi\n' +
        '0x000000fd00000000 0xffffffffffffffff reserved\n',
    );
    expect(reservedRegions(kernel, 7)).toEqual([
      { start: 0xa_0000, end: 0xf_ffff, type: 'direct-relaxable' },
      { start: 0xfee0_0000, end: 0xfeef_ffff, type: 'msi' },
      { start: 0xfd_0000_0000, end: Number.MAX_SAFE_INTEGER, type: 'reserved' },
    ]);
    expect(reservedRegions(kernel, 8)).toBeNull();
  });
});

describe('openDevice', () => {
  it('opens container, group and device, and closes them the other way round', () => {
    const kernel = scriptedHost();
    {
      using device = openDevice(kernel, NAME);
      device.container.mapDma({ length: 4096 });
      expect(device.group.number).toBe(3);
      kernel.log.length = 0;
    }
    expect(kernel.log.map((line) => line.split(' ')[0])).toEqual([
      'close(device)',
      'VFIO_IOMMU_UNMAP_DMA',
      'free',
      'close(/dev/vfio/3)',
      'close(/dev/vfio/vfio)',
    ]);
    expect(kernel.openPaths).toEqual([]);
  });

  it('shares a container, which then stays', () => {
    const kernel = scriptedHost();
    using container = Container.open(kernel);
    const device = openDevice(kernel, NAME, container);
    device.close();
    expect(kernel.openPaths).toEqual(['/dev/vfio/vfio', '/dev/vfio/3']);
    expect(openDevice(kernel, NAME, container).group.number).toBe(3);
  });

  it.each(['VFIO_GROUP_SET_CONTAINER', 'VFIO_SET_IOMMU', 'VFIO_GROUP_GET_DEVICE_FD'])(
    'leaves nothing open when %s fails',
    (name) => {
      const kernel = scriptedHost().on(name, () => 'EBUSY');
      expect(caught(() => openDevice(kernel, NAME))).toMatchObject({ code: 'EBUSY', request: name });
      expect(kernel.openPaths).toEqual([]);
    },
  );

  it('tells a missing device from a missing IOMMU', () => {
    expect(() => groupOf(scriptedHost(), '0000:05:00.0')).toThrow('ENODEV: there is no PCI device 0000:05:00.0');
    expect(() => groupOf(scriptedHost(), '0000:00:01.0')).toThrow('ENODEV: no IOMMU translates for 0000:00:01.0');
  });
});
