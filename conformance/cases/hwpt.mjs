/** Page tables of their own, and what the hardware says of itself. */
import * as u from 'belfry/uapi';
import { attach, bound, K } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const fixture = (t) => {
  const host = bound('edu')(t);
  const alloc = (what, fields, expected) =>
    t.request(
      what,
      host.iommufd,
      u.IOMMU_HWPT_ALLOC,
      u.iommu_hwpt_alloc,
      { size: 48, dev_id: host.devid, pt_id: host.ioas, ...fields },
      expected,
    ).out_hwpt_id;
  const destroy = (id) => t.kernel.ioctl(host.iommufd, u.IOMMU_DESTROY, u.iommu_destroy.bytes({ size: 8, id }));
  return { ...host, alloc, destroy };
};

suite('HWPT_ALLOC', { needs: ['iommufd'], source: 'drivers/iommu/iommufd/hw_pagetable.c', fixture }, (add) => {
  const branch = 'iommufd_hwpt_alloc';
  add('EOPNOTSUPP: the reserved field before EINVAL, unknown flags after it', branch, (_t, { alloc }) => {
    alloc('flag 0x100', { flags: 0x100 }, 'EOPNOTSUPP');
    alloc('flag 0x100 and data without a type', { flags: 0x100, data_len: 16 }, 'EINVAL');
    alloc('reserved', { __reserved: 1, data_len: 16 }, 'EOPNOTSUPP');
  });
  add('EINVAL: data without a type, a type without data, before ENOENT', branch, (_t, { alloc }) => {
    alloc('data', { data_len: 16, data_uptr: BigInt(K), dev_id: 99 }, 'EINVAL');
    alloc('a type', { data_type: 2, dev_id: 99 }, 'EINVAL');
  });
  add('ENOENT: no such device, before the parent', branch, (_t, { alloc }) => {
    alloc('99', { dev_id: 99, pt_id: 99 }, 'ENOENT');
  });
  add('EINVAL: no such parent, or one of another kind', branch, (_t, { alloc, devid }) => {
    alloc('99', { pt_id: 99 }, 'EINVAL');
    alloc('the device', { pt_id: devid }, 'EINVAL');
  });
  add(
    'EOPNOTSUPP: a nested one under a plain one, on an Arm IOMMU',
    branch,
    (_t, { alloc }) => {
      const pt_id = alloc('plain', {}, 0);
      alloc('under it', { pt_id }, 'EOPNOTSUPP');
    },
    { needs: ['arm'] },
  );
  add('a plain one, which can be destroyed', 'iommufd_hwpt_paging_alloc', (t, { alloc, destroy }) => {
    t.result('destroy', destroy(alloc('it', {}, 0)), 0);
  });
  add(
    'ENOENT: a fault queue that is none',
    branch,
    (_t, { alloc }) => {
      alloc('fault queue 99', { flags: u.IOMMU_HWPT_FAULT_ID_VALID, fault_id: 99 }, 'ENOENT');
    },
    { needs: ['arm'] },
  );
  add('EOPNOTSUPP: a fault queue of a nest parent', 'iommufd_hwpt_paging_alloc', (_t, { alloc }) => {
    alloc('both', { flags: u.IOMMU_HWPT_FAULT_ID_VALID | u.IOMMU_HWPT_ALLOC_NEST_PARENT, fault_id: 99 }, 'EOPNOTSUPP');
  });
  add('EOPNOTSUPP: dirty tracking where the IOMMU has none', 'iommufd_hwpt_paging_alloc', (_t, { alloc }) => {
    alloc('it', { flags: u.IOMMU_HWPT_ALLOC_DIRTY_TRACKING }, 'EOPNOTSUPP');
  });
  add('EBUSY: while it is attached', 'main.c iommufd_destroy', (t, { alloc, destroy, device }) => {
    const hwpt = alloc('it', {}, 0);
    t.result('attach', attach(t, device, hwpt), hwpt);
    t.result('destroy', destroy(hwpt), 'EBUSY');
  });
  add(
    'an IOAS with a page table of its own cannot be destroyed: EBUSY',
    'main.c iommufd_destroy',
    (t, { alloc, destroy, ioas }) => {
      const hwpt = alloc('it', {}, 0);
      t.result('the IOAS', destroy(ioas), 'EBUSY');
      t.result('the page table', destroy(hwpt), 0);
      t.result('then', destroy(ioas), 0);
    },
  );
  add(
    'a nest parent is a page table as others are',
    'iommufd_hwpt_paging_alloc',
    (t, { alloc, device }) => {
      const hwpt = alloc('it', { flags: u.IOMMU_HWPT_ALLOC_NEST_PARENT }, 0);
      t.result('attach', attach(t, device, hwpt), hwpt);
    },
    { needs: ['arm'] },
  );
  const dirty = (t, host, what, fields, expected) =>
    t.request(
      what,
      host.iommufd,
      u.IOMMU_HWPT_SET_DIRTY_TRACKING,
      u.iommu_hwpt_set_dirty_tracking,
      { size: 16, ...fields },
      expected,
    );
  add(
    'SET_DIRTY_TRACKING: EOPNOTSUPP flags, ENOENT, EOPNOTSUPP where there is none',
    'iommufd_hwpt_set_dirty_tracking',
    (t, host) => {
      dirty(t, host, 'flag 2', { hwpt_id: 99, flags: 2 }, 'EOPNOTSUPP');
      dirty(t, host, 'none', { hwpt_id: 99, flags: 1 }, 'ENOENT');
      dirty(t, host, 'it', { hwpt_id: host.alloc('plain', {}, 0), flags: 1 }, 'EOPNOTSUPP');
    },
  );
});

suite('HWPT_INVALIDATE', { needs: ['iommufd'], source: 'drivers/iommu/iommufd/hw_pagetable.c', fixture }, (add) => {
  const branch = 'iommufd_hwpt_invalidate';
  const call = (t, host, what, fields, expected) =>
    t.request(what, host.iommufd, u.IOMMU_HWPT_INVALIDATE, u.iommu_hwpt_invalidate, { size: 32, ...fields }, expected);
  add('EOPNOTSUPP: the reserved field', branch, (t, host) => {
    call(t, host, 'reserved', { __reserved: 1, entry_num: 1 }, 'EOPNOTSUPP');
  });
  add('EINVAL: entries without a place or a length', branch, (t, host) => {
    call(t, host, 'no place', { entry_num: 1, entry_len: 16 }, 'EINVAL');
    call(t, host, 'no length', { entry_num: 1, data_uptr: BigInt(K) }, 'EINVAL');
  });
  add('EINVAL: no object of that number, or one that is not nested', branch, (t, host) => {
    call(t, host, '99', { hwpt_id: 99 }, 'ENOENT');
    call(t, host, 'a plain one', { hwpt_id: host.alloc('plain', {}, 0) }, 'EINVAL');
  });
});

suite('GET_HW_INFO', { needs: ['iommufd'], source: 'drivers/iommu/iommufd/device.c', fixture }, (add) => {
  const branch = 'iommufd_get_hw_info';
  const ask = (t, host, what, fields, expected) =>
    t.request(
      what,
      host.iommufd,
      u.IOMMU_GET_HW_INFO,
      u.iommu_hw_info,
      { size: 40, dev_id: host.devid, ...fields },
      expected,
    );
  add('EOPNOTSUPP: flags; ENOENT: no such device', branch, (t, host) => {
    ask(t, host, 'flag 2', { flags: 2, dev_id: 99 }, 'EOPNOTSUPP');
    ask(t, host, '99', { dev_id: 99 }, 'ENOENT');
  });
  add(
    'of an SMMUv3: 40 bytes',
    branch,
    (t, host) => {
      ask(t, host, 'without room', {}, { data_len: 40, out_data_type: u.IOMMU_HW_INFO_TYPE_ARM_SMMUV3 });
    },
    { needs: ['arm'] },
  );
  add(
    'of VT-d',
    branch,
    (t, host) => {
      ask(t, host, 'without room', {}, { data_len: 24, out_data_type: u.IOMMU_HW_INFO_TYPE_INTEL_VTD });
    },
    { needs: ['x86'] },
  );
  add('EFAULT: a bad pointer', branch, (t, host) => {
    ask(t, host, 'it', { data_len: 256, data_uptr: 8n }, 'EFAULT');
  });
  add('the room behind what there is is zeroed', branch, (t, host) => {
    const room = t.memory(K);
    room.bytes.fill(0xaa);
    ask(t, host, 'it', { data_len: 256, data_uptr: BigInt(room.address) }, 0);
    t.same(
      'behind',
      room.bytes.subarray(64, 256).every((byte) => byte === 0),
      true,
    );
    t.same('and no more', room.bytes[256], 0xaa);
  });
  add('without a PASID capability: no PASIDs', branch, (t, host) => {
    ask(t, host, 'it', {}, { out_max_pasid_log2: 0 });
  });
});

suite('VIOMMU_ALLOC where user space owns no stage 1', {
  needs: ['iommufd', 'no-nesting'],
  source: 'drivers/iommu/iommufd/viommu.c',
  fixture,
}, (add) => {
  const branch = 'iommufd_viommu_alloc_ioctl';
  const call = (t, host, what, fields, expected) =>
    t.request(
      what,
      host.iommufd,
      u.IOMMU_VIOMMU_ALLOC,
      u.iommu_viommu_alloc,
      { size: 40, dev_id: host.devid, type: 1, ...fields },
      expected,
    );
  add('EOPNOTSUPP: flags, type 0', branch, (t, host) => {
    call(t, host, 'flags', { flags: 1, dev_id: 99 }, 'EOPNOTSUPP');
    call(t, host, 'type 0', { type: 0, dev_id: 99 }, 'EOPNOTSUPP');
  });
  add('ENOENT: no such device', branch, (t, host) => {
    call(t, host, '99', { dev_id: 99 }, 'ENOENT');
  });
  add('EOPNOTSUPP: this IOMMU gives none', branch, (t, host) => {
    call(t, host, 'before its page table is looked at', { hwpt_id: 99 }, 'EOPNOTSUPP');
  });
});
