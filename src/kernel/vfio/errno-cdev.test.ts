/** The requests of a device's own character device: each errno by name, in the order of Linux (device_cdev.c, iommufd.c; iommufd/device.c). */
import { describe, expect, it } from 'vitest';
import type { IommuDriver } from '../../ports/iommu.ts';
import { ERRNO } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/vfio.ts';
import { Iommufd, iommufdHost } from '../iommufd/testing.ts';
import { blamed, blamedCall, ioctlAt, PAGE, readOnlyPage, twins } from '../iommufd/testing-errno.ts';
import { getDevice, setContainer } from './test-requests.ts';

const NAME = '0000:01:00.0';
const layout = uapi.vfio_device_bind_iommufd;
const BIND = uapi.VFIO_DEVICE_BIND_IOMMUFD;
const ATTACH = uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
const DETACH = uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT;

type Host = ReturnType<typeof iommufdHost>;

const bind = ({ client, iommufd, devices }: Host, fields: Parameters<Iommufd['bind']>[1] = {}, device = devices[0]!) =>
  blamed(client, iommufd.bind(device, fields));
const attach = ({ client, iommufd, devices }: Host, id: number, device = devices[0]!) =>
  blamed(client, iommufd.attach(device, id));

describe('errno of BIND_IOMMUFD', () => {
  /** `length` bytes at the end of memory. */
  const atEnd = ({ memory, client, devices }: Host, bytes: Uint8Array) => {
    memory.bytes.set(bytes, memory.length - bytes.length);
    return ioctlAt(client, devices[0]!, BIND, memory.address + memory.length - bytes.length);
  };

  it('VFIO_DEVICE_BIND_IOMMUFD: EFAULT argsz', () => {
    const host = iommufdHost();
    expect(atEnd(host, new Uint8Array(3))).toBe('EFAULT argument');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EINVAL argsz, before EFAULT of the struct', () => {
    expect(atEnd(iommufdHost(), layout.bytes({ argsz: 15 }).subarray(0, 8))).toBe('EINVAL argsz');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EFAULT the struct', () => {
    expect(atEnd(iommufdHost(), layout.bytes({ argsz: 16 }).subarray(0, 8))).toBe('EFAULT argument');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: E2BIG something behind the known struct, before EINVAL of the descriptor', () => {
    const bytes = new Uint8Array(32);
    layout.write(bytes, { argsz: 32, iommufd: -1 });
    bytes[31] = 1;
    expect(atEnd(iommufdHost(), bytes)).toBe('E2BIG argsz');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EINVAL iommufd is negative, and unknown flags, before EBUSY', () => {
    const host = iommufdHost();
    host.client.open('/dev/vfio/0');
    expect(bind(host, { iommufd: -1 })).toBe('EINVAL iommufd');
    expect(bind(host, { flags: 2 })).toBe('EINVAL flags');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EINVAL a file that came from a group, before EBUSY', () => {
    const host = iommufdHost();
    const { client } = host;
    const [group, container] = [client.open('/dev/vfio/0'), client.open('/dev/vfio/vfio')];
    setContainer(client, group, container);
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    expect(bind(host, { iommufd: 99 }, getDevice(client, group, NAME))).toBe('EINVAL fd');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EBUSY the group is open, before EBADF', () => {
    const host = iommufdHost();
    host.client.open('/dev/vfio/0');
    expect(bind(host, { iommufd: 99 })).toBe('EBUSY fd');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EINVAL the file is bound already, before the token', () => {
    const host = iommufdHost();
    expect(bind(host)).toBe(1);
    host.ops[0]!.match = () => -ERRNO.EACCES;
    expect(bind(host, { iommufd: 99 })).toBe('EINVAL fd');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EFAULT the token, before EBADF', () => {
    expect(bind(iommufdHost(), { flags: uapi.VFIO_DEVICE_BIND_FLAG_TOKEN, iommufd: 99 })).toBe('EFAULT token_uuid_ptr');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EACCES and EINVAL of the token, before EBADF', () => {
    const host = iommufdHost();
    for (const code of ['EACCES', 'EINVAL'] as const) {
      host.ops[0]!.match = () => host.context.refusals.refuse(code, 'the token', 'token');
      expect(bind(host, { iommufd: 99 })).toBe(`${code} token`);
    }
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EBADF no such descriptor, and EBADFD another file, before EINVAL of a second open', () => {
    const host = iommufdHost();
    bind(host);
    const second = host.client.open('/dev/vfio/devices/vfio0');
    expect(bind(host, { iommufd: 99 }, second)).toBe('EBADF iommufd');
    expect(bind(host, { iommufd: second }, second)).toBe('EBADFD iommufd');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EINVAL the device is bound through another file', () => {
    const host = iommufdHost();
    bind(host);
    host.groups[0]!.isolated = false;
    expect(bind(host, {}, host.client.open('/dev/vfio/devices/vfio0'))).toBe('EINVAL fd');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EINVAL DMA is not coherent, before EPERM', () => {
    const host = iommufdHost();
    const driver = { coherent: false } as IommuDriver;
    Object.assign(host.groups[0]!, { driver, isolated: false });
    expect(bind(host)).toBe('EINVAL fd');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EPERM MSIs are not isolated, before EBUSY; iommufd.allow_unsafe_interrupts accepts that', () => {
    const host = iommufdHost();
    Object.assign(host.groups[0]!, { isolated: false, refuseClaim: -ERRNO.EBUSY });
    expect(bind(host)).toBe('EPERM');
    host.context.modules.iommufd.allow_unsafe_interrupts = true;
    expect(bind(host)).toBe('EBUSY');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EPERM the DMA of the group is another iommufd’s, before the open of the driver', () => {
    const host = iommufdHost();
    host.groups[0]!.dmaOwner = {};
    host.ops[0]!.refuseOpen = -ERRNO.EAGAIN;
    expect(bind(host)).toBe('EPERM');
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: the errno of the driver’s open, and nothing stays', () => {
    const host = iommufdHost();
    host.ops[0]!.refuseOpen = -ERRNO.EAGAIN;
    expect(bind(host)).toBe('EAGAIN');
    expect([host.groups[0]!.dmaOwner, host.iommufd.ctx.objects.size]).toEqual([null, 0]);
    expect(host.client.open('/dev/vfio/0')).toBeGreaterThan(0);
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EFAULT out_devid cannot be written, and nothing stays', () => {
    const host = iommufdHost();
    const address = readOnlyPage(host.client, layout.bytes({ argsz: 16, iommufd: host.iommufd.fd }));
    expect(ioctlAt(host.client, host.devices[0]!, BIND, address)).toBe('EFAULT argument');
    expect([host.groups[0]!.dmaOwner, host.iommufd.ctx.objects.size]).toEqual([null, 0]);
    expect(bind(host)).toBe(1);
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: out_devid alone is written', () => {
    const host = iommufdHost();
    host.iommufd.ioas();
    const bytes = layout.bytes({ argsz: 24, iommufd: host.iommufd.fd, token_uuid_ptr: 7 });
    expect(host.client.ioctl(host.devices[0]!, BIND, bytes)).toBe(0);
    const expected = { argsz: 24, flags: 0, iommufd: host.iommufd.fd, out_devid: 2, token_uuid_ptr: 7n };
    expect(layout.read(bytes)).toEqual(expected);
  });
});

describe('errno before BIND_IOMMUFD, and of a file that came from a group', () => {
  it('VFIO_DEVICE_GET_INFO: EINVAL before BIND_IOMMUFD, as every other request, read, write and mmap', () => {
    const { client, devices } = iommufdHost();
    const [device] = devices as [number];
    const requests = [
      uapi.VFIO_DEVICE_GET_INFO,
      uapi.VFIO_DEVICE_FEATURE,
      ATTACH,
      DETACH,
      uapi.VFIO_DEVICE_RESET,
      0x3bff,
    ];
    // EFAULT would come next.
    expect(requests.map((request) => String(ioctlAt(client, device, request, 8)))).toEqual(
      requests.map(() => expect.stringMatching(/^EINVAL/)),
    );
    expect(blamedCall(client, client.pread(device, new Uint8Array(4), 0))).toMatch(/^EINVAL/);
    expect(blamedCall(client, client.pwrite(device, new Uint8Array(4), 0))).toMatch(/^EINVAL/);
    expect(blamedCall(client, client.mmap(device, 0, PAGE) as number)).toMatch(/^EINVAL/);
  });

  it('VFIO_DEVICE_ATTACH_IOMMUFD_PT: ENOTTY a file that came from a group, DETACH_IOMMUFD_PT as well', () => {
    const { client } = iommufdHost();
    const [group, container] = [client.open('/dev/vfio/0'), client.open('/dev/vfio/vfio')];
    setContainer(client, group, container);
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    const device = getDevice(client, group, NAME);
    for (const request of [ATTACH, DETACH]) expect(ioctlAt(client, device, request, 8)).toMatch(/^ENOTTY/);
  });
});

describe('errno of ATTACH_IOMMUFD_PT and DETACH_IOMMUFD_PT', () => {
  /** A bound device, with `words` at the end of memory as the argument. */
  const raw = (request: number, ...words: number[]) => {
    const host = iommufdHost();
    bind(host);
    const { memory, client, devices } = host;
    memory.bytes.set(new Uint8Array(Uint32Array.from(words).buffer), memory.length - 4 * words.length);
    return ioctlAt(client, devices[0]!, request, memory.address + memory.length - 4 * words.length);
  };

  it.each<[name: string, expected: string | number, request: number, words: number[]]>([
    ['VFIO_DEVICE_ATTACH_IOMMUFD_PT: EFAULT 12 bytes, before EINVAL', 'EFAULT argument', ATTACH, [11, 2]],
    ['VFIO_DEVICE_ATTACH_IOMMUFD_PT: EINVAL argsz, before EINVAL flags', 'EINVAL argsz', ATTACH, [11, 2, 99]],
    ['VFIO_DEVICE_ATTACH_IOMMUFD_PT: EINVAL unknown flags, before ENOENT', 'EINVAL flags', ATTACH, [12, 2, 99]],
    ['VFIO_DEVICE_ATTACH_IOMMUFD_PT: ENOENT pt_id is no object', 'ENOENT pt_id', ATTACH, [12, 0, 99]],
    ['VFIO_DEVICE_ATTACH_IOMMUFD_PT: EINVAL pt_id is a device', 'EINVAL pt_id', ATTACH, [12, 0, 1]],
    ['VFIO_DEVICE_DETACH_IOMMUFD_PT: EFAULT 8 bytes, before EINVAL', 'EFAULT argument', DETACH, [7]],
    ['VFIO_DEVICE_DETACH_IOMMUFD_PT: EINVAL argsz, before EINVAL flags', 'EINVAL argsz', DETACH, [7, 2]],
    ['VFIO_DEVICE_DETACH_IOMMUFD_PT: EINVAL unknown flags', 'EINVAL flags', DETACH, [8, 2]],
    ['VFIO_DEVICE_DETACH_IOMMUFD_PT: 0 what is not attached', 0, DETACH, [8, 0]],
  ])('%s', (_name, expected, request, words) => {
    expect(raw(request, ...words)).toBe(expected);
  });

  it('VFIO_DEVICE_ATTACH_IOMMUFD_PT: EFAULT pt_id cannot be written: detached', () => {
    const host = iommufdHost();
    const id = host.iommufd.ioas();
    bind(host);
    const bytes = uapi.vfio_device_attach_iommufd_pt.bytes({ argsz: 12, pt_id: id });
    const [group] = host.groups;
    expect(ioctlAt(host.client, host.devices[0]!, ATTACH, readOnlyPage(host.client, bytes))).toBe('EFAULT argument');
    expect([group!.domain === group!.blockingDomain, host.iommufd.destroy(id)]).toEqual([true, 0]);
  });

  it('VFIO_DEVICE_ATTACH_IOMMUFD_PT: pt_id becomes the page table’s, of an IOAS and of a page table', () => {
    const host = iommufdHost();
    const id = host.iommufd.ioas();
    bind(host);
    expect(attach(host, id)).toBe(3);
    const hwpt = Number(host.iommufd.hwpt(2, id));
    expect([attach(host, hwpt), attach(host, id)]).toEqual([4, 3]);
  });
});

describe('the iommufd of a device', () => {
  it('VFIO_DEVICE_BIND_IOMMUFD: keeps the iommufd open when its descriptor is closed', () => {
    const host = iommufdHost();
    const { ctx } = host.iommufd;
    bind(host);
    host.iommufd.close();
    expect(ctx.objects.size).toBe(1);
    host.client.close(host.devices[0]!);
    expect(ctx.objects.size).toBe(0);
  });

  it('VFIO_DEVICE_BIND_IOMMUFD: EPERM a device of a group whose other device another iommufd has', () => {
    const host = twins();
    const other = new Iommufd(host.client);
    host.client.close(host.devices[1]!);
    const again = host.client.open('/dev/vfio/devices/vfio1');
    expect(blamed(host.client, other.bind(again))).toBe('EPERM');
    expect(blamed(host.client, host.iommufd.bind(again))).toBe(2);
  });
});
