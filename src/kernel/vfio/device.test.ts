import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import type { VfioDeviceCdev } from './device.ts';
import { testHost } from './test-host.ts';
import { attachedHost, buffer, getDevice } from './test-requests.ts';

const NAME = '0000:01:00.0';
const GET = 1 << 16;
const SET = 1 << 17;
const PROBE = 1 << 18;

describe('a device', () => {
  it('is opened once by its first file and closed by its last', () => {
    const { client, groupFds, events } = attachedHost();
    const first = getDevice(client, groupFds[0], NAME);
    const second = getDevice(client, groupFds[0], NAME);
    const copy = client.process.dup(first);
    client.close(first);
    client.close(second);
    expect(events).toEqual([`open ${NAME}`]);
    client.close(copy);
    expect(events).toEqual([`open ${NAME}`, `close ${NAME}`]);
  });

  it('closes before its group leaves the container, in whatever order descriptors go', () => {
    const { client, kernel, groupFds, container, events } = attachedHost();
    getDevice(client, groupFds[0], NAME);
    client.close(container);
    client.close(groupFds[0]);
    expect(events).toEqual([`open ${NAME}`]);
    kernel.exit(client.process);
    expect(events).toEqual([`open ${NAME}`, `close ${NAME}`, 'detach 0']);
  });

  it('stays open for a process that it was passed to', () => {
    const { client, kernel, groupFds, events } = attachedHost();
    const fd = getDevice(client, groupFds[0], NAME);
    const other = kernel.createProcess();
    client.process.send(fd, other);
    kernel.exit(client.process);
    expect(events).toEqual([`open ${NAME}`]);
    kernel.exit(other);
    expect(events).toEqual([`open ${NAME}`, `close ${NAME}`, 'detach 0']);
  });

  it('EBUSY: unregistering one that is open, after asking its user', () => {
    const { client, groupFds, vfio, groups, ops } = attachedHost();
    const fd = getDevice(client, groupFds[0], NAME);
    expect(vfio.unregister(groups[0].devices[0])).toBe(-16);
    expect(ops[0].requests).toBe(1);
    client.close(fd);
    expect(vfio.unregister(groups[0].devices[0])).toBe(0);
  });

  it('ENOTTY: an unknown request, and iommufd requests of a file that came from a group', () => {
    const { client, groupFds } = attachedHost();
    const fd = getDevice(client, groupFds[0], NAME);
    expect(client.ioctl(fd, 0x3bff)).toBe(-25);
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT)).toBe(-25);
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_BIND_IOMMUFD)).toBe(-25);
  });

  it('EINVAL: everything but BIND before access is granted', () => {
    const { client, vfio } = testHost();
    const cdev: VfioDeviceCdev = { bind: () => 5, attach: () => 6, detach: () => 7, release: () => {} };
    vfio.enableCdev(cdev);
    const fd = client.open('/dev/vfio/devices/vfio0');
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_GET_INFO)).toBe(-22);
    expect(client.ioctl(fd, 0x3bff)).toBe(-22);
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT)).toBe(-22);
    expect(client.pread(fd, new Uint8Array(4), 0)).toBe(-22);
    expect(client.pwrite(fd, new Uint8Array(4), 0)).toBe(-22);
    expect(client.mmap(fd, 0, 4096)).toBe(-22);
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_BIND_IOMMUFD)).toBe(5);
  });
});

describe('VFIO_DEVICE_FEATURE', () => {
  function setUp() {
    const host = attachedHost();
    const fd = getDevice(host.client, host.groupFds[0], NAME);
    const feature = (flags: number, payload = 16, argsz = 8 + payload): number => {
      const bytes = new Uint8Array(8 + payload);
      uapi.vfio_device_feature.patch(bytes, { argsz, flags });
      return host.client.ioctl(fd, uapi.VFIO_DEVICE_FEATURE, bytes);
    };
    return { ...host, fd, feature };
  }

  it('EFAULT before EINVAL: the header, argsz, unknown flags, GET with SET, and then the feature', () => {
    const { client, fd, feature } = setUp();
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_FEATURE, 0x1000)).toBe(-14);
    expect(feature((1 << 20) | SET, 16, 7)).toBe(-22);
    expect(client.refusal()?.field).toBe('argsz');
    expect(feature((1 << 20) | GET | SET)).toBe(-22);
    expect(client.refusal()?.why).toContain('unknown bits');
    expect(feature(GET | SET | 77)).toBe(-22);
    expect(feature(GET | SET | PROBE | 77)).toBe(-25);
    expect(feature(SET)).toBe(0);
  });

  it('ENOTTY: features of migration, whatever is asked of them, and ids that nobody knows', () => {
    const { feature, client } = setUp();
    expect(feature(PROBE | GET | 9)).toBe(-25);
    expect(client.refusal()?.why).toContain('cannot migrate');
    expect([1, 2, 6, 7, 8, 9].map((id) => feature(PROBE | GET | id))).toEqual(Array(6).fill(-25));
    expect(feature(PROBE | 0xbe11)).toBe(-25);
  });

  it('EINVAL: MIG_PRECOPY_INFOv2 of a device that cannot migrate, probed or not (Linux 7.2.13 in the lab)', () => {
    const { feature, client } = setUp();
    expect([PROBE, PROBE | GET, PROBE | SET, GET].map((flags) => feature(flags | 12))).toEqual(Array(4).fill(-22));
    expect(client.refusal()?.why).toContain('pre-copy');
  });

  it('EINVAL before the probe: an operation that the feature has not; a probe needs no payload', () => {
    const { feature, client } = setUp();
    expect(feature(PROBE | GET)).toBe(-22);
    expect(feature(PROBE | SET, 0)).toBe(0);
    expect(feature(PROBE, 0)).toBe(0);
    expect(feature(0, 0)).toBe(-22);
    expect(client.refusal()?.why).toContain('none of GET, SET, PROBE');
    expect(feature(SET, 15)).toBe(-22);
  });

  it('faults rather than reads behind a payload that is shorter than argsz says', () => {
    const { client, fd } = setUp();
    const memory = buffer(client, 4096);
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_FEATURE, memory.address + 4092)).toBe(-14);
  });
});
