/** A device by its own file: BIND, ATTACH, DETACH, and what an attached IOAS becomes. */
import * as u from 'belfry/uapi';
import { attach, attached, bound, CONFIG, cdev, destroy, detach, find, ioas, K, nodeOf } from '../fixtures.mjs';
import { requests } from '../ioas-requests.mjs';
import { suite } from '../suite.mjs';

const MAX = 2n ** 64n - 1n;
const bind = (t, what, fd, fields, expected) =>
  t.request(what, fd, u.VFIO_DEVICE_BIND_IOMMUFD, u.vfio_device_bind_iommufd, { argsz: 24, ...fields }, expected);
const attachWith = (t, what, device, fields, expected) =>
  t.request(
    what,
    device,
    u.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
    u.vfio_device_attach_iommufd_pt,
    { argsz: 12, ...fields },
    expected,
  );

suite('cdev before BIND', { needs: ['iommufd'], source: 'drivers/vfio', fixture: cdev('edu') }, (add) => {
  add('EINVAL: every request', 'vfio_main.c vfio_device_fops_unl_ioctl', (t, { device }) => {
    t.result(
      'GET_INFO',
      t.kernel.ioctl(device, u.VFIO_DEVICE_GET_INFO, u.vfio_device_info.bytes({ argsz: 16 })),
      'EINVAL',
    );
    t.result('RESET', t.kernel.ioctl(device, u.VFIO_DEVICE_RESET), 'EINVAL');
    t.result('ATTACH', attach(t, device, 1), 'EINVAL');
    t.result('DETACH', detach(t, device), 'EINVAL');
  });
  add('EINVAL: reading, writing, mapping', 'vfio_main.c vfio_device_fops_read', (t, { device }) => {
    t.result('read', t.kernel.pread(device, new Uint8Array(4), CONFIG), 'EINVAL');
    t.result('write', t.kernel.pwrite(device, new Uint8Array(4), CONFIG), 'EINVAL');
    const mapped = t.kernel.mmap(device, 0, K);
    t.result('mmap', typeof mapped === 'number' ? mapped : 0, 'EINVAL');
  });
  add('BIND: EFAULT, EINVAL argsz', 'device_cdev.c vfio_df_ioctl_bind_iommufd', (t, { device, iommufd }) => {
    t.result('null', t.kernel.ioctl(device, u.VFIO_DEVICE_BIND_IOMMUFD, 0n), 'EFAULT');
    bind(t, 'argsz 15', device, { argsz: 15, iommufd }, 'EINVAL');
  });
  add(
    'BIND: EINVAL of -1, and of an unknown flag',
    'device_cdev.c vfio_df_ioctl_bind_iommufd',
    (t, { device, iommufd }) => {
      bind(t, '-1', device, { iommufd: -1 }, 'EINVAL');
      bind(t, 'flag 2', device, { iommufd, flags: 2 }, 'EINVAL');
    },
  );
  add('BIND: EBADF of no file, EBADFD of another kind', 'device_cdev.c vfio_df_ioctl_bind_iommufd', (t, { device }) => {
    bind(t, '9999', device, { iommufd: 9999 }, 'EBADF');
    bind(t, 'an eventfd', device, { iommufd: t.eventfd().fd }, 'EBADFD');
  });
  add(
    'BIND: a token where none applies is EINVAL',
    'pci/vfio_pci_core.c vfio_pci_validate_vf_token',
    (t, { device, iommufd }) => {
      const token = t.memory(K);
      bind(t, 'a token', device, { iommufd, flags: 1, token_uuid_ptr: BigInt(token.address) }, 'EINVAL');
      bind(t, 'a bad pointer', device, { iommufd, flags: 1, token_uuid_ptr: 8n }, 'EFAULT');
    },
  );
  add(
    'BIND: EBUSY while the group is open',
    'device_cdev.c vfio_device_block_group',
    (t, { device, iommufd, group }) => {
      const fd = t.open(`/dev/vfio/${group}`);
      bind(t, 'open', device, { iommufd }, 'EBUSY');
      t.close(fd);
      bind(t, 'closed', device, { iommufd }, 0);
    },
  );
  add('BIND gives the object of the device', 'device_cdev.c vfio_df_ioctl_bind_iommufd', (t, { device, iommufd }) => {
    bind(t, 'it', device, { iommufd }, { out_devid: 1 });
  });
  add(
    'an argsz of the first version is enough',
    'device_cdev.c vfio_df_ioctl_bind_iommufd',
    (t, { device, iommufd }) => {
      bind(t, '16', device, { argsz: 16, iommufd }, { out_devid: 1 });
    },
  );
});

suite('cdev, isolation', { needs: ['iommufd', 'unsafe'], source: 'drivers/iommu/iommufd/device.c' }, (add) => {
  add('EPERM: BIND where MSIs are not isolated, unless it is allowed', 'iommufd_device_bind', (t) => {
    const host = cdev('edu')(t);
    t.must('forbid', forbid(t));
    bind(t, 'forbidden', host.device, { iommufd: host.iommufd }, 'EPERM');
  });
});

function forbid(t) {
  const fd = t.open('/sys/module/iommufd/parameters/allow_unsafe_interrupts');
  return t.kernel.write(fd, new TextEncoder().encode('N\n'));
}

suite('cdev, bound', { needs: ['iommufd'], source: 'drivers/vfio', fixture: bound('edu') }, (add) => {
  add(
    'EINVAL: BIND again, also of another file of the device',
    'device_cdev.c vfio_df_ioctl_bind_iommufd',
    (t, host) => {
      bind(t, 'again', host.device, { iommufd: host.iommufd }, 'EINVAL');
      const second = t.open(`/dev/vfio/devices/${host.node}`);
      bind(t, 'another file', second, { iommufd: host.iommufd }, 'EINVAL');
    },
  );
  add('EBUSY: its group cannot be opened', 'group.c vfio_group_fops_open', (t, { group }) => {
    t.result('open', t.kernel.open(`/dev/vfio/${group}`), 'EBUSY');
  });
  add(
    'EBUSY: its object cannot be destroyed',
    'drivers/iommu/iommufd/main.c iommufd_destroy',
    (t, { iommufd, devid }) => {
      t.result('destroy', destroy(t, iommufd, devid), 'EBUSY');
    },
  );
  add('its object goes with its file', 'drivers/iommu/iommufd/device.c iommufd_device_unbind', (t, host) => {
    t.close(host.device);
    t.result('destroy', destroy(t, host.iommufd, host.devid), 'ENOENT');
  });
  add('it works before it is attached', 'pci/vfio_pci_core.c vfio_pci_core_ioctl', (t, { device }) => {
    t.request(
      'GET_INFO',
      device,
      u.VFIO_DEVICE_GET_INFO,
      u.vfio_device_info,
      { argsz: 24 },
      { num_regions: 9, num_irqs: 5 },
    );
  });
  const order = 'device_cdev.c vfio_df_ioctl_attach_pt';
  add('ATTACH: EFAULT, EINVAL argsz and flags', order, (t, { device, ioas: pt_id }) => {
    t.result('null', t.kernel.ioctl(device, u.VFIO_DEVICE_ATTACH_IOMMUFD_PT, 0n), 'EFAULT');
    attachWith(t, 'argsz 11', device, { argsz: 11, pt_id }, 'EINVAL');
    attachWith(t, 'flag 2', device, { flags: 2, pt_id }, 'EINVAL');
  });
  add(
    'ATTACH: ENOENT of none, EINVAL of what is no page table',
    'drivers/iommu/iommufd/device.c iommufd_device_change_pt',
    (t, { device, devid }) => {
      attachWith(t, '99', device, { pt_id: 99 }, 'ENOENT');
      attachWith(t, 'the device', device, { pt_id: devid }, 'EINVAL');
    },
  );
  add(
    'ATTACH of an IOAS makes a page table, and tells its number',
    'drivers/iommu/iommufd/device.c iommufd_device_auto_get_domain',
    (t, { device, ioas: pt_id }) => {
      attachWith(t, 'it', device, { pt_id }, { pt_id: 3 });
      attachWith(t, 'again: the same', device, { pt_id }, { pt_id: 3 });
    },
  );
  add('DETACH may be said again', 'device_cdev.c vfio_df_ioctl_detach_pt', (t, { device, ioas: pt_id }) => {
    t.result('before', detach(t, device), 0);
    attachWith(t, 'attach', device, { pt_id }, { pt_id: 3 });
    t.result('it', detach(t, device), 0);
    t.result('again', detach(t, device), 0);
    t.result('flags', detach(t, device, { flags: 2 }), 'EINVAL');
    t.result('argsz 7', detach(t, device, { argsz: 7 }), 'EINVAL');
  });
  add(
    'a page table of an IOAS goes when nothing is attached',
    'drivers/iommu/iommufd/device.c iommufd_hw_pagetable_detach',
    (t, host) => {
      const hwpt = attach(t, host.device, host.ioas);
      t.result('attached', destroy(t, host.iommufd, hwpt), 'EBUSY');
      t.result('detach', detach(t, host.device), 0);
      t.result('then', destroy(t, host.iommufd, hwpt), 'ENOENT');
    },
  );
  add(
    'another device of another group shares the page table',
    'drivers/iommu/iommufd/device.c iommufd_device_auto_get_domain',
    (t, host) => {
      const first = attach(t, host.device, host.ioas);
      const other = t.open(nodeOf(t, find(t, 'nvme').name));
      bind(t, 'bind', other, { iommufd: host.iommufd }, 0);
      attachWith(t, 'attach', other, { pt_id: host.ioas }, { pt_id: first });
    },
  );
});

suite('ATTACH and what is mapped', {
  needs: ['iommufd'],
  source: 'drivers/iommu/iommufd',
  fixture: prepared,
}, (add) => {
  add('EADDRINUSE: a map over the MSI window', 'io_pagetable.c iopt_table_enforce_dev_resv_regions', (t, host) => {
    host.map('over the window', { iova: t.window.start }, 0);
    t.result('ATTACH', attach(t, host.device, host.ioas), 'EADDRINUSE');
    host.unmap('it', t.window.start, K, { length: 0x1000n });
    t.same('then', attach(t, host.device, host.ioas) > 0, true);
  });
  add(
    'EADDRINUSE: allowed ranges over the MSI window',
    'io_pagetable.c iopt_table_enforce_dev_resv_regions',
    (t, host) => {
      host.allow('over the window', [[0, 0xffff_ffff]], 0);
      t.result('ATTACH', attach(t, host.device, host.ioas), 'EADDRINUSE');
    },
  );
  add('EADDRINUSE: a map beyond the aperture', 'io_pagetable.c iopt_table_add_domain', (t, host) => {
    host.map('beyond 48 bits', { iova: 2 ** 48 }, 0);
    t.result('ATTACH', attach(t, host.device, host.ioas), 'EADDRINUSE');
  });
  add('EADDRINUSE: a map that is not in whole pages', 'io_pagetable.c iopt_table_add_domain', (t, host) => {
    host.map('a byte', { length: 1 }, 0);
    t.result('ATTACH', attach(t, host.device, host.ioas), 'EADDRINUSE');
  });
  add('EFAULT: memory that is not there is found when it is needed', 'pages.c iopt_area_fill_domain', (t, host) => {
    host.map('page 1', { user_va: K }, 0);
    t.result('ATTACH', attach(t, host.device, host.ioas), 'EFAULT');
  });
});

suite('an attached IOAS', { needs: ['iommufd'], source: 'drivers/iommu/iommufd', fixture: attachedIoas }, (add) => {
  add('its ranges: the aperture without the window, by pages', 'ioas.c iommufd_ioas_iova_ranges', (t, { ranges }) => {
    const window = [BigInt(t.window.start) - 1n, BigInt(t.window.end) + 1n];
    t.same('ranges', ranges(), [0, 2, 4096n, [0n, window[0], window[1], 2n ** 48n - 1n]]);
    t.same('room for one', ranges(1), ['EMSGSIZE', 2, 4096n, [0n, window[0]]]);
  });
  add('EINVAL: a map in the window, or across its edges', 'io_pagetable.c iopt_check_iova', (t, { map }) => {
    map('first page', { iova: t.window.start }, 'EINVAL');
    map('across the start', { iova: t.window.start - K, length: 2 * K }, 'EINVAL');
    map('last page', { iova: t.window.end + 1 - K }, 'EINVAL');
    map('right below', { iova: t.window.start - K }, 0);
    map('right above', { iova: t.window.end + 1 }, 0);
  });
  add('EINVAL: beyond the aperture', 'io_pagetable.c iopt_check_iova', (_t, { map }) => {
    map('last of 48 bits', { iova: 2 ** 48 - K }, 0);
    map('first of 49', { iova: 2 ** 48 }, 'EINVAL');
  });
  add('EINVAL: not in whole pages', 'io_pagetable.c iopt_check_iova', (_t, { map, memory }) => {
    map('length', { length: 0x800 }, 'EINVAL');
    map('IOVA', { iova: 0x10_0800 }, 'EINVAL');
    map('memory', { user_va: memory.address + 0x800 }, 'EINVAL');
  });
  add('EFAULT: memory that is not there', 'pages.c pin_memory_pages', (_t, { map }) => {
    map('page 1', { user_va: K }, 'EFAULT');
    map('nothing is left', {}, 0);
  });
  add('a chosen IOVA avoids the window', 'io_pagetable.c iopt_alloc_iova', (t, { allow, choose }) => {
    allow('below the window, four pages', [[t.window.start - 4 * K, t.window.start - 1]], 0);
    choose('four pages', { length: 4 * K }, { iova: BigInt(t.window.start - 4 * K) });
    choose('one more', {}, 'ENOSPC');
  });
  add('EADDRINUSE: to allow the window', 'io_pagetable.c iopt_set_allow_iova', (_t, { allow }) => {
    allow('all of 32 bits', [[0, 0xffff_ffff]], 'EADDRINUSE');
  });
  add('EBUSY: it cannot be destroyed', 'main.c iommufd_destroy', (t, { iommufd, ioas: id }) => {
    t.result('destroy', destroy(t, iommufd, id), 'EBUSY');
  });
  add('everything at once', 'io_pagetable.c iopt_unmap_all', (_t, { map, unmap }) => {
    map('one', {}, 0);
    map('two megabytes', { iova: 0x20_0000, length: 0x20_0000 }, 0);
    unmap('all', 0, MAX, { length: 0x20_1000n });
  });
  add('another IOAS takes its place: replace', 'device.c iommufd_device_change_pt', (t, host) => {
    const second = ioas(t, host.iommufd);
    t.same('another page table', attach(t, host.device, second) !== host.hwpt, true);
    t.result('the first is free', destroy(t, host.iommufd, host.ioas), 0);
  });
  add('a replace that fails leaves what was', 'device.c iommufd_device_replace', (t, host) => {
    const second = ioas(t, host.iommufd);
    const bad = requests(t, host.iommufd, second);
    bad.map('over the window', { iova: t.window.start }, 0);
    t.result('replace', attach(t, host.device, second), 'EADDRINUSE');
    t.same('still the first', attach(t, host.device, host.ioas), host.hwpt);
  });
});

function prepared(t) {
  const host = bound('edu')(t);
  return { ...host, ...requests(t, host.iommufd, host.ioas) };
}

function attachedIoas(t) {
  const host = attached('edu')(t);
  return { ...host, ...requests(t, host.iommufd, host.ioas) };
}
