/** Containers and groups: the order of requests, and what refuses. */
import * as u from 'belfry/uapi';

export const s32 = (value) => new Uint8Array(Int32Array.of(value).buffer);
export const text = (value) => new TextEncoder().encode(`${value}\0`);
const EXTENSIONS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 99];

export function probeEmptyContainer(p) {
  const fd = p.descriptor('open', p.kernel.open('/dev/vfio/vfio'));
  p.ioctl('GET_API_VERSION', fd, u.VFIO_GET_API_VERSION);
  for (const id of EXTENSIONS) p.ioctl(`CHECK_EXTENSION ${id}`, fd, u.VFIO_CHECK_EXTENSION, id);
  for (const id of [0, 1, 3, 8]) p.ioctl(`SET_IOMMU ${id} without a group`, fd, u.VFIO_SET_IOMMU, id);
  p.ioctl('IOMMU_GET_INFO without an IOMMU', fd, u.VFIO_IOMMU_GET_INFO, u.vfio_iommu_type1_info.bytes({ argsz: 24 }));
  p.ioctl('MAP_DMA without an IOMMU', fd, u.VFIO_IOMMU_MAP_DMA, 0n);
  p.ioctl('unknown request', fd, u.VFIO_GET_API_VERSION + 0x60, 0n);
  p.ioctl('request of another kind', fd, 0x5401, 0n);
  p.pread('read', fd, 0, 8);
  p.pwrite('write', fd, 0, [0, 0, 0, 0]);
  const mapped = p.kernel.mmap(fd, 0, 4096);
  p.note('mmap', typeof mapped === 'number' ? u.errnoName(mapped) : 'mapped');
  p.result('close', p.kernel.close(fd));
  p.ioctl('after close', fd, u.VFIO_GET_API_VERSION);
}

export function probeGroup(p, group, name, foreign) {
  p.descriptor('open a group that does not exist', p.kernel.open('/dev/vfio/4711'));
  const fd = p.descriptor('open', p.kernel.open(`/dev/vfio/${group}`));
  p.descriptor('open again', p.kernel.open(`/dev/vfio/${group}`));
  const status = (label) =>
    p.ask(label, fd, u.VFIO_GROUP_GET_STATUS, u.vfio_group_status.bytes({ argsz: 8 }), (b) =>
      u.vfio_group_status.read(b),
    );
  status('GET_STATUS');
  p.ask('GET_STATUS argsz 16', fd, u.VFIO_GROUP_GET_STATUS, u.vfio_group_status.bytes({ argsz: 16 }), (b) =>
    u.vfio_group_status.read(b),
  );
  p.ioctl('GET_STATUS argsz 7', fd, u.VFIO_GROUP_GET_STATUS, u.vfio_group_status.bytes({ argsz: 7 }));
  p.ioctl('GET_STATUS null', fd, u.VFIO_GROUP_GET_STATUS, 0n);
  p.ioctl('GET_DEVICE_FD without a container', fd, u.VFIO_GROUP_GET_DEVICE_FD, text(name));
  p.ioctl('GET_DEVICE_FD null', fd, u.VFIO_GROUP_GET_DEVICE_FD, 0n);
  p.ioctl('UNSET_CONTAINER without one', fd, u.VFIO_GROUP_UNSET_CONTAINER, 0);
  p.ioctl('SET_CONTAINER null', fd, u.VFIO_GROUP_SET_CONTAINER, 0n);
  p.ioctl('SET_CONTAINER -1', fd, u.VFIO_GROUP_SET_CONTAINER, s32(-1));
  const eventfd = p.eventfd();
  p.ioctl('SET_CONTAINER eventfd', fd, u.VFIO_GROUP_SET_CONTAINER, s32(eventfd.fd));
  p.ioctl('SET_CONTAINER itself', fd, u.VFIO_GROUP_SET_CONTAINER, s32(fd));
  p.kernel.close(eventfd.fd);
  const container = p.kernel.open('/dev/vfio/vfio');
  p.ioctl('SET_CONTAINER', fd, u.VFIO_GROUP_SET_CONTAINER, s32(container));
  p.ioctl('SET_CONTAINER again', fd, u.VFIO_GROUP_SET_CONTAINER, s32(container));
  status('GET_STATUS with a container');
  p.ioctl('GET_DEVICE_FD without an IOMMU', fd, u.VFIO_GROUP_GET_DEVICE_FD, text(name));
  p.ioctl('unknown request', fd, u.VFIO_GET_API_VERSION + 0x60, 0n);
  for (const id of [0, 2, 6, 7, 8, 99]) p.ioctl(`SET_IOMMU ${id}`, container, u.VFIO_SET_IOMMU, id);
  for (const id of EXTENSIONS) p.ioctl(`CHECK_EXTENSION ${id} with a group`, container, u.VFIO_CHECK_EXTENSION, id);
  p.ioctl('SET_IOMMU 3', container, u.VFIO_SET_IOMMU, 3);
  p.ioctl('SET_IOMMU 3 again', container, u.VFIO_SET_IOMMU, 3);
  p.ioctl('SET_IOMMU 1 after 3', container, u.VFIO_SET_IOMMU, 1);
  for (const id of EXTENSIONS) p.ioctl(`CHECK_EXTENSION ${id} with type1v2`, container, u.VFIO_CHECK_EXTENSION, id);
  p.ioctl('GET_DEVICE_FD of a device that is not there', fd, u.VFIO_GROUP_GET_DEVICE_FD, text('0000:7f:1f.0'));
  p.ioctl('GET_DEVICE_FD of another group', fd, u.VFIO_GROUP_GET_DEVICE_FD, text(foreign));
  p.ioctl('GET_DEVICE_FD of nothing', fd, u.VFIO_GROUP_GET_DEVICE_FD, text(''));
  p.ioctl(
    'GET_DEVICE_FD with a token that applies to nothing',
    fd,
    u.VFIO_GROUP_GET_DEVICE_FD,
    text(`${name} vf_token=00000000-0000-0000-0000-000000000001`),
  );
  p.ioctl('GET_DEVICE_FD with a malformed token', fd, u.VFIO_GROUP_GET_DEVICE_FD, text(`${name} vf_token=zz`));
  p.ioctl('GET_DEVICE_FD with other words', fd, u.VFIO_GROUP_GET_DEVICE_FD, text(`${name} nonsense`));
  const device = p.descriptor('GET_DEVICE_FD', p.kernel.ioctl(fd, u.VFIO_GROUP_GET_DEVICE_FD, text(name)));
  const second = p.descriptor('GET_DEVICE_FD twice', p.kernel.ioctl(fd, u.VFIO_GROUP_GET_DEVICE_FD, text(name)));
  p.ioctl('UNSET_CONTAINER with open devices', fd, u.VFIO_GROUP_UNSET_CONTAINER, 0);
  p.kernel.close(second);
  p.kernel.close(device);
  p.ioctl('UNSET_CONTAINER', fd, u.VFIO_GROUP_UNSET_CONTAINER, 0);
  p.ioctl('CHECK_EXTENSION 4 after UNSET_CONTAINER', container, u.VFIO_CHECK_EXTENSION, 4);
  status('GET_STATUS after UNSET_CONTAINER');
  p.kernel.close(container);
  p.result('close', p.kernel.close(fd));
  const again = p.descriptor('open after close', p.kernel.open(`/dev/vfio/${group}`));
  p.kernel.close(again);
}

/** A container with the group in it, and its device: what the other parts work with. */
export function setUp(p, group, name, iommu = 3) {
  const container = p.kernel.open('/dev/vfio/vfio');
  const groupFd = p.kernel.open(`/dev/vfio/${group}`);
  const steps = [
    p.kernel.ioctl(groupFd, u.VFIO_GROUP_SET_CONTAINER, s32(container)),
    p.kernel.ioctl(container, u.VFIO_SET_IOMMU, iommu),
  ];
  const device = p.kernel.ioctl(groupFd, u.VFIO_GROUP_GET_DEVICE_FD, text(name));
  const failed = [container, groupFd, ...steps, device].find((result) => result < 0);
  const close = () => {
    for (const fd of [device, groupFd, container]) if (fd >= 0) p.kernel.close(fd);
  };
  if (failed === undefined) return { container, group: groupFd, device, close };
  close();
  throw new Error(`set-up: ${u.errnoName(failed)}`);
}
