/** A container before it has an IOMMU, and how it gets one. */
import * as u from 'belfry/uapi';
import { allowUnsafe, find, owned, s32 } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const empty = (t) => ({ container: t.open('/dev/vfio/vfio') });

suite('container', { needs: ['type1'], source: 'drivers/vfio/container.c', fixture: empty }, (add) => {
  add('GET_API_VERSION is 0', 'vfio_fops_unl_ioctl', (t, { container }) => {
    t.result('GET_API_VERSION', t.kernel.ioctl(container, u.VFIO_GET_API_VERSION), 0);
  });
  add('CHECK_EXTENSION asks every back end while there is none', 'vfio_ioctl_check_extension', (t, { container }) => {
    const ask = (id) => t.kernel.ioctl(container, u.VFIO_CHECK_EXTENSION, id);
    t.result('TYPE1', ask(u.VFIO_TYPE1_IOMMU), 1);
    t.result('TYPE1v2', ask(u.VFIO_TYPE1v2_IOMMU), 1);
    t.result('UNMAP_ALL', ask(u.VFIO_UNMAP_ALL), 1);
    t.result('SPAPR_TCE', ask(2), 0);
    t.result('99', ask(99), 0);
  });
  add('SET_IOMMU without a group is EINVAL', 'vfio_ioctl_set_iommu', (t, { container }) => {
    t.result('TYPE1v2', t.kernel.ioctl(container, u.VFIO_SET_IOMMU, u.VFIO_TYPE1v2_IOMMU), 'EINVAL');
    t.result('nonsense', t.kernel.ioctl(container, u.VFIO_SET_IOMMU, 99), 'EINVAL');
  });
  add('what the back end answers is EINVAL without one', 'vfio_fops_unl_ioctl', (t, { container }) => {
    t.result('IOMMU_GET_INFO', t.kernel.ioctl(container, u.VFIO_IOMMU_GET_INFO, 0n), 'EINVAL');
    t.result('MAP_DMA', t.kernel.ioctl(container, u.VFIO_IOMMU_MAP_DMA, 0n), 'EINVAL');
    t.result('an unknown request', t.kernel.ioctl(container, u.VFIO_GET_API_VERSION + 0x60), 'EINVAL');
  });
  add('it cannot be read, written or mapped', 'vfio_fops', (t, { container }) => {
    t.result('read', t.kernel.read(container, new Uint8Array(8)), 'EINVAL');
    t.result('write', t.kernel.write(container, new Uint8Array(8)), 'EINVAL');
    const mapped = t.kernel.mmap(container, 0, 4096);
    t.result('mmap', typeof mapped === 'number' ? mapped : 0, 'ENODEV');
  });
});

suite('container with a group', { needs: ['type1'], source: 'drivers/vfio/container.c', fixture: joined }, (add) => {
  add('SET_IOMMU of a back end that is not there is ENODEV', 'vfio_ioctl_set_iommu', (t, { container }) => {
    for (const id of [0, 2, 6, 7, 99]) t.result(`${id}`, t.kernel.ioctl(container, u.VFIO_SET_IOMMU, id), 'ENODEV');
  });
  add('SET_IOMMU twice is EINVAL', 'vfio_ioctl_set_iommu', (t, { container }) => {
    t.result('first', t.kernel.ioctl(container, u.VFIO_SET_IOMMU, u.VFIO_TYPE1v2_IOMMU), 0);
    t.result('again', t.kernel.ioctl(container, u.VFIO_SET_IOMMU, u.VFIO_TYPE1v2_IOMMU), 'EINVAL');
    t.result('the other', t.kernel.ioctl(container, u.VFIO_SET_IOMMU, u.VFIO_TYPE1_IOMMU), 'EINVAL');
  });
});

suite('container and isolation', { needs: ['type1', 'unsafe'], fixture: joined }, (add) => {
  add(
    'SET_IOMMU is EPERM where MSIs are not isolated',
    'drivers/vfio/vfio_iommu_type1.c vfio_iommu_type1_attach_group',
    (t, { container }) => {
      allowUnsafe(t, false);
      t.result('refused', t.kernel.ioctl(container, u.VFIO_SET_IOMMU, u.VFIO_TYPE1v2_IOMMU), 'EPERM');
      allowUnsafe(t, true);
      t.result('with the switch', t.kernel.ioctl(container, u.VFIO_SET_IOMMU, u.VFIO_TYPE1v2_IOMMU), 0);
    },
  );
});

suite('container with an IOMMU', { needs: ['type1'], source: 'drivers/vfio', fixture: owned('edu') }, (add) => {
  add(
    'CHECK_EXTENSION asks its own back end only',
    'vfio_iommu_type1.c vfio_iommu_type1_check_extension',
    (t, host) => {
      const ask = (id) => t.kernel.ioctl(host.container, u.VFIO_CHECK_EXTENSION, id);
      t.result('TYPE1', ask(u.VFIO_TYPE1_IOMMU), 1);
      t.result('UNMAP_ALL', ask(u.VFIO_UNMAP_ALL), 1);
      t.result('DMA_CC_IOMMU', ask(u.VFIO_DMA_CC_IOMMU), t.has('coherent') ? 1 : 0);
      t.result('NOIOMMU', ask(8), 0);
    },
  );
  add('a request of no back end is ENOTTY', 'vfio_iommu_type1.c vfio_iommu_type1_ioctl', (t, { container }) => {
    t.result('unknown', t.kernel.ioctl(container, u.VFIO_GET_API_VERSION + 0x60), 'ENOTTY');
  });
});

function joined(t) {
  allowUnsafe(t);
  const { name, group } = find(t, 'edu');
  const container = t.open('/dev/vfio/vfio');
  const groupFd = t.open(`/dev/vfio/${group}`);
  t.must('SET_CONTAINER', t.kernel.ioctl(groupFd, u.VFIO_GROUP_SET_CONTAINER, s32(container)));
  return { name, container, groupFd };
}
