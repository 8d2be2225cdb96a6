import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/iommufd.ts';
import { reportDeviceFault } from './iopf.ts';
import { named } from './testing.ts';
import { DATA_TYPE, driver_data, driverHost } from './testing-driver.ts';

const LAST = uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE;
const PASID = uapi.IOMMU_PGFAULT_FLAGS_PASID_VALID;
const EPOLLIN = 0x41;
const EPOLLOUT = 4;

/** A device behind a nested table whose faults go to a queue. */
function faultHost() {
  const host = driverHost();
  const { iommufd, client, device, devices, parent } = host;
  const queue = iommufd.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, uapi.iommu_fault_alloc, {});
  const data = client.allocate(8);
  if (typeof data === 'number') throw new Error('no memory');
  data.bytes.set(driver_data.bytes({ first: 1 }));
  const fields = { dev_id: 1, pt_id: parent, flags: uapi.IOMMU_HWPT_FAULT_ID_VALID, fault_id: queue.out_fault_id };
  const nested = { ...fields, data_type: DATA_TYPE, data_len: 8, data_uptr: data.address };
  const hwpt = iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, nested);
  if (hwpt.result !== 0) throw new Error(`HWPT_ALLOC: ${hwpt.result}`);
  const fd = queue.out_fault_fd;
  const answers: [number, number][] = [];
  const report = (grpid: number, changes: { flags?: number; pasid?: number; addr?: bigint } = {}): number | string =>
    named(
      reportDeviceFault(device, { flags: LAST, pasid: 0, grpid, perm: 3, addr: 0x1000n, ...changes }, (code) =>
        answers.push([grpid, code]),
      ),
    );
  const read = (records: number) => {
    const bytes = new Uint8Array(records * uapi.iommu_hwpt_pgfault.size);
    const result = client.read(fd, bytes);
    if (result < 0) return named(result);
    return Array.from({ length: result / uapi.iommu_hwpt_pgfault.size }, (_, i) => {
      const { flags, dev_id, grpid, addr, cookie } = uapi.iommu_hwpt_pgfault.read(
        bytes,
        i * uapi.iommu_hwpt_pgfault.size,
      );
      return [grpid, addr, cookie, flags, dev_id];
    });
  };
  const write = (...responses: [cookie: number, code: number][]) => {
    const bytes = new Uint8Array(responses.length * 8);
    responses.forEach(([cookie, code], i) => {
      uapi.iommu_hwpt_page_response.write(bytes, { cookie, code }, i * 8);
    });
    return named(client.write(fd, bytes));
  };
  const poll = () => client.process.file(fd)?.poll?.();
  iommufd.attach(devices[0]!, hwpt.out_hwpt_id);
  return { ...host, hwpt: hwpt.out_hwpt_id, queue: queue.out_fault_id, fd, answers, report, read, write, poll };
}

describe('page requests of a device', () => {
  it('are read as whole groups under cookies from 1 up, and answered by them', () => {
    const { report, read, write, poll, answers } = faultHost();
    expect(poll()).toBe(EPOLLOUT);
    expect(read(4)).toEqual([]);
    expect([report(7, { flags: 0, addr: 0x5000n }), report(8), report(7, { addr: 0x6000n })]).toEqual([0, 0, 0]);
    expect(poll()).toBe(EPOLLIN | EPOLLOUT);
    // The group of 8 was complete first; that of 7 takes two records.
    expect(read(2)).toEqual([[8, 0x1000n, 1, LAST, 1]]);
    expect(read(1)).toBe('EINVAL');
    expect(read(3)).toEqual([
      [7, 0x5000n, 2, 0, 1],
      [7, 0x6000n, 2, LAST, 1],
    ]);
    expect(poll()).toBe(EPOLLOUT);
    expect(write([2, 0])).toBe(8);
    expect(answers).toEqual([[7, 0]]);
    expect(write([2, 0])).toBe('EINVAL');
    expect(write([1, 2])).toBe('EINVAL');
    // What was done before a wrong answer counts.
    expect(write([1, 1], [9, 0])).toBe(8);
    expect(answers).toEqual([
      [7, 0],
      [8, 1],
    ]);
    // The lowest free cookie again.
    report(9);
    expect(read(1)).toEqual([[9, 0x1000n, 1, LAST, 1]]);
  });

  it('wait for whoever reads whole records into memory that is there', () => {
    const { report, read, client, fd } = faultHost();
    report(3);
    expect(named(client.read(fd, new Uint8Array(39)))).toBe('ESPIPE');
    expect(named(client.process.file(fd)?.read?.(client.process, 16, 40, 0) ?? 0)).toBe('EFAULT');
    expect(named(client.process.file(fd)?.read?.(client.process, 16, 0, 0) ?? 0)).toBe('EINVAL');
    expect(read(1)).toEqual([[3, 0x1000n, 1, LAST, 1]]);
  });

  it('are refused at once where no queue takes them', () => {
    const { report, answers, iommufd, devices, parent, driver } = faultHost();
    driver.userPasidTable = false;
    expect(report(1, { flags: LAST | PASID, pasid: 5 })).toBe('EINVAL');
    driver.userPasidTable = true;
    expect(report(2, { flags: LAST | PASID, pasid: 5 })).toBe(0);
    iommufd.attach(devices[0]!, Number(parent));
    expect(report(3)).toBe('EINVAL');
    // One that is not the last of its group gets no answer.
    expect(report(4, { flags: 0 })).toBe('EINVAL');
    expect(answers).toEqual([
      [1, 1],
      [2, 1],
      [3, 1],
    ]);
  });

  it('are answered with INVALID when the device leaves the table, read or not', () => {
    const { report, read, write, answers, iommufd, devices, client, fd, queue, hwpt } = faultHost();
    report(1);
    read(1);
    report(2);
    iommufd.detach(devices[0]!);
    expect(answers.sort()).toEqual([
      [1, 1],
      [2, 1],
    ]);
    expect(read(1)).toEqual([]);
    expect(write([1, 0])).toBe('EINVAL');
    expect(iommufd.destroy(queue)).toBe('EBUSY');
    client.close(fd);
    expect(iommufd.destroy(queue)).toBe('EBUSY');
    expect([iommufd.destroy(hwpt), iommufd.destroy(queue)]).toEqual([0, 0]);
  });
});
