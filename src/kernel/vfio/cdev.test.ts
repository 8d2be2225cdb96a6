import { describe, expect, it } from 'vitest';
import type { IommuDriver } from '../../ports/iommu.ts';
import { ERRNO, errnoName } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/vfio.ts';
import { iommufdHost, named } from '../iommufd/testing.ts';

const bindLayout = uapi.vfio_device_bind_iommufd;

describe('BIND_IOMMUFD, check by check', () => {
  const raw = (host: ReturnType<typeof iommufdHost>, address: number, device = host.devices[0]!) =>
    named(host.kernel.syscalls.ioctl(host.client.process, device, uapi.VFIO_DEVICE_BIND_IOMMUFD, BigInt(address)));

  it('reads argsz, compares it, reads the struct, refuses a tail', () => {
    const host = iommufdHost();
    const { client, memory } = host;
    const end = memory.address + memory.length;
    expect(raw(host, 0)).toBe('EFAULT');
    client.process.memory.copyOut(end - 8, bindLayout.bytes({ argsz: 15 }).subarray(0, 8));
    expect(raw(host, end - 8)).toBe('EINVAL');
    client.process.memory.copyOut(end - 8, bindLayout.bytes({ argsz: 16 }).subarray(0, 8));
    expect(raw(host, end - 8)).toBe('EFAULT');
    const long = new Uint8Array(32);
    bindLayout.patch(long, { argsz: 32, iommufd: -1 });
    long[28] = 1;
    expect(errnoName(client.ioctl(host.devices[0]!, uapi.VFIO_DEVICE_BIND_IOMMUFD, long))).toBe('E2BIG');
    long[28] = 0;
    expect(errnoName(client.ioctl(host.devices[0]!, uapi.VFIO_DEVICE_BIND_IOMMUFD, long))).toBe('EINVAL');
  });

  it('refuses fields before it looks at the device', () => {
    const { iommufd, client, devices } = iommufdHost();
    const group = client.open('/dev/vfio/0');
    expect(group).toBeGreaterThan(0);
    expect(iommufd.bind(devices[0]!, { iommufd: -1 })).toBe('EINVAL');
    expect(iommufd.bind(devices[0]!, { flags: 2 })).toBe('EINVAL');
    expect(iommufd.bind(devices[0]!, { iommufd: 99 })).toBe('EBUSY');
    client.close(group);
    expect(iommufd.bind(devices[0]!, { iommufd: 99 })).toBe('EBADF');
    expect(iommufd.bind(devices[0]!, { iommufd: devices[0]! })).toBe('EBADFD');
  });

  it('refuses a file of a group, whatever is wrong further on', () => {
    const { iommufd, client, vfio } = iommufdHost();
    const group = client.open('/dev/vfio/0');
    const container = client.open('/dev/vfio/vfio');
    client.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, new Uint8Array(Int32Array.of(container).buffer));
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    const name = new TextEncoder().encode('0000:01:00.0\0');
    const device = client.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, name);
    expect(device).toBeGreaterThan(0);
    expect(iommufd.bind(device, { iommufd: 99 })).toBe('EINVAL');
    expect(iommufd.attach(device, 1)).toBe('ENOTTY');
    expect(iommufd.detach(device)).toBe('ENOTTY');
    expect(vfio.devices[0]!.openCount).toBe(1);
  });

  it('binds a file once, and a device once', () => {
    const { iommufd, client, devices } = iommufdHost();
    const second = client.open('/dev/vfio/devices/vfio0');
    expect(iommufd.bind(devices[0]!)).toBe(1);
    expect(iommufd.bind(devices[0]!, { iommufd: 99 })).toBe('EINVAL');
    expect(iommufd.bind(second, { iommufd: 99 })).toBe('EBADF');
    expect(iommufd.bind(second)).toBe('EINVAL');
    client.close(devices[0]!);
    expect(iommufd.bind(second)).toBe(1);
  });

  it('keeps the group from being opened, until the device is closed', () => {
    const { iommufd, client, devices } = iommufdHost();
    iommufd.bind(devices[0]!);
    expect(errnoName(client.open('/dev/vfio/0'))).toBe('EBUSY');
    client.close(devices[0]!);
    expect(client.open('/dev/vfio/0')).toBeGreaterThan(0);
  });

  it('asks the driver about a token', () => {
    const { iommufd, context, ops, devices, memory } = iommufdHost();
    const asked: string[] = [];
    ops[0]!.match = (text) => {
      asked.push(text);
      return text === '0000:01:00.0' ? 1 : context.refusals.refuse('EINVAL', 'it takes no token');
    };
    expect(iommufd.bind(devices[0]!, { flags: 1, iommufd: 99 })).toBe('EFAULT');
    memory.bytes.set(Array.from({ length: 16 }, (_, i) => i));
    const bytes = bindLayout.bytes({ argsz: 24, flags: 1, iommufd: 99, token_uuid_ptr: memory.address });
    expect(errnoName(iommufd.client.ioctl(devices[0]!, uapi.VFIO_DEVICE_BIND_IOMMUFD, bytes))).toBe('EINVAL');
    expect(asked).toEqual(['0000:01:00.0 vf_token=00010203-0405-0607-0809-0a0b0c0d0e0f']);
    ops[0]!.match = () => -ERRNO.EACCES;
    expect(iommufd.bind(devices[0]!, { iommufd: 99 })).toBe('EACCES');
  });

  it('wants coherent DMA, isolated MSIs, and a group that is nobody else’s, in this order', () => {
    const { iommufd, context, devices, groups, ops } = iommufdHost();
    const [group] = groups;
    const driver = { coherent: false } as IommuDriver;
    Object.assign(group!, { driver, isolated: false, refuseClaim: -ERRNO.EBUSY });
    ops[0]!.refuseOpen = -ERRNO.EAGAIN;
    expect(iommufd.bind(devices[0]!)).toBe('EINVAL');
    Object.assign(group!, { driver: undefined });
    expect(iommufd.bind(devices[0]!)).toBe('EPERM');
    context.modules.vfio_iommu_type1.allow_unsafe_interrupts = true;
    expect(iommufd.bind(devices[0]!)).toBe('EPERM');
    context.modules.iommufd.allow_unsafe_interrupts = true;
    expect(iommufd.bind(devices[0]!)).toBe('EBUSY');
    group!.refuseClaim = 0;
    group!.dmaOwner = {};
    expect(iommufd.bind(devices[0]!)).toBe('EPERM');
    group!.dmaOwner = null;
    expect(iommufd.bind(devices[0]!)).toBe('EAGAIN');
    expect([group!.dmaOwner, iommufd.ctx.objects.size, iommufd.ctx.groupCount]).toEqual([null, 0, 0]);
    ops[0]!.refuseOpen = 0;
    expect(iommufd.bind(devices[0]!)).toBe(1);
  });

  it('is refused to a second iommufd for a device of the same group', () => {
    const { iommufd, client, devices, groups } = iommufdHost({ groups: 2 });
    expect(iommufd.bind(devices[0]!)).toBe(1);
    const other = client.open('/dev/iommu');
    expect(iommufd.bind(devices[1]!, { iommufd: other })).toBe(1);
    expect(groups[0]!.dmaOwner).not.toBe(groups[1]!.dmaOwner);
  });
});

describe('before BIND', () => {
  it('every other request, access and mapping is EINVAL', () => {
    const { client, devices, iommufd } = iommufdHost();
    const [device] = devices;
    for (const request of [uapi.VFIO_DEVICE_GET_INFO, uapi.VFIO_DEVICE_FEATURE, 0x3bff]) {
      expect(errnoName(client.ioctl(device!, request, new Uint8Array(32)))).toBe('EINVAL');
    }
    expect(iommufd.attach(device!, 1)).toBe('EINVAL');
    expect(errnoName(client.pread(device!, new Uint8Array(4), 0))).toBe('EINVAL');
    expect(errnoName(client.mmap(device!, 0, 4096) as number)).toBe('EINVAL');
  });
});

describe('ATTACH_IOMMUFD_PT and DETACH_IOMMUFD_PT', () => {
  it('refuse in order', () => {
    const { client, iommufd, devices, kernel } = iommufdHost();
    const [device] = devices;
    iommufd.bind(device!);
    for (const request of [uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT]) {
      expect(named(kernel.syscalls.ioctl(client.process, device!, request, 8n))).toBe('EFAULT');
      const minimum = request === uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT ? 12 : 8;
      const call = (argsz: number, flags: number) => {
        const bytes = new Uint8Array(32);
        new DataView(bytes.buffer).setUint32(0, argsz, true);
        new DataView(bytes.buffer).setUint32(4, flags, true);
        new DataView(bytes.buffer).setUint32(8, 99, true);
        return named(client.ioctl(device!, request, bytes));
      };
      expect(call(minimum - 1, 2)).toBe('EINVAL');
      expect(call(minimum, 2)).toBe('EINVAL');
      expect(call(minimum, 1)).toBe('EINVAL');
      // With the flag the PASID is read too: vfio-pci has the operation, and what it says comes behind.
      expect(call(minimum + 3, 1)).toBe('EINVAL');
      expect(call(minimum + 4, 1)).toBe(minimum === 12 ? 'ENOENT' : 0);
      expect(call(minimum, 0)).toBe(minimum === 12 ? 'ENOENT' : 0);
    }
  });

  it('DETACH of what is not attached does nothing', () => {
    const { iommufd, devices } = iommufdHost();
    iommufd.bind(devices[0]!);
    expect(iommufd.detach(devices[0]!)).toBe(0);
  });
});

describe('the end', () => {
  it('closes the device, detaches it, then lets go of the group; the iommufd stays open for it', () => {
    const { iommufd, client, devices, events, groups, context } = iommufdHost();
    const id = iommufd.ioas();
    iommufd.bind(devices[0]!);
    iommufd.attach(devices[0]!, id);
    const { ctx } = iommufd;
    iommufd.close();
    expect(ctx.objects.size).toBe(3);
    events.length = 0;
    client.close(devices[0]!);
    expect(events).toEqual(['close 0000:01:00.0', 'detach 0']);
    expect([groups[0]!.dmaOwner, groups[0]!.domain]).toEqual([null, groups[0]!.defaultDomain]);
    expect([ctx.objects.size, ctx.groupCount]).toEqual([0, 0]);
    expect(groups[0]!.made.every((domain) => domain.freed)).toBe(true);
    expect(context.refusals.last).toBe(null);
  });

  it('is the same when the process is killed', () => {
    const { iommufd, client, devices, memory, events, groups, kernel, context } = iommufdHost({ groups: 2 });
    const id = iommufd.ioas();
    for (const device of devices) iommufd.bind(device);
    for (const device of devices) iommufd.attach(device, id);
    expect(iommufd.mapAt(id, 0x1000, memory.address, 0x10_0000)).toBe(0);
    const { ctx } = iommufd;
    events.length = 0;
    kernel.exit(client.process);
    expect(events).toEqual(['close 0000:01:00.0', 'detach 0', 'close 0000:02:00.0', 'detach 1']);
    expect(groups.map(({ dmaOwner, claims }) => [dmaOwner, claims])).toEqual([
      [null, 0],
      [null, 0],
    ]);
    expect([ctx.objects.size, context.memory.allocated]).toEqual([0, 0]);
  });

  it('of an unbound file is nothing', () => {
    const { client, devices, events } = iommufdHost();
    client.close(devices[0]!);
    expect(events).toEqual([]);
  });
});
