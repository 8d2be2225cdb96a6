/** /dev/iommu: how requests are taken, objects and their numbers, options. */
import * as u from 'belfry/uapi';
import { destroy, ioas, K } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const MAIN = 'drivers/iommu/iommufd/main.c';
const context = (t) => {
  const fd = t.open('/dev/iommu');
  return { fd, ioas: () => ioas(t, fd) };
};

suite('iommufd requests', { needs: ['iommufd'], source: MAIN, fixture: context }, (add) => {
  const branch = 'iommufd_fops_ioctl';
  const alloc = (t, fd, bytes) => t.kernel.ioctl(fd, u.IOMMU_IOAS_ALLOC, bytes);
  add('EFAULT: no struct', branch, (t, { fd }) => {
    t.result('null', alloc(t, fd, 0n), 'EFAULT');
  });
  add('EINVAL: size below the smallest that there was', branch, (t, { fd }) => {
    for (const size of [0, 4, 8, 11])
      t.result(`size ${size}`, alloc(t, fd, u.iommu_ioas_alloc.bytes({ size })), 'EINVAL');
  });
  add(
    'a longer struct is taken when the rest is zero, and E2BIG when not',
    'copy_struct_from_user in iommufd_fops_ioctl',
    (t, { fd }) => {
      const long = new Uint8Array(32);
      new DataView(long.buffer).setUint32(0, 32, true);
      t.result('zeroes', alloc(t, fd, long), 0);
      long[20] = 1;
      t.result('a one', alloc(t, fd, long), 'E2BIG');
    },
  );
  add('EOPNOTSUPP: flags', 'ioas.c iommufd_ioas_alloc_ioctl', (t, { fd }) => {
    t.result('1', alloc(t, fd, u.iommu_ioas_alloc.bytes({ size: 12, flags: 1 })), 'EOPNOTSUPP');
  });
  add('ENOTTY: numbers of nobody', branch, (t, { fd }) => {
    const bytes = u.iommu_destroy.bytes({ size: 8 });
    for (const request of [0x3b7f, 0x3b95, 0x3bff, 0x3a80])
      t.result(`0x${request.toString(16)}`, t.kernel.ioctl(fd, request, bytes), 'ENOTTY');
  });
  add('ENOTTY: a known number with a direction', branch, (t, { fd }) => {
    t.result('0xc00c3b81', t.kernel.ioctl(fd, 0xc00c_3b81, u.iommu_ioas_alloc.bytes({ size: 12 })), 'ENOTTY');
  });
  add('it cannot be read', 'iommufd_fops', (t, { fd }) => {
    t.result('read', t.kernel.read(fd, new Uint8Array(8)), 'EINVAL');
  });
});

suite('iommufd objects', { needs: ['iommufd'], source: MAIN, fixture: context }, (add) => {
  add('numbers begin at 1, and a freed one is used again', '_iommufd_object_alloc', (t, host) => {
    t.same('three', [host.ioas(), host.ioas(), host.ioas()], [1, 2, 3]);
    t.result('destroy the second', destroy(t, host.fd, 2), 0);
    t.same('the next', host.ioas(), 2);
    t.same('and then', host.ioas(), 4);
  });
  add('every file has numbers of its own', 'iommufd_fops_open', (t, host) => {
    t.same('here', host.ioas(), 1);
    t.same('there', context(t).ioas(), 1);
  });
  add('DESTROY: ENOENT of none, also of 0', 'iommufd_destroy', (t, { fd }) => {
    t.result('0', destroy(t, fd, 0), 'ENOENT');
    t.result('77', destroy(t, fd, 77), 'ENOENT');
  });
  add('DESTROY: an IOAS with maps goes with them', 'ioas.c iommufd_ioas_destroy', (t, host) => {
    const memory = t.memory(K);
    const id = host.ioas();
    const fields = { size: 40, flags: 7, ioas_id: id, user_va: memory.address, length: K, iova: K };
    t.result('map', t.kernel.ioctl(host.fd, u.IOMMU_IOAS_MAP, u.iommu_ioas_map.bytes(fields)), 0);
    t.result('destroy', destroy(t, host.fd, id), 0);
  });
  add('DESTROY: EBUSY of a fault queue whose file is open', 'iommufd_destroy', (t, { fd }) => {
    const bytes = u.iommu_fault_alloc.bytes({ size: u.iommu_fault_alloc.size });
    t.result('FAULT_QUEUE_ALLOC', t.kernel.ioctl(fd, u.IOMMU_FAULT_QUEUE_ALLOC, bytes), 0);
    const { out_fault_id, out_fault_fd } = u.iommu_fault_alloc.read(bytes);
    const queue = t.descriptor('its file', out_fault_fd);
    t.result('open', destroy(t, fd, out_fault_id), 'EBUSY');
    t.close(queue);
    t.result('closed', destroy(t, fd, out_fault_id), 0);
  });
});

suite('fault queue', { needs: ['iommufd'], source: 'drivers/iommu/iommufd/eventq.c', fixture: faultQueue }, (add) => {
  add('EOPNOTSUPP: flags', 'iommufd_fault_alloc', (t, { fd }) => {
    const bytes = u.iommu_fault_alloc.bytes({ size: u.iommu_fault_alloc.size, flags: 1 });
    t.result('1', t.kernel.ioctl(fd, u.IOMMU_FAULT_QUEUE_ALLOC, bytes), 'EOPNOTSUPP');
  });
  add('a read of an empty queue is 0, when it is of whole records', 'iommufd_fault_fops_read', (t, { queue }) => {
    t.result('40 bytes', t.kernel.read(queue, new Uint8Array(40)), 0);
    t.result('39 bytes', t.kernel.read(queue, new Uint8Array(39)), 'ESPIPE');
  });
  add(
    'a write: ESPIPE when not of whole answers, EINVAL of an unknown cookie or code',
    'iommufd_fault_fops_write',
    (t, { queue }) => {
      const answer = (cookie, code) => new Uint8Array(Uint32Array.of(cookie, code).buffer);
      t.result('7 bytes', t.kernel.write(queue, new Uint8Array(7)), 'ESPIPE');
      t.result('code 7', t.kernel.write(queue, answer(1, 7)), 'EINVAL');
      t.result('cookie 1', t.kernel.write(queue, answer(1, 0)), 'EINVAL');
    },
  );
});

function faultQueue(t) {
  const fd = t.open('/dev/iommu');
  const bytes = u.iommu_fault_alloc.bytes({ size: u.iommu_fault_alloc.size });
  t.must('FAULT_QUEUE_ALLOC', t.kernel.ioctl(fd, u.IOMMU_FAULT_QUEUE_ALLOC, bytes));
  const { out_fault_id, out_fault_fd } = u.iommu_fault_alloc.read(bytes);
  return { fd, id: out_fault_id, queue: t.descriptor('its file', out_fault_fd) };
}

suite('iommufd options', { needs: ['iommufd'], source: MAIN, fixture: context }, (add) => {
  const { IOMMU_OPTION_OP_GET: GET, IOMMU_OPTION_OP_SET: SET } = u;
  const { IOMMU_OPTION_HUGE_PAGES: HUGE, IOMMU_OPTION_RLIMIT_MODE: LIMIT } = u;
  const option = (t, fd, what, fields, expected) =>
    t.request(what, fd, u.IOMMU_OPTION, u.iommu_option, { size: 24, ...fields }, expected);
  add('RLIMIT_MODE: 0 first, 1 when it is set', 'iommufd_option_rlimit_mode', (t, { fd }) => {
    option(t, fd, 'at first', { option_id: LIMIT, op: GET }, { val64: 0n });
    option(t, fd, 'set', { option_id: LIMIT, op: SET, val64: 1 }, 0);
    option(t, fd, 'then', { option_id: LIMIT, op: GET }, { val64: 1n });
    option(t, fd, '2', { option_id: LIMIT, op: SET, val64: 2 }, 'EINVAL');
  });
  add('RLIMIT_MODE: of no object', 'iommufd_option_rlimit_mode', (t, { fd }) => {
    option(t, fd, 'of object 1', { option_id: LIMIT, op: GET, object_id: 1 }, 'EOPNOTSUPP');
  });
  add('RLIMIT_MODE: EBUSY once there is an object', 'iommufd_option_rlimit_mode', (t, host) => {
    host.ioas();
    option(t, host.fd, 'set', { option_id: LIMIT, op: SET, val64: 1 }, 'EBUSY');
    option(t, host.fd, 'a bad value', { option_id: LIMIT, op: SET, val64: 2 }, 'EBUSY');
  });
  const huge = 'ioas.c iommufd_ioas_option';
  add('HUGE_PAGES: 1 first, and 0 makes pages the alignment', huge, (t, host) => {
    const id = host.ioas();
    option(t, host.fd, 'at first', { option_id: HUGE, op: GET, object_id: id }, { val64: 1n });
    option(t, host.fd, 'set', { option_id: HUGE, op: SET, object_id: id, val64: 0 }, 0);
    option(t, host.fd, 'then', { option_id: HUGE, op: GET, object_id: id }, { val64: 0n });
    const room = t.memory(K);
    const fields = { size: 32, ioas_id: id, num_iovas: 4, allowed_iovas: room.address };
    t.request('alignment', host.fd, u.IOMMU_IOAS_IOVA_RANGES, u.iommu_ioas_iova_ranges, fields, {
      out_iova_alignment: 4096n,
    });
  });
  add('HUGE_PAGES: EINVAL of 2, ENOENT of no IOAS', huge, (t, host) => {
    option(t, host.fd, '2', { option_id: HUGE, op: SET, object_id: host.ioas(), val64: 2 }, 'EINVAL');
    option(t, host.fd, 'of none', { option_id: HUGE, op: GET, object_id: 99 }, 'ENOENT');
  });
  add(
    'HUGE_PAGES: EADDRINUSE while a map is less aligned than pages',
    'io_pagetable.c iopt_disable_large_pages',
    (t, host) => {
      const id = host.ioas();
      const memory = t.memory(K);
      const fields = { size: 40, flags: 7, ioas_id: id, user_va: memory.address + 8, length: 8, iova: K + 8 };
      t.result('map', t.kernel.ioctl(host.fd, u.IOMMU_IOAS_MAP, u.iommu_ioas_map.bytes(fields)), 0);
      option(t, host.fd, 'set', { option_id: HUGE, op: SET, object_id: id, val64: 0 }, 'EADDRINUSE');
    },
  );
  add('EOPNOTSUPP: an unknown option, operation, or reserved field', 'iommufd_option', (t, host) => {
    const object_id = host.ioas();
    option(t, host.fd, 'option 7', { option_id: 7, op: GET, object_id }, 'EOPNOTSUPP');
    option(t, host.fd, 'operation 7', { option_id: HUGE, op: 7, object_id }, 'EOPNOTSUPP');
    option(t, host.fd, 'reserved', { option_id: HUGE, op: GET, object_id, __reserved: 1 }, 'EOPNOTSUPP');
  });
  add('the posted options of a moved window are unknown', 'iommufd_option', (t, { fd }) => {
    for (const option_id of [2, 3]) option(t, fd, `option ${option_id}`, { option_id, op: GET }, 'EOPNOTSUPP');
  });
  add('CHANGE_PROCESS of nothing is fine', 'ioas.c iommufd_ioas_change_process', (t, { fd }) => {
    t.result('it', t.kernel.ioctl(fd, u.IOMMU_IOAS_CHANGE_PROCESS, u.iommu_ioas_change_process.bytes({ size: 8 })), 0);
  });
  add('CHANGE_PROCESS: EINVAL of memory that is no file’s', 'ioas.c iommufd_ioas_change_process', (t, host) => {
    const memory = t.memory(K);
    const fields = { size: 40, flags: 7, ioas_id: host.ioas(), user_va: memory.address, length: K, iova: K };
    t.result('map', t.kernel.ioctl(host.fd, u.IOMMU_IOAS_MAP, u.iommu_ioas_map.bytes(fields)), 0);
    t.result(
      'it',
      t.kernel.ioctl(host.fd, u.IOMMU_IOAS_CHANGE_PROCESS, u.iommu_ioas_change_process.bytes({ size: 8 })),
      'EINVAL',
    );
  });
});
