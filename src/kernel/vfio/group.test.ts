import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import { SimKernelClient } from '../client.ts';
import { testHost } from './test-host.ts';
import { attachedHost, buffer, getDevice, groupStatus, setContainer } from './test-requests.ts';

const NAME = '0000:01:00.0';
/** Pinned by nobody: no process has anything there. */
const NOWHERE = 0x1000;

describe('a group', () => {
  it('EBUSY: it has a single opener; the next may open after the last close', () => {
    const { client } = testHost();
    const fd = client.open('/dev/vfio/0');
    expect(client.open('/dev/vfio/0')).toBe(-16);
    const copy = client.process.dup(fd);
    client.close(fd);
    expect(client.open('/dev/vfio/0')).toBe(-16);
    client.close(copy);
    expect(client.open('/dev/vfio/0')).toBeGreaterThanOrEqual(0);
  });

  it('EBUSY: a device of it is open as a character device (before the single opener is asked)', () => {
    const { client, vfio } = testHost();
    vfio.groups[0].cdevOpenCount = 1;
    expect(client.open('/dev/vfio/0')).toBe(-16);
    expect(client.refusal()?.why).toContain('/dev/vfio/devices');
  });

  it('ENODEV: no device of it is bound to a VFIO driver; before EBUSY', () => {
    const { vfio, groups } = testHost();
    const [group] = vfio.groups;
    vfio.unregister(groups[0].devices[0]);
    group.cdevOpenCount = 1;
    expect(group.open()).toBe(-19);
  });

  it('EACCES: its node belongs to root', () => {
    const { kernel } = testHost();
    const client = new SimKernelClient(kernel, kernel.createProcess({ euid: 1000 }));
    expect(client.open('/dev/vfio/0')).toBe(-13);
    expect(client.open('/dev/vfio/vfio')).toBe(0);
  });

  it('GET_STATUS: EFAULT before EINVAL before the flags', () => {
    const { client } = testHost();
    const fd = client.open('/dev/vfio/0');
    expect(client.ioctl(fd, uapi.VFIO_GROUP_GET_STATUS, NOWHERE)).toBe(-14);
    expect(client.ioctl(fd, uapi.VFIO_GROUP_GET_STATUS, Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0))).toBe(-22);
    expect(groupStatus(client, fd)).toBe(uapi.VFIO_GROUP_FLAGS_VIABLE);
  });

  it('is viable while nobody owns its DMA: not with a sibling of a host driver', () => {
    const { client, groups } = testHost();
    const fd = client.open('/dev/vfio/0');
    groups[0].devices[0].driver = 'nvme';
    expect(groupStatus(client, fd)).toBe(0);
    groups[0].devices[0].driver = 'pcieport';
    expect(groupStatus(client, fd)).toBe(1);
    groups[0].devices[0].driver = null;
    setContainer(client, fd, client.open('/dev/vfio/vfio'));
    expect(groupStatus(client, fd)).toBe(3);
  });

  it('EFAULT before EBADF before EINVAL before EBADFD: SET_CONTAINER', () => {
    const { client } = testHost();
    const fd = client.open('/dev/vfio/0');
    expect(client.ioctl(fd, uapi.VFIO_GROUP_SET_CONTAINER, NOWHERE)).toBe(-14);
    expect(setContainer(client, fd, 99)).toBe(-9);
    expect(setContainer(client, fd, fd)).toBe(-77);
    expect(client.refusal()).toMatchObject({ code: 'EBADFD', field: 'container' });
    const container = client.open('/dev/vfio/vfio');
    expect(setContainer(client, fd, container)).toBe(0);
    expect(setContainer(client, fd, 99)).toBe(-9);
    expect(setContainer(client, fd, fd)).toBe(-22);
  });

  it('EPERM: somebody owns the DMA of the group; before the IOMMU of the container is asked', () => {
    const { client, groups, vfio } = testHost({ groups: 2 });
    const container = client.open('/dev/vfio/vfio');
    setContainer(client, client.open('/dev/vfio/0'), container);
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    groups[1].dmaOwner = {};
    groups[1].refuseAttach = -22;
    expect(setContainer(client, client.open('/dev/vfio/1'), container)).toBe(-1);
    expect(client.refusal()).toMatchObject({ code: 'EPERM', request: 'VFIO_GROUP_SET_CONTAINER' });
    expect(vfio.groups[1].container).toBeNull();
  });

  it('EBUSY: the domain of the group is not the default one', () => {
    const { client, groups } = testHost();
    groups[0].refuseClaim = -16;
    const fd = client.open('/dev/vfio/0');
    expect(setContainer(client, fd, client.open('/dev/vfio/vfio'))).toBe(-16);
    expect(client.refusal()).toMatchObject({ code: 'EBUSY', request: 'VFIO_GROUP_SET_CONTAINER' });
  });

  it('joins a container that has an IOMMU already, or is refused with nothing kept', () => {
    const { client, groups } = testHost({ groups: 2 });
    const container = client.open('/dev/vfio/vfio');
    const fds = [client.open('/dev/vfio/0'), client.open('/dev/vfio/1')];
    setContainer(client, fds[0], container);
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    groups[1].isolated = false;
    expect(setContainer(client, fds[1], container)).toBe(-1);
    expect([groups[1].dmaOwner, groupStatus(client, fds[1])]).toEqual([null, 1]);
    groups[1].isolated = true;
    expect(setContainer(client, fds[1], container)).toBe(0);
    expect(groups[1].domain).toBe(groups[0].domain);
  });

  it('EINVAL without a container, EBUSY with an open device: UNSET_CONTAINER', () => {
    const { client, groupFds } = attachedHost();
    const device = getDevice(client, groupFds[0], NAME);
    expect(client.ioctl(groupFds[0], uapi.VFIO_GROUP_UNSET_CONTAINER)).toBe(-16);
    client.close(device);
    expect(client.ioctl(groupFds[0], uapi.VFIO_GROUP_UNSET_CONTAINER)).toBe(0);
    expect(client.ioctl(groupFds[0], uapi.VFIO_GROUP_UNSET_CONTAINER)).toBe(-22);
  });

  it('ENODEV: its last device went while it was open', () => {
    const { client, groupFds, vfio, groups } = attachedHost();
    expect(vfio.unregister(groups[0].devices[0])).toBe(0);
    expect(groupStatus(client, groupFds[0])).toBe(-19);
    expect(setContainer(client, groupFds[0], client.open('/dev/vfio/vfio'))).toBe(-19);
    expect(getDevice(client, groupFds[0], NAME)).toBe(-19);
    expect(groups[0].domain.type).toBe('dma');
    expect(client.open('/dev/vfio/0')).toBe(-2);
  });

  it('ENOTTY: an unknown request, and one that only a container knows', () => {
    const { client, groupFds } = attachedHost();
    expect(client.ioctl(groupFds[0], 0x3bff)).toBe(-25);
    expect(client.ioctl(groupFds[0], uapi.VFIO_GET_API_VERSION)).toBe(-25);
  });
});

describe('GET_DEVICE_FD', () => {
  it('EFAULT and EINVAL before ENODEV before EINVAL: the text, the name, the container, its IOMMU', () => {
    const { client } = testHost();
    const fd = client.open('/dev/vfio/0');
    expect(client.ioctl(fd, uapi.VFIO_GROUP_GET_DEVICE_FD, NOWHERE)).toBe(-14);
    const long = buffer(client, 8192);
    long.bytes.fill(0x41);
    expect(client.ioctl(fd, uapi.VFIO_GROUP_GET_DEVICE_FD, long.address)).toBe(-22);
    expect(client.ioctl(fd, uapi.VFIO_GROUP_GET_DEVICE_FD, long.address + 8190)).toBe(-14);
    expect(getDevice(client, fd, '0000:09:00.0')).toBe(-19);
    expect(client.refusal()?.why).toContain(NAME);
    expect(getDevice(client, fd, NAME)).toBe(-22);
    const container = client.open('/dev/vfio/vfio');
    setContainer(client, fd, container);
    expect(getDevice(client, fd, NAME)).toBe(-22);
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    expect(getDevice(client, fd, NAME)).toBeGreaterThanOrEqual(0);
  });

  it('EACCES: what the driver says of the token comes before the container is asked', () => {
    const { client, ops } = testHost();
    const fd = client.open('/dev/vfio/0');
    ops[0].refuseMatch = -13;
    expect(getDevice(client, fd, NAME)).toBe(-13);
    expect(client.refusal()).toMatchObject({ code: 'EACCES', request: 'VFIO_GROUP_GET_DEVICE_FD' });
  });

  it('EAGAIN: an error of the driver leaves the group as it was', () => {
    const { client, groupFds, ops, vfio } = attachedHost();
    ops[0].refuseOpen = -11;
    expect(getDevice(client, groupFds[0], NAME)).toBe(-11);
    expect(client.refusal()).toMatchObject({ code: 'EAGAIN', request: 'VFIO_GROUP_GET_DEVICE_FD' });
    expect([vfio.groups[0].containerUsers, vfio.devices[0].openCount]).toEqual([1, 0]);
    expect(client.ioctl(groupFds[0], uapi.VFIO_GROUP_UNSET_CONTAINER)).toBe(0);
  });
});
