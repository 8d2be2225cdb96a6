import { describe, expect, it } from 'vitest';
import { CdevDevice } from './cdev-device.ts';
import { Container } from './container.ts';
import { Hwpt } from './hwpt.ts';
import { Ioas } from './ioas.ts';
import { Iommufd } from './iommufd.ts';
import { openDevice, waysTo } from './open-device.ts';
import { caught } from './testing/caught.ts';
import { NAME } from './testing/scripted-host.ts';
import { DEVICE_FILE, put64, scriptedIommufd } from './testing/scripted-iommufd.ts';
import type { ScriptedKernel } from './testing/scripted-kernel.ts';

function bound(kernel: ScriptedKernel) {
  const iommufd = Iommufd.open(kernel);
  const ioas = Ioas.create(iommufd);
  const device = CdevDevice.open(kernel, NAME);
  device.bind(iommufd);
  kernel.log.length = 0;
  return { iommufd, ioas, device };
}

/** Names alone, and paths of what was closed. */
const names = (kernel: ScriptedKernel): string[] => kernel.log.map((line) => line.split(' ')[0] ?? '');

describe('a device by its own file', () => {
  it('is found through sysfs', () => {
    const kernel = scriptedIommufd();
    const device = CdevDevice.open(kernel, NAME);
    expect(kernel.log).toEqual([`open(${DEVICE_FILE}) = 3`]);
    expect([device.name, device.groupNumber, device.reservedRegions.length]).toEqual([NAME, 3, 1]);
    expect(caught(() => CdevDevice.open(kernel, '0000:00:01.0')).message).toBe(
      'list(/sys/bus/pci/devices/0000:00:01.0/vfio-dev): ENODEV: 0000:00:01.0 has no VFIO file of its own; ' +
        'bind it to vfio-pci; the kernel must have CONFIG_VFIO_DEVICE_CDEV',
    );
    expect(caught(() => CdevDevice.open(kernel, '0000:09:00.0')).why).toBe('there is no PCI device 0000:09:00.0');
  });

  it('has a space, and no group and no container', () => {
    const { device, ioas } = bound(scriptedIommufd());
    expect(caught(() => device.space).why).toBe(`device ${NAME} is attached to no address space`);
    device.attach(ioas);
    expect(device.space).toBe(ioas);
    for (const use of [() => device.group, () => device.container]) {
      expect(caught(use)).toMatchObject({ code: 'EINVAL', request: 'group' });
    }
  });

  it('BIND, ATTACH, replace and DETACH send exactly their structs', () => {
    const kernel = scriptedIommufd();
    const iommufd = Iommufd.open(kernel);
    const ioas = Ioas.create(iommufd);
    const other = Ioas.create(iommufd);
    const device = CdevDevice.open(kernel, NAME);
    kernel.log.length = 0;
    expect([device.bind(iommufd), device.attach(ioas), device.replace(other)]).toEqual([3, 4, 5]);
    expect([device.id, device.table]).toEqual([3, other]);
    device.detach();
    device.detach();
    expect(kernel.log).toEqual([
      // argsz 24, flags, iommufd 3, out_devid, token.
      'VFIO_DEVICE_BIND_IOMMUFD 180000000000000003000000000000000000000000000000',
      // argsz 16, flags, pt_id, pasid.
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT 10000000000000000100000000000000',
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT 10000000000000000200000000000000',
      'VFIO_DEVICE_DETACH_IOMMUFD_PT 0c0000000000000000000000',
    ]);
    expect([ioas.devices, other.devices, device.table]).toEqual([[], [], null]);
  });

  it('a VF token travels as 16 bytes in the order of its text', () => {
    const kernel = scriptedIommufd();
    const token = '14d63f20-8445-11ea-8900-1f9ce7d5650d';
    let sent = '';
    kernel.on('VFIO_DEVICE_BIND_IOMMUFD', (bytes) => {
      const view = new DataView(bytes.buffer);
      sent = `${view.getUint32(4, true)} ${Buffer.from(kernel.memory(view.getBigUint64(16, true))).toString('hex')}`;
      return 'EACCES';
    });
    const ioas = Ioas.create(Iommufd.open(kernel));
    expect(caught(() => openDevice(kernel, `${NAME} vf_token=${token}`, ioas)).code).toBe('EACCES');
    expect(sent).toBe('1 14d63f20844511ea89001f9ce7d5650d');
    expect(kernel.log.slice(-2)).toEqual(['free', `close(${DEVICE_FILE})`]);
    for (const options of ['vf_token=1', 'nonsense', `vf_token=${token} more`]) {
      expect(caught(() => openDevice(kernel, `${NAME} ${options}`, ioas)).code).toBe('EINVAL');
    }
  });

  it('attach does not replace, and replace does not attach', () => {
    const { device, ioas } = bound(scriptedIommufd());
    expect(caught(() => device.replace(ioas))).toMatchObject({ code: 'EINVAL', hint: 'attach() it first' });
    device.attach(ioas);
    expect(caught(() => device.attach(ioas)).message).toBe(
      `VFIO_DEVICE_ATTACH_IOMMUFD_PT: EBUSY: device ${NAME} is attached to IOAS 1 (pt_id); ` +
        'replace() moves it without a moment of blocked DMA',
    );
  });

  it('a refused replace leaves it where it was', () => {
    const kernel = scriptedIommufd();
    const { device, ioas, iommufd } = bound(kernel);
    device.attach(ioas);
    const other = Ioas.create(iommufd);
    kernel.on('VFIO_DEVICE_ATTACH_IOMMUFD_PT', () => 'EADDRINUSE');
    expect(caught(() => device.replace(other)).code).toBe('EADDRINUSE');
    expect([device.space, ioas.devices, other.devices]).toEqual([ioas, [device], []]);
  });

  it('says why, on a kernel that says only the errno', () => {
    const kernel = scriptedIommufd();
    const { device, ioas, iommufd } = bound(kernel);
    ioas.map(0x800_0000, 0x1000, 0x1000);
    kernel.on('VFIO_DEVICE_ATTACH_IOMMUFD_PT', () => 'EADDRINUSE');
    expect(caught(() => device.attach(ioas)).message).toBe(
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT: EADDRINUSE: the mapping 0x0800_0000-0x0800_0fff lies in reserved region msi ' +
        '0x0800_0000-0x080f_ffff of group 3 (pt_id); unmap it, or attach the device before memory is mapped',
    );
    kernel.on('VFIO_DEVICE_BIND_IOMMUFD', () => 'EPERM');
    const error = caught(() => CdevDevice.open(kernel, NAME).bind(iommufd));
    expect(error.hint).toContain('iommufd.allow_unsafe_interrupts=1');
  });

  it('a page table made by hand is one of its IOAS', () => {
    const kernel = scriptedIommufd();
    const { device, ioas } = bound(kernel);
    const hwpt = Hwpt.create(device, ioas, { nestParent: true });
    // size 48, flags NEST_PARENT, dev_id 2, pt_id 1.
    expect(kernel.log[0]).toBe(`IOMMU_HWPT_ALLOC 30000000010000000200000001000000${'00'.repeat(32)}`);
    device.attach(hwpt);
    expect([device.space, ioas.devices]).toEqual([ioas, [device]]);
    kernel.log.length = 0;
    ioas.close();
    expect(names(kernel)).toEqual(['VFIO_DEVICE_DETACH_IOMMUFD_PT', 'IOMMU_DESTROY', 'IOMMU_DESTROY']);
    expect([device.isClosed, device.table]).toEqual([false, null]);
  });
});

describe('closing', () => {
  it('the iommufd closes devices, mappings, the IOAS, itself', () => {
    const kernel = scriptedIommufd();
    const { device, ioas, iommufd } = bound(kernel);
    device.attach(ioas);
    ioas.mapDma({ length: 4096 });
    kernel.log.length = 0;
    iommufd.close();
    expect(names(kernel)).toEqual([
      `close(${DEVICE_FILE})`,
      'IOMMU_IOAS_UNMAP',
      'free',
      'IOMMU_DESTROY',
      'close(/dev/iommu)',
    ]);
    expect(kernel.openPaths).toEqual([]);
  });

  it('a device that is closed has left its IOAS', () => {
    const kernel = scriptedIommufd();
    const { device, ioas, iommufd } = bound(kernel);
    device.attach(ioas);
    device.close();
    expect([ioas.devices, iommufd.devices]).toEqual([[], []]);
    kernel.log.length = 0;
    ioas.close();
    expect(names(kernel)).toEqual(['IOMMU_DESTROY']);
  });
});

describe('openDevice', () => {
  const offers = (kernel: ScriptedKernel, files: string[], dev: string[]): ScriptedKernel => {
    kernel.lists.set('/dev/vfio', files).set('/dev', dev);
    return kernel;
  };

  it('by iommufd opens and attaches, and closes the other way round', () => {
    const kernel = scriptedIommufd();
    {
      using device = openDevice(kernel, NAME, { via: 'iommufd' });
      device.space.mapDma({ length: 4096 });
      expect(names(kernel).slice(0, 5)).toEqual([
        'open(/dev/iommu)',
        'IOMMU_IOAS_ALLOC',
        `open(${DEVICE_FILE})`,
        'VFIO_DEVICE_BIND_IOMMUFD',
        'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
      ]);
      kernel.log.length = 0;
    }
    expect(names(kernel)).toEqual([
      `close(${DEVICE_FILE})`,
      'IOMMU_IOAS_UNMAP',
      'free',
      'IOMMU_DESTROY',
      'close(/dev/iommu)',
    ]);
  });

  it('finds out what the kernel offers; the container goes first', () => {
    const both = offers(scriptedIommufd(), ['vfio', '3', 'devices'], ['iommu', 'vfio']);
    expect(waysTo(both, NAME)).toEqual(['container', 'iommufd']);
    expect(openDevice(both, NAME).space).toBeInstanceOf(Container);
    // CONFIG_VFIO_GROUP=n: no /dev/vfio/3.
    const cdev = offers(scriptedIommufd(), ['vfio', 'devices'], ['iommu', 'vfio']);
    expect(waysTo(cdev, NAME)).toEqual(['iommufd']);
    expect(openDevice(cdev, NAME).space).toBeInstanceOf(Ioas);
    expect(waysTo(offers(scriptedIommufd(), ['vfio', '3'], ['vfio']), NAME)).toEqual(['container']);
  });

  it('with an IOAS of the caller leaves it', () => {
    const kernel = scriptedIommufd();
    const ioas = Ioas.create(Iommufd.open(kernel));
    openDevice(kernel, NAME, ioas).close();
    expect(kernel.openPaths).toEqual(['/dev/iommu']);
    expect(openDevice(kernel, NAME, ioas).space).toBe(ioas);
  });

  it.each(['IOMMU_IOAS_ALLOC', 'VFIO_DEVICE_BIND_IOMMUFD', 'VFIO_DEVICE_ATTACH_IOMMUFD_PT'])(
    'leaves nothing open when %s fails',
    (name) => {
      const kernel = scriptedIommufd().on(name, () => 'EBUSY');
      expect(caught(() => openDevice(kernel, NAME, { via: 'iommufd' }))).toMatchObject({
        code: 'EBUSY',
        request: name,
      });
      expect(kernel.openPaths).toEqual([]);
    },
  );
});

it('both kinds of space answer the same calls', () => {
  for (const via of ['container', 'iommufd'] as const) {
    const kernel = scriptedIommufd().on('VFIO_IOMMU_UNMAP_DMA', () => 0);
    kernel.on('IOMMU_IOAS_UNMAP', (bytes) => {
      put64(bytes, 16, 0x1000n);
      return 0;
    });
    using device = openDevice(kernel, NAME, { via });
    const { space } = device;
    const buffer = space.mapDma({ length: 100, iova: 0x10_0000, access: 'w' });
    expect([buffer.iova, buffer.length, space.map(0x20_0000, 0x1000, 0x1000)]).toEqual([0x10_0000, 0x1000, 0x20_0000]);
    expect(space.map(null, 0x1000, 0x1000)).toBeGreaterThan(0);
    expect(space.unmap(0x20_0000, 0x1000)).toBe(0x1000);
    expect(space.unmapAll()).toBeGreaterThanOrEqual(0);
    expect(space.pageSizes()[0]).toBe(0x1000);
    expect(Array.isArray(space.ranges())).toBe(true);
  }
});
