/** The container's requests on /dev/iommu. */
import * as u from 'belfry/uapi';
import { allowUnsafe, bound, find, ioas, K, mapDma, s32, text, unmapDma } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const SOURCE = 'drivers/iommu/iommufd/vfio_compat.c';
const context = (t) => ({ fd: t.open('/dev/iommu') });
const vfioIoas = (t, fd, what, fields, expected) =>
  t.request(what, fd, u.IOMMU_VFIO_IOAS, u.iommu_vfio_ioas, { size: 12, ...fields }, expected);

suite('compatibility', { needs: ['iommufd'], source: SOURCE, fixture: context }, (add) => {
  add('GET_API_VERSION is 0', 'iommufd_vfio_ioctl', (t, { fd }) => {
    t.result('it', t.kernel.ioctl(fd, u.VFIO_GET_API_VERSION), 0);
  });
  add('CHECK_EXTENSION: type1 of both versions, and UNMAP_ALL', 'iommufd_vfio_check_extension', (t, { fd }) => {
    const ask = (id) => t.kernel.ioctl(fd, u.VFIO_CHECK_EXTENSION, id);
    for (const [id, there] of [
      [1, 1],
      [3, 1],
      [9, 1],
      [6, 0],
      [10, 0],
      [99, 0],
    ])
      t.result(`${id}`, ask(id), there);
  });
  add('IOAS: ENODEV without one; SET, GET and CLEAR', 'iommufd_vfio_ioas', (t, { fd }) => {
    vfioIoas(t, fd, 'GET', { op: u.IOMMU_VFIO_IOAS_GET }, 'ENODEV');
    const id = ioas(t, fd);
    vfioIoas(t, fd, 'SET', { op: u.IOMMU_VFIO_IOAS_SET, ioas_id: id }, 0);
    vfioIoas(t, fd, 'GET again', { op: u.IOMMU_VFIO_IOAS_GET }, { ioas_id: id });
    vfioIoas(t, fd, 'CLEAR', { op: u.IOMMU_VFIO_IOAS_CLEAR }, 0);
    vfioIoas(t, fd, 'GET at last', { op: u.IOMMU_VFIO_IOAS_GET }, 'ENODEV');
  });
  add(
    'IOAS: ENOENT of none, EOPNOTSUPP of an unknown operation or the reserved field',
    'iommufd_vfio_ioas',
    (t, { fd }) => {
      vfioIoas(t, fd, 'SET 99', { op: u.IOMMU_VFIO_IOAS_SET, ioas_id: 99 }, 'ENOENT');
      vfioIoas(t, fd, 'operation 7', { op: 7 }, 'EOPNOTSUPP');
      vfioIoas(t, fd, 'reserved', { op: u.IOMMU_VFIO_IOAS_GET, __reserved: 1 }, 'EOPNOTSUPP');
    },
  );
  add('ENODEV: mapping without an IOAS', 'get_compat_ioas', (t, { fd }) => {
    const { address: vaddr } = t.memory(K);
    t.result('MAP_DMA', mapDma(t, fd, { iova: K, size: K, vaddr }), 'ENODEV');
    t.result('UNMAP_DMA', unmapDma(t, fd, { iova: K, size: K }), 'ENODEV');
  });
  add('SET_IOMMU: ENODEV without an IOAS, EINVAL of another back end', 'iommufd_vfio_set_iommu', (t, { fd }) => {
    t.result('type1 v2', t.kernel.ioctl(fd, u.VFIO_SET_IOMMU, 3), 'ENODEV');
    t.result('7', t.kernel.ioctl(fd, u.VFIO_SET_IOMMU, 7), 'EINVAL');
  });
  add('ENOTTY: a request of nobody, and DIRTY_PAGES', 'iommufd_vfio_ioctl', (t, { fd }) => {
    t.result('DIRTY_PAGES', t.kernel.ioctl(fd, u.VFIO_IOMMU_DIRTY_PAGES, new Uint8Array(48)), 'ENOTTY');
    t.result('unknown', t.kernel.ioctl(fd, u.VFIO_GET_API_VERSION + 0x60), 'ENOTTY');
  });
});

suite('compatibility with an IOAS', { needs: ['iommufd'], source: SOURCE, fixture: withIoas }, (add) => {
  add('MAP_DMA and UNMAP_DMA', 'iommufd_vfio_map_dma', (t, { fd, vaddr }) => {
    t.result('map', mapDma(t, fd, { iova: K, size: 2 * K, vaddr }), 0);
    t.result('again', mapDma(t, fd, { iova: K, size: K, vaddr }), 'EEXIST');
    t.result('unmap', unmapDma(t, fd, { iova: K, size: 2 * K }), 2 * K);
    t.result('nothing', unmapDma(t, fd, { iova: K, size: 2 * K }), 0);
  });
  add('MAP_DMA: EINVAL of VADDR and unknown flags', 'iommufd_vfio_map_dma', (t, { fd, vaddr }) => {
    t.result('VADDR', mapDma(t, fd, { iova: K, size: K, vaddr, flags: u.VFIO_DMA_MAP_FLAG_VADDR }), 'EINVAL');
    t.result('8', mapDma(t, fd, { iova: K, size: K, vaddr, flags: 3 | 8 }), 'EINVAL');
    t.result('argsz', mapDma(t, fd, { iova: K, size: K, vaddr, argsz: 31 }), 'EINVAL');
  });
  add('UNMAP_DMA: ALL wants no range', 'iommufd_vfio_unmap_dma', (t, { fd, vaddr }) => {
    t.result('map', mapDma(t, fd, { iova: K, size: K, vaddr }), 0);
    t.result('with a range', unmapDma(t, fd, { iova: K, size: K, flags: u.VFIO_DMA_UNMAP_FLAG_ALL }), 'EINVAL');
    t.result('all', unmapDma(t, fd, { flags: u.VFIO_DMA_UNMAP_FLAG_ALL }), K);
  });
  add('UNMAP_DMA of version 2 does not cut a mapping: ENOENT', 'iommufd_vfio_unmap_dma', (t, { fd, vaddr }) => {
    t.result('map', mapDma(t, fd, { iova: K, size: 2 * K, vaddr }), 0);
    t.result('a part', unmapDma(t, fd, { iova: K, size: K }), 'ENOENT');
  });
});

suite('a group of an iommufd', {
  needs: ['iommufd'],
  source: 'drivers/vfio/group.c',
  fixture: groupWithIommufd,
}, (add) => {
  add(
    'the device does not hold the group’s file: closed, it can be opened again',
    'vfio_group_fops_release',
    (t, o) => {
      t.descriptor('device', o.device());
      t.result('open', t.kernel.open(o.path), 'EBUSY');
      t.result('close', t.close(o.group), 0);
      t.open(o.path);
    },
  );
  add('EINVAL: without an iommufd, for a device that is open too', 'vfio_df_group_open', (t, o) => {
    t.descriptor('device', o.device());
    t.result('UNSET_CONTAINER', t.kernel.ioctl(o.group, u.VFIO_GROUP_UNSET_CONTAINER), 0);
    t.result('again', o.device(), 'EINVAL');
    t.result('UNSET_CONTAINER of none', t.kernel.ioctl(o.group, u.VFIO_GROUP_UNSET_CONTAINER), 'EINVAL');
  });
});

/** edu's group in an iommufd's IOAS; `device()` opens the device. */
function groupWithIommufd(t) {
  allowUnsafe(t);
  const { name, group: number } = find(t, 'edu');
  const fd = t.open('/dev/iommu');
  vfioIoas(t, fd, 'SET', { op: u.IOMMU_VFIO_IOAS_SET, ioas_id: ioas(t, fd) }, 0);
  const path = `/dev/vfio/${number}`;
  const group = t.open(path);
  t.must('SET_CONTAINER', t.kernel.ioctl(group, u.VFIO_GROUP_SET_CONTAINER, s32(fd)));
  return { path, group, device: () => t.kernel.ioctl(group, u.VFIO_GROUP_GET_DEVICE_FD, text(name)) };
}

function withIoas(t) {
  const { iommufd: fd } = bound('edu')(t);
  t.request('SET', fd, u.IOMMU_VFIO_IOAS, u.iommu_vfio_ioas, { size: 12, op: u.IOMMU_VFIO_IOAS_SET, ioas_id: 2 }, 0);
  t.result('SET_IOMMU', t.kernel.ioctl(fd, u.VFIO_SET_IOMMU, u.VFIO_TYPE1v2_IOMMU), 0);
  return { fd, vaddr: t.memory(4 * K).address };
}
