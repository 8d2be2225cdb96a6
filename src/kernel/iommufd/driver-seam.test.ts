import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/iommufd.ts';
import { HwptNested } from './hwpt-nested.ts';
import { named } from './testing.ts';
import {
  DATA_TYPE,
  DriverTable,
  driver_data,
  driver_invalidate,
  driver_viommu,
  driverHost,
  QUEUE_TYPE,
  VIOMMU_TYPE,
} from './testing-driver.ts';

const PAGE = 0x1000;
type Host = ReturnType<typeof driverHost>;

function put({ client }: Host, bytes: Uint8Array): number {
  const buffer = client.allocate(Math.max(bytes.length, 8));
  if (typeof buffer === 'number') throw new Error('no memory');
  buffer.bytes.set(bytes);
  return buffer.address;
}

function nested(host: Host, changes: object = {}) {
  const data_uptr = put(host, driver_data.bytes({ first: 5 }));
  const fields = { dev_id: 1, pt_id: host.parent, data_type: DATA_TYPE, data_len: 8, data_uptr, ...changes };
  return host.iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, fields);
}

function viommu(host: Host, changes: object = {}) {
  const fields = { dev_id: 1, hwpt_id: host.parent, type: VIOMMU_TYPE, ...changes };
  return host.iommufd.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, fields);
}

describe('a driver’s page tables', () => {
  it('take its data, of its type and no longer than it knows', () => {
    const host = driverHost();
    expect(nested(host, { data_type: DATA_TYPE + 1 }).result).toBe('EINVAL');
    expect(nested(host, { data_len: 3 }).result).toBe('EINVAL');
    expect(nested(host, { data_len: 9 }).result).toBe('EINVAL');
    expect(nested(host, { data_uptr: 0 }).result).toBe('EFAULT');
    expect(nested(host, { data_type: 0, data_len: 0 }).result).toBe('EOPNOTSUPP');
    expect(nested(host, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT }).result).toBe('EOPNOTSUPP');
    expect(nested(host, { pt_id: host.iommufd.hwpt(1, host.ioas) }).result).toBe('EINVAL');
    // As short as the driver's first field.
    const made = nested(host, { data_len: 4 });
    expect(made.result).toBe(0);
    expect(host.iommufd.destroy(host.parent)).toBe('EBUSY');
    const over = nested(host, { pt_id: made.out_hwpt_id });
    expect(over.result).toBe('EINVAL');
    expect([host.iommufd.destroy(made.out_hwpt_id), host.iommufd.destroy(host.parent)]).toEqual([0, 0]);
  });

  it('are invalidated entry by entry, and entry_num says how far it went', () => {
    const host = driverHost();
    const hwpt_id = nested(host).out_hwpt_id;
    const ids = [3, 4, 99, 5];
    const bytes = new Uint8Array(32);
    ids.forEach((id, i) => {
      driver_invalidate.write(bytes, { id }, i * 8);
    });
    const fields = { hwpt_id, data_uptr: put(host, bytes), data_type: DATA_TYPE, entry_len: 8 };
    const invalidate = (changes: object) => {
      const answer = host.iommufd.call(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommu_hwpt_invalidate, {
        ...fields,
        ...changes,
      });
      return [answer.result, answer.entry_num];
    };
    expect(invalidate({ entry_num: 4 })).toEqual(['EINVAL', 2]);
    expect(invalidate({ entry_num: 2 })).toEqual([0, 2]);
    expect(invalidate({ entry_num: 0 })).toEqual([0, 0]);
    expect(invalidate({ entry_num: 1, entry_len: 9 })).toEqual(['EINVAL', 0]);
    expect(invalidate({ entry_num: 1, data_type: 1 })).toEqual(['EINVAL', 0]);
    expect(invalidate({ entry_num: 1, hwpt_id: host.parent })).toEqual(['EINVAL', 0]);
    const table = host.iommufd.ctx.objects.get(hwpt_id, HwptNested, 'hwpt_id');
    if (typeof table === 'number' || !(table.domain instanceof DriverTable)) throw new Error('no table of the driver');
    expect([table.domain.first, table.domain.seen]).toEqual([5, [3, 4, 3, 4]]);
  });

  it('show in GET_HW_INFO what the driver has', () => {
    const { iommufd } = driverHost();
    const info = (in_data_type: number) =>
      iommufd.call(uapi.IOMMU_GET_HW_INFO, uapi.iommu_hw_info, { dev_id: 1, flags: 1, in_data_type });
    expect(info(0x9999).result).toBe('EOPNOTSUPP');
    expect(info(0x1234)).toMatchObject({ result: 0, out_data_type: 0x1234, data_len: 8, out_max_pasid_log2: 7 });
    expect(info(0)).toMatchObject({ result: 0, out_data_type: 0x1234 });
  });
});

describe('queues that hardware reads', () => {
  const queueHost = () => {
    const host = driverHost();
    const viommu_id = viommu(host).out_viommu_id;
    const alloc = (nesting_parent_iova: number, length: number, changes: object = {}) =>
      host.iommufd.call(uapi.IOMMU_HW_QUEUE_ALLOC, uapi.iommu_hw_queue_alloc, {
        viommu_id,
        type: QUEUE_TYPE,
        nesting_parent_iova,
        length,
        ...changes,
      });
    return { ...host, viommu_id, alloc };
  };

  it('lie in one piece of memory that stays mapped', () => {
    const { iommufd, ioas, va, alloc, driver } = queueHost();
    expect(alloc(0x10_0000, PAGE).result).toBe('ENOENT');
    expect(alloc(0x10_0000, PAGE, { type: QUEUE_TYPE + 1 }).result).toBe('EOPNOTSUPP');
    iommufd.mapAt(ioas, 0x10_0000, va, 2 * PAGE);
    iommufd.mapAt(ioas, 0x10_2000, va + 2 * PAGE, PAGE);
    iommufd.mapAt(ioas, 0x20_0000, va + PAGE, PAGE);
    iommufd.mapAt(ioas, 0x20_1000, va, PAGE);
    expect(alloc(0x20_0000, 2 * PAGE).result).toBe('EFAULT');
    expect(alloc(0x10_2000, 2 * PAGE).result).toBe('ENOENT');
    // Over two mappings, with both ends inside of a page: three pages are locked.
    const first = alloc(0x10_0800, 2 * PAGE);
    expect(first.result).toBe(0);
    const pa = driver.viommus[0]!.parent.domain.lookup(0x10_0000);
    expect(driver.viommus[0]!.running).toEqual([{ index: 0, pa: pa + 0x800 }]);
    expect(iommufd.unmap(ioas, 0x10_0000, 2 * PAGE)).toBe('EBUSY');
    expect(iommufd.unmap(ioas, 0x10_2000, PAGE)).toBe('EBUSY');
    // A lock is looked for before a cut.
    expect(iommufd.unmap(ioas, 0x10_1000, PAGE)).toBe('EBUSY');
    expect(iommufd.unmap(ioas, 0x20_0000, PAGE)).toBe(4096n);
    const second = alloc(0x10_0000, PAGE, { index: 1 });
    expect([iommufd.destroy(first.out_hw_queue_id), iommufd.destroy(second.out_hw_queue_id)]).toEqual(['EBUSY', 0]);
    expect(iommufd.unmap(ioas, 0x10_0000, 2 * PAGE)).toBe('EBUSY');
    expect(iommufd.destroy(first.out_hw_queue_id)).toBe(0);
    expect(driver.viommus[0]!.running).toEqual([]);
    expect(iommufd.unmap(ioas, 0x10_0000, 3 * PAGE)).toBe(12288n);
  });

  it('keep their vIOMMU, and go with the file', () => {
    const { iommufd, ioas, va, alloc, viommu_id, client } = queueHost();
    iommufd.mapAt(ioas, 0x10_0000, va, PAGE);
    alloc(0x10_0000, PAGE);
    expect(iommufd.destroy(viommu_id)).toBe('EBUSY');
    const { ctx } = iommufd;
    client.kernel.exit(client.process);
    expect(ctx.objects.size).toBe(0);
    expect(client.process.pinnedPages).toBe(0);
  });
});

describe('pages of a driver', () => {
  const mapHost = () => {
    const host = driverHost();
    const data_uptr = put(host, driver_viommu.bytes({ in_data: 1 }));
    const made = viommu(host, { data_uptr, data_len: driver_viommu.size });
    const bytes = new Uint8Array(driver_viommu.size);
    host.client.process.memory.copyIn(data_uptr, bytes);
    return { ...host, made, answer: driver_viommu.read(bytes) };
  };

  it('are mapped whole, shared, and not as code; their owner stays meanwhile', () => {
    const { iommufd, client, made, answer } = mapHost();
    expect([made.result, answer.out_offset, answer.out_length]).toEqual([0, 4096n, 4096]);
    const { fd } = iommufd;
    const map = (offset: number, length: number, how?: { shared: boolean; prot: number }) =>
      client.kernel.syscalls.mapping(client.process, fd, offset, length, true, how);
    const refused = (result: ReturnType<typeof map>) => (typeof result === 'number' ? named(result) : 'mapped');
    expect([refused(map(0, 4096)), refused(map(8192, 4096)), refused(map(4096, 8192))]).toEqual([
      'ENXIO',
      'ENXIO',
      'ENXIO',
    ]);
    expect(refused(map(4096, 100))).toBe('EINVAL');
    expect(refused(map(4096, 4096, { shared: false, prot: 1 }))).toBe('EINVAL');
    expect(refused(map(4096, 4096, { shared: true, prot: 5 }))).toBe('EPERM');
    expect(iommufd.destroy(made.out_viommu_id)).toBe(0);
    expect(refused(map(4096, 4096))).toBe('ENXIO');
  });

  it('show the same bytes to the program and to the driver', () => {
    const host = mapHost();
    const { iommufd, client, made, context } = host;
    const mapping = client.mmap(iommufd.fd, 4096, 4096);
    if (typeof mapping === 'number') throw new Error(named(mapping).toString());
    context.memory.write32(host.driver.pageAt + 8, 0x1234_5678);
    expect(mapping.read32(8)).toBe(0x1234_5678);
    mapping.write32(12, 9);
    expect(context.memory.read32(host.driver.pageAt + 12)).toBe(9);
    expect(iommufd.destroy(made.out_viommu_id)).toBe('EBUSY');
    mapping.unmap();
    expect(iommufd.destroy(made.out_viommu_id)).toBe(0);
  });

  it('have the lowest free offset from the second page up', () => {
    const { mmaps, objects } = driverHost().iommufd.ctx;
    const owner = objects.all[0]!;
    expect([mmaps.alloc(owner, 0, 8192), mmaps.alloc(owner, 0, 4096), mmaps.alloc(owner, 0, 4096)]).toEqual([
      4096, 12288, 16384,
    ]);
    mmaps.free(12288);
    expect([mmaps.alloc(owner, 0, 8192), mmaps.alloc(owner, 0, 4096)]).toEqual([20480, 12288]);
    expect([mmaps.alloc(owner, 1, 4096), mmaps.alloc(owner, 0, 0), mmaps.alloc(owner, 0, 100)].map(named)).toEqual([
      'EINVAL',
      'EINVAL',
      'EINVAL',
    ]);
  });
});
