import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { MapDomain } from '../vfio/test-host.ts';
import { attachedHost, named } from './testing.ts';
import { CdevLab } from './testing-machine.ts';

const PAGE = 4096;

describe('HWPT_ALLOC', () => {
  it('refuses in the order of Linux', () => {
    const { iommufd, id } = attachedHost();
    const alloc = (fields: Init<typeof uapi.iommu_hwpt_alloc>) =>
      iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, { dev_id: 2, pt_id: id, ...fields }).result;
    expect(alloc({ __reserved: 1, data_len: 1 })).toBe('EOPNOTSUPP');
    expect(alloc({ data_len: 1, dev_id: 99 })).toBe('EINVAL');
    expect(alloc({ data_type: 2, dev_id: 99 })).toBe('EINVAL');
    expect(alloc({ dev_id: 99, pt_id: 99 })).toBe('ENOENT');
    expect(alloc({ dev_id: id, pt_id: 99 })).toBe('ENOENT');
    expect(alloc({ pt_id: 99, flags: 0x10 })).toBe('EINVAL');
    expect(alloc({ pt_id: 2, flags: 0x10 })).toBe('EINVAL');
    expect(alloc({ flags: 0x10 })).toBe('EOPNOTSUPP');
    expect(alloc({ flags: uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING })).toBe('EOPNOTSUPP');
    expect(alloc({ flags: uapi.IOMMU_HWPT_FAULT_ID_VALID | uapi.IOMMU_HWPT_ALLOC_NEST_PARENT })).toBe('EOPNOTSUPP');
    expect(alloc({ flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT })).toBe('EOPNOTSUPP');
    expect(alloc({ data_type: 2, data_len: 16 })).toBe('EOPNOTSUPP');
    expect(alloc({ flags: uapi.IOMMU_HWPT_FAULT_ID_VALID, fault_id: 99 })).toBe('ENOENT');
    expect(alloc({ pt_id: 3, data_type: 2, data_len: 16, flags: 2 })).toBe('EOPNOTSUPP');
    expect(alloc({ pt_id: 3 })).toBe('EOPNOTSUPP');
    expect(alloc({ pt_id: 3, data_type: 2, data_len: 16 })).toBe('EINVAL');
    expect(iommufd.ctx.objects.size).toBe(3);
    expect(alloc({})).toBe(0);
  });

  it('has the mappings of its IOAS from the beginning, holds it, and goes when it is told', () => {
    const { iommufd, id, va, groups, devices } = attachedHost();
    iommufd.mapAt(id, 0x1000, va, PAGE);
    expect(iommufd.hwpt(2, id)).toBe(4);
    const domain = groups[0]!.made.at(-1)!;
    expect(domain.pages.size).toBe(1);
    expect(iommufd.attach(devices[0]!, 4)).toBe(4);
    // The automatic table went with its last device; this one stays without any.
    expect(iommufd.destroy(3)).toBe('ENOENT');
    expect(iommufd.destroy(4)).toBe('EBUSY');
    iommufd.mapAt(id, 0x2000, va, PAGE);
    expect(domain.pages.size).toBe(2);
    iommufd.detach(devices[0]!);
    expect(iommufd.destroy(id)).toBe('EBUSY');
    expect([domain.freed, iommufd.destroy(4), domain.freed]).toEqual([false, 0, true]);
    expect(iommufd.destroy(id)).toBe(0);
  });

  it('is no automatic table: an attach to the IOAS makes another', () => {
    const { iommufd, id, devices } = attachedHost();
    expect(iommufd.hwpt(2, id)).toBe(4);
    iommufd.detach(devices[0]!);
    expect(iommufd.attach(devices[0]!, id)).toBe(3);
  });

  it('leaves nothing when the mappings do not fit, or the driver has none', () => {
    const { iommufd, id, va, groups, devices } = attachedHost();
    iommufd.detach(devices[0]!);
    expect(iommufd.mapAt(id, 0x1000, va, 8)).toBe(0);
    expect(iommufd.hwpt(2, id)).toBe('EADDRINUSE');
    expect(iommufd.unmap(id, 0x1000, 8)).toBe(8n);
    iommufd.mapAt(id, 0x1000, va, PAGE);
    const made: MapDomain[] = [];
    groups[0]!.allocateDomain = () => {
      const domain = new MapDomain(groups[0]!.unit);
      domain.refuseMaps = -ERRNO.ENOMEM;
      made.push(domain);
      return domain;
    };
    expect(iommufd.hwpt(2, id)).toBe('ENOMEM');
    expect([made[0]!.freed, iommufd.ctx.objects.size, iommufd.ranges(id).alignment]).toEqual([true, 2, 1n]);
  });
});

describe('dirty tracking', () => {
  it('refuses in order, and is not what this page table has', () => {
    const { iommufd } = attachedHost();
    const set = (fields: Init<typeof uapi.iommu_hwpt_set_dirty_tracking>) =>
      iommufd.call(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, uapi.iommu_hwpt_set_dirty_tracking, fields).result;
    const get = (fields: Init<typeof uapi.iommu_hwpt_get_dirty_bitmap>) =>
      iommufd.call(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, uapi.iommu_hwpt_get_dirty_bitmap, fields).result;
    expect([set({ flags: 2 }), set({ hwpt_id: 99 }), set({ hwpt_id: 1 }), set({ hwpt_id: 3, flags: 1 })]).toEqual([
      'EOPNOTSUPP',
      'ENOENT',
      'ENOENT',
      'EOPNOTSUPP',
    ]);
    const page = { length: 4096n, page_size: 4096n };
    expect([get({ flags: 2 }), get({ __reserved: 1 }), get({ hwpt_id: 99 }), get({ hwpt_id: 3, ...page })]).toEqual([
      'EOPNOTSUPP',
      'EOPNOTSUPP',
      'ENOENT',
      'EOPNOTSUPP',
    ]);
  });
});

describe('HWPT_INVALIDATE', () => {
  it('refuses in order, and says that no entry was done', () => {
    const { iommufd } = attachedHost();
    const call = (fields: Init<typeof uapi.iommu_hwpt_invalidate>) => {
      const answer = iommufd.call(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommu_hwpt_invalidate, fields);
      return [answer.result, answer.entry_num];
    };
    expect(call({ __reserved: 1, entry_num: 1 })).toEqual(['EOPNOTSUPP', 0]);
    expect(call({ hwpt_id: 99, entry_num: 1, entry_len: 16 })).toEqual(['EINVAL', 0]);
    expect(call({ hwpt_id: 99, entry_num: 1, data_uptr: 8 })).toEqual(['EINVAL', 0]);
    expect(call({ hwpt_id: 99, entry_num: 1, data_uptr: 8, entry_len: 16 })).toEqual(['ENOENT', 0]);
    expect(call({ hwpt_id: 3, entry_num: 1, data_uptr: 8, entry_len: 16 })).toEqual(['EINVAL', 0]);
  });
});

describe('FAULT_QUEUE_ALLOC', () => {
  const alloc = (host: ReturnType<typeof attachedHost>, flags = 0) =>
    host.iommufd.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, uapi.iommu_fault_alloc, { flags });

  it('gives an id and a file that keeps it', () => {
    const host = attachedHost();
    const { iommufd, client, id } = host;
    expect(alloc(host, 1).result).toBe('EOPNOTSUPP');
    const { result, out_fault_id, out_fault_fd } = alloc(host);
    expect([result, out_fault_id]).toEqual([0, 4]);
    expect(iommufd.destroy(4)).toBe('EBUSY');
    const fields = { dev_id: 2, pt_id: id, flags: uapi.IOMMU_HWPT_FAULT_ID_VALID, fault_id: 4 };
    expect(iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, fields).out_hwpt_id).toBe(5);
    client.close(out_fault_fd);
    expect(iommufd.destroy(4)).toBe('EBUSY');
    expect([iommufd.destroy(5), iommufd.destroy(4)]).toEqual([0, 0]);
  });

  it('keeps the iommufd open, and leaves no object without a descriptor', () => {
    const host = attachedHost();
    const { client, iommufd, devices } = host;
    const { ctx } = iommufd;
    const { out_fault_fd } = alloc(host);
    client.process.limits.nofile = 1;
    expect(alloc(host).result).toBe('EMFILE');
    expect(ctx.objects.size).toBe(4);
    client.close(devices[0]!);
    iommufd.close();
    expect(ctx.objects.size).toBe(2);
    client.close(out_fault_fd);
    expect(ctx.objects.size).toBe(0);
  });

  it('has whole records, no faults, and no cookie that could be answered', () => {
    const host = attachedHost();
    const { client } = host;
    const fd = alloc(host).out_fault_fd;
    expect(client.pread(fd, new Uint8Array(40), 0)).toBe(0);
    expect(named(client.pread(fd, new Uint8Array(41), 0))).toBe('ESPIPE');
    expect(named(client.pread(fd, new Uint8Array(40), 40))).toBe('ESPIPE');
    expect(named(client.pwrite(fd, new Uint8Array(12), 0))).toBe('ESPIPE');
    expect(named(client.pwrite(fd, uapi.iommu_hwpt_page_response.bytes({ code: 2 }), 0))).toBe('EINVAL');
    expect(client.refusal()?.field).toBe('code');
    expect(named(client.pwrite(fd, uapi.iommu_hwpt_page_response.bytes({ code: 1 }), 0))).toBe('EINVAL');
    expect(client.refusal()?.field).toBe('cookie');
    expect(client.process.file(fd)?.poll?.()).toBe(4);
  });
});

describe('virtual IOMMUs', () => {
  const smmu = (s2fwb: boolean, canwbs: boolean) => ({
    machine: { iommu: { type: 'smmuv3' as const, base: 0x5200_0000, s2fwb, canwbs } },
  });

  function nestParent(lab: CdevLab) {
    const { iommufd } = lab;
    lab.bind(0);
    const ioas = iommufd.ioas();
    const parent = iommufd.hwpt(1, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
    const plain = iommufd.hwpt(1, ioas);
    const alloc = (fields: Init<typeof uapi.iommu_viommu_alloc>) =>
      iommufd.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, { type: 1, dev_id: 1, ...fields }).result;
    return { iommufd, alloc, parent: Number(parent), plain: Number(plain) };
  }

  it('need S2FWB or CANWBS, which is checked before the parent', () => {
    const { alloc, parent } = nestParent(new CdevLab('arm-its', smmu(false, false)));
    expect(alloc({ flags: 1, dev_id: 99 })).toBe('EOPNOTSUPP');
    expect(alloc({ type: 0, dev_id: 99 })).toBe('EOPNOTSUPP');
    expect(alloc({ dev_id: 99, type: 2 })).toBe('ENOENT');
    expect(alloc({ type: 2, hwpt_id: 99 })).toBe('EOPNOTSUPP');
    expect(alloc({ hwpt_id: 99 })).toBe('EOPNOTSUPP');
    expect(alloc({ hwpt_id: parent })).toBe('EOPNOTSUPP');
  });

  it('stand on a nest parent', () => {
    expect(nestParent(new CdevLab('arm-its', smmu(true, false))).alloc({ hwpt_id: 99 })).toBe('ENOENT');
    const { alloc, parent, plain, iommufd } = nestParent(new CdevLab('arm-its', smmu(false, true)));
    expect(alloc({ hwpt_id: 99 })).toBe('ENOENT');
    expect(alloc({ hwpt_id: plain })).toBe('EINVAL');
    expect(alloc({ hwpt_id: parent })).toBe(0);
    expect(iommufd.destroy(parent)).toBe('EBUSY');
    // Over the parent itself the SMMU's driver does not nest.
    const nested = { dev_id: 1, pt_id: parent, data_type: 2, data_len: 16 };
    expect(iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, nested).result).toBe('EOPNOTSUPP');
    expect([iommufd.destroy(5), iommufd.destroy(parent)]).toEqual([0, 0]);
  });

  it('are what devices and queues are made for', () => {
    const { iommufd } = attachedHost();
    const vdevice = (fields: Init<typeof uapi.iommu_vdevice_alloc>) =>
      iommufd.call(uapi.IOMMU_VDEVICE_ALLOC, uapi.iommu_vdevice_alloc, fields).result;
    const queue = (fields: Init<typeof uapi.iommu_veventq_alloc>) =>
      iommufd.call(uapi.IOMMU_VEVENTQ_ALLOC, uapi.iommu_veventq_alloc, { type: 1, ...fields }).result;
    const hardware = (fields: Init<typeof uapi.iommu_hw_queue_alloc>) =>
      iommufd.call(uapi.IOMMU_HW_QUEUE_ALLOC, uapi.iommu_hw_queue_alloc, { type: 1, ...fields }).result;
    expect(vdevice({ viommu_id: 2 })).toBe('ENOENT');
    expect([queue({ flags: 1 }), queue({ type: 0 }), queue({ __reserved: 1 })]).toEqual(
      new Array(3).fill('EOPNOTSUPP'),
    );
    expect([queue({}), queue({ veventq_depth: 2 ** 19 + 1 }), queue({ veventq_depth: 1 })]).toEqual([
      'EINVAL',
      'EINVAL',
      'ENOENT',
    ]);
    expect([hardware({ flags: 1 }), hardware({ type: 0 }), hardware({})]).toEqual([
      'EOPNOTSUPP',
      'EOPNOTSUPP',
      'EINVAL',
    ]);
    expect(hardware({ length: 2, nesting_parent_iova: 0xffff_ffff_ffff_ffffn })).toBe('EOVERFLOW');
    expect(hardware({ length: 1 })).toBe('ENOENT');
  });
});
