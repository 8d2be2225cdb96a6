/** Fault queues and the event queues of virtual IOMMUs, read and written: each errno by name, in the order of Linux (iommufd/eventq.c). */
import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/iommufd.ts';
import { iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../uapi/iommufd-hwpt.ts';
import type { SimKernelClient } from '../client.ts';
import { IommufdDevice } from './device.ts';
import { reportDeviceFault } from './iopf.ts';
import { allocate, attachedHost, named } from './testing.ts';
import { blamed, blamedCall, ioctlAt, PAGE, readOnlyPage } from './testing-errno.ts';
import { ABORT, Guest, STAGE1 } from './testing-guest.ts';

/** read(2) and write(2) at an address and a position. */
const readAt = (client: SimKernelClient, fd: number, address: number, count: number, offset = 0) =>
  blamedCall(client, client.kernel.syscalls.read(client.process, fd, address, count, offset));
const writeAt = (client: SimKernelClient, fd: number, address: number, count: number, offset = 0) =>
  blamedCall(client, client.kernel.syscalls.write(client.process, fd, address, count, offset));

/** Device 2 in a page table of its own with fault queue 4. */
function faulting() {
  const host = attachedHost();
  const { iommufd, client, devices } = host;
  const made = iommufd.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, uapi.iommu_fault_alloc, {});
  const request = { dev_id: 2, pt_id: 1, flags: uapi.IOMMU_HWPT_FAULT_ID_VALID, fault_id: made.out_fault_id };
  const { out_hwpt_id } = iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, request);
  iommufd.attach(devices[0]!, out_hwpt_id);
  const device = iommufd.ctx.objects.get(2, IommufdDevice, 'dev_id') as IommufdDevice;
  const answers: number[] = [];
  /** A group of `pages` page requests. */
  const fault = (grpid: number, pages = 1) => {
    for (let page = 1; page <= pages; page += 1) {
      const flags = page === pages ? 2 : 0;
      reportDeviceFault(device, { flags, pasid: 0, grpid, perm: 1, addr: BigInt(page * PAGE) }, (code) =>
        answers.push(code),
      );
    }
  };
  return {
    ...host,
    fd: made.out_fault_fd,
    id: made.out_fault_id,
    hwpt: out_hwpt_id,
    fault,
    answers,
    page: allocate(client, PAGE),
  };
}

const SIZE = iommu_hwpt_pgfault.size;

describe('errno of FAULT_QUEUE_ALLOC', () => {
  const alloc = ({ iommufd, client }: ReturnType<typeof attachedHost>, flags = 0) =>
    blamed(client, iommufd.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, uapi.iommu_fault_alloc, { flags }).result);

  it('IOMMU_FAULT_QUEUE_ALLOC: EOPNOTSUPP flags, before EMFILE', () => {
    const host = attachedHost();
    host.client.process.limits.nofile = 1;
    expect([alloc(host, 1), alloc(host)]).toEqual(['EOPNOTSUPP flags', expect.stringMatching(/^EMFILE/)]);
  });

  it('IOMMU_FAULT_QUEUE_ALLOC: EMFILE no descriptor is free, then EFAULT the struct cannot be written; neither leaves an object', () => {
    const { client, iommufd } = attachedHost();
    const address = readOnlyPage(client, uapi.iommu_fault_alloc.bytes({ size: 16 }));
    const raw = () => ioctlAt(client, iommufd.fd, uapi.IOMMU_FAULT_QUEUE_ALLOC, address);
    const { nofile } = client.process.limits;
    client.process.limits.nofile = 1;
    expect(raw()).toMatch(/^EMFILE/);
    client.process.limits.nofile = nofile;
    expect([raw(), iommufd.ctx.objects.size]).toEqual(['EFAULT argument', 3]);
  });

  it('IOMMU_DESTROY: EBUSY a fault queue while its descriptor is open, and while a page table uses it', () => {
    const { iommufd, client, fd, id, hwpt, devices } = faulting();
    expect(iommufd.destroy(id)).toBe('EBUSY');
    client.close(fd);
    expect(iommufd.destroy(id)).toBe('EBUSY');
    iommufd.detach(devices[0]!);
    expect([iommufd.destroy(hwpt), iommufd.destroy(id)]).toEqual([0, 0]);
  });
});

describe('errno of reading a fault queue', () => {
  it('fault read: ESPIPE a position or no whole records, before EINVAL and EFAULT', () => {
    const { client, fd, fault, page } = faulting();
    fault(1, 2);
    expect(readAt(client, fd, page.address, SIZE + 1)).toBe('ESPIPE count');
    expect(readAt(client, fd, page.address, SIZE, SIZE)).toBe('ESPIPE count');
  });

  it('fault read: EINVAL the first group does not fit, before EFAULT', () => {
    const { client, fd, fault } = faulting();
    fault(1, 2);
    expect([readAt(client, fd, 8, SIZE), readAt(client, fd, 8, 0)]).toEqual(['EINVAL count', 'EINVAL count']);
  });

  it('fault read: EFAULT leaves the group in the queue', () => {
    const { client, fd, fault, page } = faulting();
    fault(1);
    expect(readAt(client, fd, 8, SIZE)).toBe('EFAULT buffer');
    expect(readAt(client, fd, page.address, SIZE)).toBe(SIZE);
  });

  it('fault read: whole groups, as many as fit, each with a cookie; 0 when none waits', () => {
    const { client, fd, fault, page } = faulting();
    expect(readAt(client, fd, 8, SIZE)).toBe(0);
    fault(1);
    fault(2, 2);
    expect(readAt(client, fd, page.address, 2 * SIZE)).toBe(SIZE);
    expect(iommu_hwpt_pgfault.read(page.bytes)).toMatchObject({ dev_id: 2, grpid: 1, cookie: 1, addr: 0x1000n });
    expect(readAt(client, fd, page.address, 3 * SIZE)).toBe(2 * SIZE);
    const second = [0, SIZE].map((at) => iommu_hwpt_pgfault.read(page.bytes, at));
    expect(second).toMatchObject([
      { grpid: 2, cookie: 2, addr: 0x1000n },
      { grpid: 2, cookie: 2, addr: 0x2000n },
    ]);
  });

  it('fault poll: OUT always, IN and RDNORM while a group waits', () => {
    const { client, fd, fault, page } = faulting();
    const poll = () => client.process.file(fd)?.poll?.();
    expect(poll()).toBe(4);
    fault(1);
    expect(poll()).toBe(4 | 1 | 0x40);
    readAt(client, fd, page.address, SIZE);
    expect(poll()).toBe(4);
  });
});

describe('errno of answering faults', () => {
  const RESPONSE = iommu_hwpt_page_response.size;
  /** Two groups, read as cookies 1 and 2; and what is written to answer them. */
  const read = () => {
    const host = faulting();
    host.fault(1);
    host.fault(2);
    expect(readAt(host.client, host.fd, host.page.address, 2 * SIZE)).toBe(2 * SIZE);
    const write = (
      list: readonly (readonly [cookie: number, code: number])[],
      count = list.length * RESPONSE,
      offset = 0,
    ) => {
      for (const [i, [cookie, code]] of list.entries()) {
        iommu_hwpt_page_response.write(host.page.bytes, { cookie, code }, i * RESPONSE);
      }
      return writeAt(host.client, host.fd, host.page.address, count, offset);
    };
    return { ...host, write };
  };

  it('fault write: ESPIPE a position or no whole responses, before EINVAL', () => {
    const { write } = read();
    expect([write([[9, 2]], RESPONSE + 1), write([[9, 2]], RESPONSE, 8)]).toEqual(['ESPIPE count', 'ESPIPE count']);
  });

  it('fault write: EFAULT the response', () => {
    const { client, fd } = read();
    expect(writeAt(client, fd, 8, RESPONSE)).toBe('EFAULT data');
  });

  it('fault write: EINVAL a code that is neither SUCCESS nor INVALID, before EINVAL of the cookie', () => {
    const { write, answers } = read();
    expect([write([[9, 2]]), answers]).toEqual(['EINVAL code', []]);
  });

  it('fault write: EINVAL a cookie that was not read, or was answered', () => {
    const { write, answers } = read();
    expect([write([[3, 0]]), write([[0, 0]]), write([[1, 0]]), write([[1, 0]])]).toEqual([
      'EINVAL cookie',
      'EINVAL cookie',
      RESPONSE,
      'EINVAL cookie',
    ]);
    expect(answers).toEqual([0]);
  });

  it('fault write: responses before a wrong one are done, and counted', () => {
    const { write, answers } = read();
    expect([
      write([
        [2, 1],
        [9, 0],
        [1, 0],
      ]),
      answers,
    ]).toEqual([RESPONSE, [1]]);
    expect([write([[1, 0]]), answers]).toEqual([RESPONSE, [1, 0]]);
  });

  it('fault write: what a device waits for is answered INVALID when it leaves the page table', () => {
    const { iommufd, answers, devices, fault, write } = read();
    fault(3);
    iommufd.detach(devices[0]!);
    expect([answers, write([[1, 0]])]).toEqual([[1, 1, 1], 'EINVAL cookie']);
  });
});

describe('errno of reading the event queue of a vIOMMU', () => {
  /** A guest whose device is refused `count` writes. */
  const queue = (count: number, depth = 4) => {
    const guest = new Guest();
    guest.vdevice();
    const { out_veventq_fd: fd, out_veventq_id: id } = guest.queue({ veventq_depth: depth });
    guest.attach(guest.nested(STAGE1));
    for (let i = 0; i < count; i += 1) guest.lab.dma(0, 0x700_0000 + i * PAGE, 1);
    const { client } = guest.lab;
    return { guest, client, fd, id, page: allocate(client, PAGE) };
  };
  const EVENT = 8 + 32;

  it('vEVENTQ read: ESPIPE a position, before EINVAL of the count', () => {
    const { client, fd, page } = queue(1);
    expect(readAt(client, fd, page.address, 7, 8)).toBe('ESPIPE offset');
  });

  it('vEVENTQ read: EINVAL less than a header, also when the queue is empty', () => {
    for (const events of [0, 1]) {
      const { client, fd } = queue(events);
      expect(readAt(client, fd, 8, 7)).toBe('EINVAL count');
    }
  });

  it('vEVENTQ read: 0 when the queue is empty', () => {
    const { client, fd } = queue(0);
    expect(readAt(client, fd, 8, 8)).toBe(0);
  });

  it('vEVENTQ read: EINVAL the first event does not fit, before EFAULT', () => {
    const { client, fd } = queue(1);
    expect(readAt(client, fd, 8, EVENT - 1)).toBe('EINVAL count');
  });

  it('vEVENTQ read: EFAULT leaves the event in the queue', () => {
    const { client, fd, page } = queue(1);
    expect(readAt(client, fd, 8, EVENT)).toBe('EFAULT buffer');
    expect(readAt(client, fd, page.address, EVENT)).toBe(EVENT);
  });

  it('vEVENTQ read: whole events only, those before an EFAULT are counted', () => {
    const { client, fd, page } = queue(3);
    expect(readAt(client, fd, page.address, 2 * EVENT - 1)).toBe(EVENT);
    expect(readAt(client, fd, page.address + PAGE - EVENT, 2 * EVENT)).toBe(EVENT);
    expect(readAt(client, fd, page.address, 8 * EVENT)).toBe(EVENT);
  });

  it('vEVENTQ read: LOST_EVENTS is a header alone at the end of a full queue, and the sequence counts on', () => {
    const { guest, fd } = queue(4, 2);
    expect(guest.events(fd)).toMatchObject([
      [0, 0, {}],
      [0, 1, {}],
      [uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS, 3, []],
    ]);
    guest.lab.dma(0, 0x700_0000, 1);
    expect(guest.events(fd)).toMatchObject([[0, 4, {}]]);
  });

  it('vEVENTQ write: EINVAL', () => {
    const { client, fd, page } = queue(0);
    expect(writeAt(client, fd, page.address, 8)).toMatch(/^EINVAL/);
  });

  it('vEVENTQ poll: IN and RDNORM while an event waits, never OUT', () => {
    const { client, fd, page } = queue(1);
    const poll = () => client.process.file(fd)?.poll?.();
    expect(poll()).toBe(1 | 0x40);
    readAt(client, fd, page.address, EVENT);
    expect(poll()).toBe(0);
  });

  it('IOMMU_DESTROY: EBUSY an event queue while its descriptor is open', () => {
    const { guest, client, fd, id } = queue(0);
    expect(guest.iommufd.destroy(id)).toBe('EBUSY');
    client.close(fd);
    expect(guest.iommufd.destroy(id)).toBe(0);
  });

  it('vEVENTQ: the descriptor keeps the iommufd open', () => {
    const { guest, client, fd } = queue(0);
    const { ctx } = guest.iommufd;
    guest.attach(guest.nested(ABORT));
    client.close(guest.lab.devices[0]!);
    guest.iommufd.close();
    expect(ctx.objects.size).toBeGreaterThan(0);
    client.close(fd);
    expect(ctx.objects.size).toBe(0);
    expect(named(client.close(fd))).toBe('EBADF');
  });
});
