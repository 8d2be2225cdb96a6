/** A group: its status, its container, and the descriptors of its devices. */
import * as u from 'belfry/uapi';
import { allowUnsafe, find, nodeOf, owned, s32, text } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const status = (t, fd, what, expected, argsz = 8) =>
  t.request(what, fd, u.VFIO_GROUP_GET_STATUS, u.vfio_group_status, { argsz }, expected);
const setContainer = (t, group, container) => t.kernel.ioctl(group, u.VFIO_GROUP_SET_CONTAINER, s32(container));
const deviceFd = (t, group, name) => t.kernel.ioctl(group, u.VFIO_GROUP_GET_DEVICE_FD, text(name));

function alone(t) {
  allowUnsafe(t);
  const { name, group } = find(t, 'edu');
  return { name, group, fd: t.open(`/dev/vfio/${group}`) };
}

suite('group', { needs: ['type1'], source: 'drivers/vfio/group.c', fixture: alone }, (add) => {
  add('a number that is no group is ENOENT', 'vfio_group_fops_open', (t) => {
    t.result('open', t.kernel.open('/dev/vfio/4711'), 'ENOENT');
  });
  add('it is opened once at a time: EBUSY', 'vfio_group_fops_open', (t, { group }) => {
    t.result('again', t.kernel.open(`/dev/vfio/${group}`), 'EBUSY');
  });
  add('it can be opened again after it was closed', 'vfio_group_fops_release', (t, { group }) => {
    const { group: other } = find(t, 'nvme');
    t.must('close', t.kernel.close(t.must('open', t.kernel.open(`/dev/vfio/${other}`))));
    t.same('again', t.open(`/dev/vfio/${other}`) >= 0 && other !== group, true);
  });
  add('GET_STATUS: viable, without a container', 'vfio_group_ioctl_get_status', (t, { fd }) => {
    status(t, fd, 'flags', { flags: u.VFIO_GROUP_FLAGS_VIABLE });
  });
  add('GET_STATUS: EFAULT before EINVAL', 'vfio_group_ioctl_get_status', (t, { fd }) => {
    t.result('null', t.kernel.ioctl(fd, u.VFIO_GROUP_GET_STATUS, 0n), 'EFAULT');
    status(t, fd, 'argsz 7', 'EINVAL', 7);
    status(t, fd, 'argsz 100', { flags: u.VFIO_GROUP_FLAGS_VIABLE }, 100);
  });
  add('GET_DEVICE_FD without a container is EINVAL', 'vfio_device_open_file', (t, { fd, name }) => {
    t.result('it', deviceFd(t, fd, name), 'EINVAL');
  });
  add(
    'GET_DEVICE_FD: an unknown name is ENODEV, a string that is not there EFAULT',
    'vfio_group_ioctl_get_device_fd',
    (t, { fd }) => {
      t.result('null', t.kernel.ioctl(fd, u.VFIO_GROUP_GET_DEVICE_FD, 0n), 'EFAULT');
      t.result('nobody', deviceFd(t, fd, '0000:7f:1f.0'), 'ENODEV');
      t.result('nothing', deviceFd(t, fd, ''), 'ENODEV');
    },
  );
  add('GET_DEVICE_FD: a name without its end is EINVAL', 'vfio_group_ioctl_get_device_fd', (t, { fd }) => {
    const page = t.memory(8192);
    page.bytes.fill(0x30);
    t.result('a page of digits', t.kernel.ioctl(fd, u.VFIO_GROUP_GET_DEVICE_FD, BigInt(page.address)), 'EINVAL');
  });
  add('UNSET_CONTAINER without one is EINVAL', 'vfio_group_ioctl_unset_container', (t, { fd }) => {
    t.result('unset', t.kernel.ioctl(fd, u.VFIO_GROUP_UNSET_CONTAINER), 'EINVAL');
  });
  add('SET_CONTAINER: EFAULT, EBADF, EBADFD', 'vfio_group_ioctl_set_container', (t, { fd }) => {
    t.result('null', t.kernel.ioctl(fd, u.VFIO_GROUP_SET_CONTAINER, 0n), 'EFAULT');
    t.result('-1', setContainer(t, fd, -1), 'EBADF');
    t.result('an eventfd', setContainer(t, fd, t.eventfd().fd), 'EBADFD');
    t.result('itself', setContainer(t, fd, fd), 'EBADFD');
  });
  add('SET_CONTAINER twice is EINVAL, whatever is given', 'vfio_group_ioctl_set_container', (t, { fd }) => {
    t.result('first', setContainer(t, fd, t.open('/dev/vfio/vfio')), 0);
    t.result('again', setContainer(t, fd, t.open('/dev/vfio/vfio')), 'EINVAL');
    t.result('-1', setContainer(t, fd, -1), 'EBADF');
  });
  add('GET_STATUS with a container', 'vfio_group_ioctl_get_status', (t, { fd }) => {
    t.must('SET_CONTAINER', setContainer(t, fd, t.open('/dev/vfio/vfio')));
    status(t, fd, 'flags', { flags: u.VFIO_GROUP_FLAGS_VIABLE | u.VFIO_GROUP_FLAGS_CONTAINER_SET });
  });
  add('GET_DEVICE_FD with a container that has no IOMMU is EINVAL', 'vfio_device_group_open', (t, { fd, name }) => {
    t.must('SET_CONTAINER', setContainer(t, fd, t.open('/dev/vfio/vfio')));
    t.result('it', deviceFd(t, fd, name), 'EINVAL');
  });
  add(
    'a container with an IOMMU takes a second group',
    'vfio_iommu_type1.c vfio_iommu_type1_attach_group',
    (t, { fd }) => {
      const container = t.open('/dev/vfio/vfio');
      t.result('first group', setContainer(t, fd, container), 0);
      t.result('SET_IOMMU', t.kernel.ioctl(container, u.VFIO_SET_IOMMU, u.VFIO_TYPE1v2_IOMMU), 0);
      const other = t.open(`/dev/vfio/${find(t, 'nvme').group}`);
      t.result('second group', setContainer(t, other, container), 0);
    },
  );
  add(
    'an iommufd is taken for a container',
    'vfio_group_ioctl_set_container',
    (t, { fd, name }) => {
      t.result('SET_CONTAINER', setContainer(t, fd, t.open('/dev/iommu')), 0);
      status(t, fd, 'flags', { flags: u.VFIO_GROUP_FLAGS_VIABLE | u.VFIO_GROUP_FLAGS_CONTAINER_SET });
      t.same('its device', t.descriptor('GET_DEVICE_FD', deviceFd(t, fd, name)) >= 0, true);
    },
    { needs: ['iommufd'] },
  );
  add('an unknown request is ENOTTY', 'vfio_group_fops_unl_ioctl', (t, { fd }) => {
    t.result('it', t.kernel.ioctl(fd, u.VFIO_GET_API_VERSION + 0x60), 'ENOTTY');
    t.result('a container’s', t.kernel.ioctl(fd, u.VFIO_SET_IOMMU, 3), 'ENOTTY');
  });
});

suite('group with its device', { needs: ['type1'], source: 'drivers/vfio/group.c', fixture: owned('edu') }, (add) => {
  add('its device may be opened again', 'vfio_device_open_file', (t, { groupFd, name }) => {
    t.same('second', t.descriptor('GET_DEVICE_FD', deviceFd(t, groupFd, name)) >= 0, true);
  });
  add('UNSET_CONTAINER while a device is open is EBUSY', 'container.c vfio_group_detach_container', (t, host) => {
    t.result('open', t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_UNSET_CONTAINER), 'EBUSY');
    t.close(host.device);
    t.result('closed', t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_UNSET_CONTAINER), 0);
    t.result('the container has no IOMMU', t.kernel.ioctl(host.container, u.VFIO_IOMMU_GET_INFO, 0n), 'EINVAL');
  });
  add('the group stays open while its device is', 'vfio_group_fops_release', (t, { groupFd, group }) => {
    t.close(groupFd);
    t.result('open again', t.kernel.open(`/dev/vfio/${group}`), 'EBUSY');
  });
  add('another group’s device is ENODEV', 'vfio_device_get_from_name', (t, { groupFd }) => {
    t.result('it', deviceFd(t, groupFd, find(t, 'nvme').name), 'ENODEV');
  });
  add('a token where none applies is EINVAL', 'pci/vfio_pci_core.c vfio_pci_validate_vf_token', (t, host) => {
    const uuid = '00000000-0000-0000-0000-000000000001';
    t.close(host.device);
    t.result('a token', deviceFd(t, host.groupFd, `${host.name} vf_token=${uuid}`), 'EINVAL');
    t.result('malformed', deviceFd(t, host.groupFd, `${host.name} vf_token=zz`), 'EINVAL');
    t.result('other words', deviceFd(t, host.groupFd, `${host.name} nonsense`), 'EINVAL');
  });
  add(
    'the cdev of a device whose group is open is EBUSY',
    'vfio_device_block_group',
    (t, { name }) => {
      const device = t.open(nodeOf(t, name));
      const bytes = u.vfio_device_bind_iommufd.bytes({ argsz: 16, iommufd: t.open('/dev/iommu') });
      t.result('BIND', t.kernel.ioctl(device, u.VFIO_DEVICE_BIND_IOMMUFD, bytes), 'EBUSY');
    },
    { needs: ['iommufd'] },
  );
});
