/** vIOMMU, vDEVICE, vEVENTQ, page tables from stream table entries, invalidation: a stage 1 that user space owns. */
import * as u from 'belfry/uapi';
import { requests } from '../ioas-requests.mjs';
import { BUFFER, nested, STE, TABLES, VIRTUAL, VSID, WINDOW } from '../nested-fixture.mjs';
import { suite } from '../suite.mjs';

const { V, ABORT, BYPASS, STAGE1 } = STE;
const IOMMUFD = 'drivers/iommu/iommufd';
const SMMU = 'drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3-iommufd.c';
const needs = ['iommufd', 'nesting'];

suite('vDEVICE', { needs, source: `${IOMMUFD}/viommu.c`, fixture: nested }, (add) => {
  const branch = 'iommufd_vdevice_alloc_ioctl';
  add('ENOENT: no such vIOMMU, no such device', branch, (_t, o) => {
    o.vdevice('vIOMMU 99', { viommu_id: 99 }, 'ENOENT');
    o.vdevice('device 99', { dev_id: 99 }, 'ENOENT');
  });
  add('EEXIST: a device has one, whatever its number', branch, (_t, o) => {
    o.vdevice('first', {}, 0);
    o.vdevice('the same', {}, 'EEXIST');
    o.vdevice('another number', { virt_id: 0x43n }, 'EEXIST');
  });
  add('EBUSY: its vIOMMU cannot be destroyed', 'main.c iommufd_destroy', (t, o) => {
    const id = o.vdevice('it', {}, 0);
    t.result('vIOMMU', o.destroy(o.viommu), 'EBUSY');
    t.result('vDEVICE', o.destroy(id), 0);
    t.result('then', o.destroy(o.viommu), 0);
  });
});

suite('vEVENTQ', { needs, source: `${IOMMUFD}/eventq.c`, fixture: nested }, (add) => {
  const branch = 'iommufd_veventq_alloc';
  add('EOPNOTSUPP: flags, type 0, the reserved field', branch, (_t, o) => {
    o.queueRequest('flags', { flags: 1 }, 'EOPNOTSUPP');
    o.queueRequest('type 0', { type: 0 }, 'EOPNOTSUPP');
    o.queueRequest('reserved', { __reserved: 1 }, 'EOPNOTSUPP');
  });
  add('EINVAL: a depth of 0, or beyond 2^19', branch, (_t, o) => {
    o.queueRequest('0', { veventq_depth: 0 }, 'EINVAL');
    o.queueRequest('2^19 + 1', { veventq_depth: 2 ** 19 + 1 }, 'EINVAL');
  });
  add('ENOENT: no such vIOMMU', branch, (_t, o) => {
    o.queueRequest('99', { viommu_id: 99 }, 'ENOENT');
  });
  add('EEXIST: one of a type', branch, (_t, o) => {
    o.queueRequest('first', {}, 0);
    o.queueRequest('second', {}, 'EEXIST');
  });
  add('an empty one reads as nothing; EINVAL below a header', 'iommufd_veventq_fops_read', (t, o) => {
    const { out_veventq_fd: queue } = o.queueRequest('it', {}, 0);
    t.result('64 bytes', t.kernel.read(queue, new Uint8Array(64)), 0);
    t.result('7 bytes', t.kernel.read(queue, new Uint8Array(7)), 'EINVAL');
    t.result('write', t.kernel.write(queue, new Uint8Array(8)), 'EINVAL');
  });
  add('EBUSY: while its file is open', 'main.c iommufd_destroy', (t, o) => {
    const { out_veventq_id, out_veventq_fd } = o.queueRequest('it', {}, 0);
    t.result('open', o.destroy(out_veventq_id), 'EBUSY');
    t.close(out_veventq_fd);
    t.result('closed', o.destroy(out_veventq_id), 0);
  });
});

suite('stream table entry', { needs, source: SMMU, fixture: nested }, (add) => {
  const branch = 'arm_smmu_validate_vste';
  add('not valid, whatever else it says: taken as abort', branch, (_t, o) => {
    o.entry('zero', 0n, 0n, 0);
    o.entry('stage 1', STAGE1, 0n, 0);
  });
  add('abort, bypass and stage 1', branch, (_t, o) => {
    o.entry('abort', V | ABORT, 0n, 0);
    o.entry('bypass', V | BYPASS, 0n, 0);
    o.entry('stage 1', V | STAGE1 | TABLES, 0n, 0);
  });
  add('EIO: another Config', branch, (_t, o) => {
    for (const config of [1n, 2n, 3n, 6n, 7n]) o.entry(`${config}`, V | (config << 1n), 0n, 'EIO');
  });
  add('S1Fmt and S1CDMax are taken', branch, (_t, o) => {
    o.entry('S1Fmt 1', V | STAGE1 | TABLES | (1n << 4n), 0n, 0);
    o.entry('S1CDMax 1', V | STAGE1 | TABLES | (1n << 59n), 0n, 0);
  });
  add('EATS 1 is taken, others are EIO', branch, (_t, o) => {
    o.entry('1', V | BYPASS, 1n << 28n, 0);
    o.entry('2', V | BYPASS, 2n << 28n, 'EIO');
    o.entry('3', V | BYPASS, 3n << 28n, 'EIO');
  });
  add('EIO: a bit that is not the owner’s', branch, (_t, o) => {
    o.entry('bit 52 of word 0', V | BYPASS | (1n << 52n), 0n, 'EIO');
    o.entry('STRW', V | BYPASS, 1n << 30n, 'EIO');
    o.entry('bit 40 of word 1', V | BYPASS, 1n << 40n, 'EIO');
  });
  const copy = 'arm_vsmmu_alloc_domain_nested';
  add('EINVAL: data of another size or type; EFAULT: none there', copy, (_t, o) => {
    o.entry('8 bytes', V | BYPASS, 0n, 'EINVAL', { data_len: 8 });
    o.entry('type 1', V | BYPASS, 0n, 'EINVAL', { data_type: 1 });
    o.entry('a bad pointer', V | BYPASS, 0n, 'EFAULT', { data_uptr: 8n });
  });
  add('EOPNOTSUPP: a nest parent cannot be nested', copy, (_t, o) => {
    o.entry('flags', V | BYPASS, 0n, 'EOPNOTSUPP', { flags: u.IOMMU_HWPT_ALLOC_NEST_PARENT });
  });
  add(
    'ENOENT: stage 1 of a device without its virtual number; bypass needs none',
    'arm_smmu_attach_prepare_vmaster',
    (t, o) => {
      t.result('stage 1', o.attach(o.entry('stage 1', V | STAGE1 | TABLES, 0n, 0)), 'ENOENT');
      const bypass = o.entry('bypass', V | BYPASS, 0n, 0);
      t.result('bypass', o.attach(bypass), bypass);
    },
  );
});

suite('reservations of a nest parent', { needs, source: `${IOMMUFD}/device.c`, fixture: nested }, (add) => {
  // Linux takes them away in err_unresv although the device stays attached: with the same IOAS it had not made them anew.
  add('a replace that fails takes them from the IOAS', 'iommufd_device_do_replace', (t, o) => {
    t.result('parent', o.attach(o.parent), o.parent);
    const { ranges } = requests(t, o.iommufd, o.ioas);
    t.same('the window is out', ranges()[1], 2);
    const table = o.entry('stage 1', V | STAGE1 | TABLES, 0n, 0);
    t.result('no virtual number', o.attach(table), 'ENOENT');
    t.same('and is in', ranges()[1], 1);
  });
});

suite('nested translation', { needs, source: SMMU, fixture: nested }, (add) => {
  const branch = 'arm_smmu_attach_dev_nested';
  add('the parent alone: stage 2', branch, async (t, o) => {
    o.memory.bytes.set([1, 2, 3, 4]);
    t.result('attach', o.attach(o.parent), o.parent);
    o.msiOn();
    await o.msi('MSI', 1);
    await o.carry('DMA', BUFFER, BUFFER + 0x1000n, [1, 2, 3, 4]);
  });
  add('bypass: stage 2 alone', branch, async (t, o) => {
    o.memory.bytes.set([1, 2, 3, 4]);
    const bypass = o.entry('bypass', V | BYPASS, 0n, 0);
    t.result('attach', o.attach(bypass), bypass);
    o.msiOn();
    await o.msi('MSI', 1);
    await o.carry('DMA', BUFFER, BUFFER + 0x1000n, [1, 2, 3, 4]);
  });
  add('abort: nothing passes', branch, async (t, o) => {
    const abort = o.entry('abort', V | ABORT, 0n, 0);
    t.result('attach', o.attach(abort), abort);
    o.msiOn();
    await o.msi('MSI', 0);
    t.result('destroy', o.destroy(abort), 'EBUSY');
  });
  add('stage 1: by the owner’s tables', branch, async (_t, o) => {
    o.memory.bytes.set([1, 2, 3, 4]);
    o.stage1({ window: true });
    await o.carry('DMA', VIRTUAL, VIRTUAL + 0x1000n, [1, 2, 3, 4]);
    await o.record('no event', null);
  });
  add('stage 1 with the window: the MSI arrives', branch, async (_t, o) => {
    o.stage1({ window: true });
    o.msiOn();
    await o.msi('MSI', 1);
  });
  add(
    'stage 1 without the window: the MSI is lost, and the record names the virtual number',
    'arm_vmaster_report_event',
    async (_t, o) => {
      o.stage1({ window: false });
      o.msiOn();
      await o.msi('MSI', 0);
      await o.record('F_TRANSLATION', { sequence: 0, event: 0x10, sid: Number(VSID), address: WINDOW | 0x40n });
      o.page(WINDOW, WINDOW);
      o.invalidate('all', [[0x10n, 0n]], [0, 1]);
      await o.msi('MSI with the window', 1);
    },
  );
  add('a read and a write of nothing: F_TRANSLATION, numbered', 'arm_vmaster_report_event', async (_t, o) => {
    o.stage1({ window: true });
    await o.dma(VIRTUAL + 0x10_0000n, true);
    await o.record('read', { sequence: 0, event: 0x10, sid: Number(VSID), address: VIRTUAL + 0x10_0000n });
    await o.dma(VIRTUAL + 0x10_0000n, false);
    await o.record('write', { sequence: 1, event: 0x10, sid: Number(VSID), address: VIRTUAL + 0x10_0000n });
  });
  add('a write of what is read only: F_PERMISSION', 'arm_vmaster_report_event', async (_t, o) => {
    o.stage1({ window: true });
    o.page(VIRTUAL + 0x2000n, BUFFER + 0x2000n, true);
    o.invalidate('all', [[0x10n, 0n]], [0, 1]);
    await o.dma(VIRTUAL + 0x2000n, false);
    await o.record('it', { sequence: 0, event: 0x13, sid: Number(VSID), address: VIRTUAL + 0x2000n });
  });
  add('a hole in stage 2 is not the owner’s to know', 'arm-smmu-v3.c arm_smmu_handle_event', async (_t, o) => {
    o.stage1({ window: true });
    o.page(VIRTUAL + 0x3000n, 0x9000_0000n);
    await o.dma(VIRTUAL + 0x3000n, true);
    await o.record('nothing', null);
  });
  add('a page that moved is seen after its invalidation', 'arm_vsmmu_cache_invalidate', async (_t, o) => {
    o.memory.bytes.set([1, 2, 3, 4]);
    o.memory.bytes.set([9, 9, 9, 9], 0x2000);
    o.stage1({ window: true });
    await o.carry('before', VIRTUAL, VIRTUAL + 0x1000n, [1, 2, 3, 4]);
    o.page(VIRTUAL, BUFFER + 0x2000n);
    o.invalidate('ASID 1', [[0x11n | (1n << 48n), 0n]], [0, 1]);
    await o.carry('after', VIRTUAL, VIRTUAL + 0x1000n, [9, 9, 9, 9]);
  });
  add('replaced by the IOAS and back, the MSI goes on', branch, async (t, o) => {
    const table = o.stage1({ window: true });
    o.msiOn();
    await o.msi('stage 1', 1);
    t.same('IOAS', o.attach(o.ioas) > 0, true);
    await o.msi('IOAS', 1);
    t.result('stage 1', o.attach(table), table);
    await o.msi('stage 1 again', 1);
  });
});

suite('invalidation of a vIOMMU', { needs, source: SMMU, fixture: nested }, (add) => {
  const branch = 'arm_vsmmu_convert_user_cmd';
  const sid = VSID << 32n;
  add('commands that are taken', branch, (_t, o) => {
    o.vdevice('vDEVICE', {}, 0);
    const commands = {
      NH_ALL: 0x10n,
      NH_ASID: 0x11n | (1n << 48n),
      NH_VA: 0x12n | (1n << 48n),
      NH_VAA: 0x13n,
      NSNH_ALL: 0x30n,
      CFGI_CD: 0x05n | sid,
      CFGI_CD_ALL: 0x06n | sid,
      ATC_INV: 0x40n | sid,
    };
    for (const [name, word] of Object.entries(commands)) o.invalidate(name, [[word, VIRTUAL]], [0, 1]);
  });
  add('EIO: commands of the hypervisor', branch, (_t, o) => {
    o.vdevice('vDEVICE', {}, 0);
    const commands = {
      CFGI_STE: 0x03n | sid,
      CFGI_ALL: 0x04n,
      EL2_ALL: 0x20n,
      S2_IPA: 0x2an,
      S12_VMALL: 0x28n,
      SYNC: 0x46n,
      RESUME: 0x44n,
      PREFETCH: 0x01n,
    };
    for (const [name, word] of Object.entries(commands)) o.invalidate(name, [[word, 0n]], ['EIO', 0]);
  });
  add('EIO: a virtual number that no device has', 'arm_vsmmu_vsid_to_sid', (_t, o) => {
    o.vdevice('vDEVICE', {}, 0);
    o.invalidate('CFGI_CD', [[0x05n | (0x77n << 32n), 0n]], ['EIO', 0]);
    o.invalidate('ATC_INV', [[0x40n | (0x77n << 32n), 0n]], ['EIO', 0]);
  });
  add('what was done before the wrong one is told', 'arm_vsmmu_cache_invalidate', (_t, o) => {
    o.invalidate(
      'two',
      [
        [0x10n, 0n],
        [0x11n, 0n],
      ],
      [0, 2],
    );
    o.invalidate(
      'the second wrong',
      [
        [0x10n, 0n],
        [0x03n, 0n],
      ],
      ['EIO', 1],
    );
  });
  const check = 'drivers/iommu/iommufd/hw_pagetable.c iommufd_hwpt_invalidate';
  add('EINVAL: no entries’ place or length, too long, too many', check, (_t, o) => {
    o.invalidate('no place', [[0x10n, 0n]], ['EINVAL', 0], { data_uptr: 0n });
    o.invalidate('length 0', [[0x10n, 0n]], ['EINVAL', 0], { entry_len: 0 });
    o.invalidate('length 5,000', [[0x10n, 0n]], ['EINVAL', 0], { entry_len: 5000 });
    o.invalidate('2^20 of them', [[0x10n, 0n]], ['EINVAL', 0], { entry_num: 2 ** 20 });
  });
  add('EFAULT, EOPNOTSUPP, ENOENT', check, (_t, o) => {
    o.invalidate('a bad pointer', [[0x10n, 0n]], ['EFAULT', 0], { data_uptr: 8n });
    o.invalidate('reserved', [[0x10n, 0n]], ['EOPNOTSUPP', 0], { __reserved: 1 });
    o.invalidate('object 99', [[0x10n, 0n]], ['ENOENT', 0], { hwpt_id: 99 });
  });
  add('EINVAL: of the parent; EOPNOTSUPP: of a nested page table', check, (_t, o) => {
    o.invalidate('parent', [[0x10n, 0n]], ['EINVAL', 0], { hwpt_id: o.parent });
    o.invalidate('nested', [[0x10n, 0n]], ['EOPNOTSUPP', 0], { hwpt_id: o.entry('bypass', V | BYPASS, 0n, 0) });
  });
  add('EINVAL: another type of data', 'arm_vsmmu_cache_invalidate', (_t, o) => {
    o.invalidate('type 0', [[0x10n, 0n]], ['EINVAL', 0], { data_type: 0 });
  });
});

suite('lifetime of nested objects', { needs, source: IOMMUFD, fixture: nested }, (add) => {
  add('EBUSY: a parent with a vIOMMU, a vIOMMU with a page table', 'main.c iommufd_destroy', (t, o) => {
    const table = o.entry('bypass', V | BYPASS, 0n, 0);
    t.result('parent', o.destroy(o.parent), 'EBUSY');
    t.result('vIOMMU', o.destroy(o.viommu), 'EBUSY');
    t.result('page table', o.destroy(table), 0);
    t.result('vIOMMU then', o.destroy(o.viommu), 0);
    t.result('parent then', o.destroy(o.parent), 0);
  });
  add('the device closed first: all objects can go', 'viommu.c iommufd_vdevice_abort', (t, o) => {
    o.stage1({ window: true });
    t.result('close', t.close(o.device), 0);
    t.result('its object', o.destroy(o.devid), 'ENOENT');
  });
});
