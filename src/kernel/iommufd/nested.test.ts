import { describe, expect, it } from 'vitest';
import { command, TLBI } from '../../arch/smmuv3/commands.ts';
import { allocate, named } from './testing.ts';
import { ABORT, ASID, BYPASS, Guest, IPA, PAGE, READ_ONLY, STAGE1, VSID } from './testing-guest.ts';
import { VeventQueue } from './veventq.ts';

/** Bits of the second word of a record: a write (RnW 0) of class IN. */
const WRITE_IN = 0x0000_0200_0000_0000n;
const EVENT_OF = (id: number) => (BigInt(VSID) << 32n) | BigInt(id);

describe('a stage 1 of the guest’s', () => {
  it('takes a vDEVICE; bypass and abort do not', () => {
    const guest = new Guest();
    expect(guest.attach(guest.nested(STAGE1))).toBe('ENOENT');
    expect(guest.attach(guest.nested(ABORT))).toBe(6);
    guest.lab.dma(0, IPA, 1);
    expect([guest.peek(0), guest.lab.faults]).toEqual([0, 0]);
    expect(guest.attach(guest.nested([0n, 0xffffn]))).toBe(7);
    guest.lab.dma(0, IPA, 1);
    expect([guest.peek(0), guest.lab.faults]).toEqual([0, 0]);
    expect(guest.attach(guest.nested(BYPASS))).toBe(8);
    guest.lab.dma(0, IPA, 0x77);
    expect(guest.peek(0)).toBe(0x77);
    const { rung } = guest.lab.enable(0, 1);
    guest.lab.ring(0, 0);
    expect(rung()).toEqual([1]);
    expect(guest.vdevice()).toBe(9);
    expect(guest.attach(5)).toBe(5);
  });

  it('translates twice: guest IOVA, guest page, host page', () => {
    const guest = new Guest();
    guest.vdevice();
    guest.map(0x700_0000, IPA + 0x1_0000);
    guest.attach(guest.nested(STAGE1));
    guest.lab.dma(0, 0x700_0010, 0xabcd);
    expect(guest.peek(0x1_0010)).toBe(0xabcd);
  });

  it('has the MSI only when the guest maps the window’s page: else it is lost, and the guest is told', () => {
    const guest = new Guest();
    guest.vdevice();
    const fd = guest.queue().out_veventq_fd;
    guest.map(0x700_0000, IPA);
    guest.attach(guest.nested(STAGE1));
    const { result, rung } = guest.lab.enable(0, 1);
    expect([result, guest.lab.message(0, 0)]).toEqual([0, [0x800_0040, 0]]);
    guest.lab.ring(0, 0);
    expect(rung()).toEqual([0]);
    expect(guest.events(fd)).toEqual([[0, 0, [EVENT_OF(0x10), WRITE_IN, 0x800_0040n, 0n]]]);
    expect(guest.events(fd)).toEqual([]);
    guest.map(0x800_0000, 0x800_0000);
    guest.lab.ring(0, 0);
    expect(rung()).toEqual([1]);
  });

  it('keeps what it translated until the guest invalidates it', () => {
    const guest = new Guest();
    guest.vdevice();
    guest.map(0x700_0000, IPA + 0x1_0000);
    guest.attach(guest.nested(STAGE1));
    guest.lab.dma(0, 0x700_0000, 1);
    guest.map(0x700_0000, IPA + 0x2_0000);
    guest.lab.dma(0, 0x700_0000, 2);
    expect([guest.peek(0x1_0000), guest.peek(0x2_0000)]).toEqual([2, 0]);
    expect(guest.invalidate([command(TLBI, { Opcode: 0x11, ASID, VMID: 0xfff })])).toEqual([0, 1]);
    guest.lab.dma(0, 0x700_0000, 3);
    expect([guest.peek(0x1_0000), guest.peek(0x2_0000)]).toEqual([2, 3]);
  });

  it('loses with the stage 2 what both together meant', () => {
    const guest = new Guest();
    guest.vdevice();
    const extra = allocate(guest.lab.client, PAGE);
    guest.iommufd.mapAt(guest.ioas, 0x4000_0000, extra.address, PAGE);
    guest.map(0x700_0000, 0x4000_0000);
    const fd = guest.queue().out_veventq_fd;
    guest.attach(guest.nested(STAGE1));
    guest.lab.dma(0, 0x700_0000, 7);
    expect(extra.bytes[0]).toBe(7);
    expect(guest.iommufd.unmap(guest.ioas, 0x4000_0000, PAGE)).toBe(4096n);
    guest.lab.dma(0, 0x700_0000, 8);
    expect(extra.bytes[0]).toBe(7);
    // A hole of stage 2 is the host's: its log, not the guest's queue.
    expect(guest.lab.faults).toBe(1);
    expect(guest.events(fd)).toEqual([]);
    expect(guest.lab.host.log.lines.some((line) => line.includes('F_TRANSLATION'))).toBe(true);
  });

  it('tells the guest of a write to what is read-only, with its own name of the device', () => {
    const guest = new Guest();
    guest.vdevice();
    const fd = guest.queue().out_veventq_fd;
    guest.map(0x700_0000, IPA, READ_ONLY);
    guest.attach(guest.nested(STAGE1));
    guest.lab.dma(0, 0x700_0000, 1);
    expect(guest.events(fd)).toEqual([[0, 0, [EVENT_OF(0x13), WRITE_IN, 0x700_0000n, 0n]]]);
    const lines = guest.lab.host.log.lines.length;
    guest.iommufd.detach(guest.lab.devices[0]!);
    guest.attach(guest.ioas);
    guest.lab.dma(0, 0x30_0000_0000, 1);
    // Back in a table of the kernel's, events are the host's again.
    expect(guest.events(fd)).toEqual([]);
    expect(guest.lab.host.log.lines.length).toBeGreaterThan(lines);
  });

  it('is changed by attaching another: a new entry of the guest’s, without a moment on neither', () => {
    const guest = new Guest();
    guest.vdevice();
    guest.map(0x700_0000, IPA + 0x1_0000);
    guest.map(0x800_0000, 0x800_0000);
    const [first, second] = [guest.nested(STAGE1), guest.nested(STAGE1)];
    expect(guest.attach(first)).toBe(first);
    const { rung } = guest.lab.enable(0, 1);
    expect(guest.attach(second)).toBe(second);
    guest.lab.ring(0, 0);
    guest.lab.dma(0, 0x700_0000, 9);
    expect([rung(), guest.peek(0x1_0000), guest.lab.message(0, 0)[0]]).toEqual([[1], 9, 0x800_0040]);
    // Back to the stage 2 alone: the window's page stands there, and the message is what it was.
    expect(guest.attach(guest.parent)).toBe(guest.parent);
    guest.lab.ring(0, 0);
    expect([rung(), guest.lab.faults]).toEqual([[1], 0]);
    expect([guest.iommufd.destroy(Number(first)), guest.iommufd.destroy(Number(second))]).toEqual([0, 0]);
  });

  it('has no doorbell of the user’s choice: the guest’s tables say where it is', () => {
    const guest = new Guest();
    guest.vdevice();
    guest.attach(guest.nested(STAGE1));
    expect(guest.lab.doorbell(0, 0x900_0000)).toBe('EOPNOTSUPP');
    guest.iommufd.detach(guest.lab.devices[0]!);
    expect(guest.lab.doorbell(0, 0x900_0000)).toBe(0);
    expect(guest.attach(6)).toBe('EOPNOTSUPP');
  });
});

describe('nested HWPT_ALLOC', () => {
  it('refuses in order', () => {
    const guest = new Guest();
    const EATS = (value: bigint): [bigint, bigint] => [STAGE1[0], value << 28n];
    expect(guest.nested(STAGE1, { flags: 1, data_type: 3 })).toBe('EOPNOTSUPP');
    expect(guest.nested(STAGE1, { data_type: 3, data_len: 8 })).toBe('EINVAL');
    expect(guest.nested(STAGE1, { data_len: 8, data_uptr: 8 })).toBe('EINVAL');
    expect(guest.nested(STAGE1, { data_uptr: 8 })).toBe('EFAULT');
    expect(guest.nested([STAGE1[0], 1n << 31n])).toBe('EIO');
    expect(guest.nested([STAGE1[0] | (1n << 52n), 0n])).toBe('EIO');
    expect(guest.nested([(6n << 1n) | 1n, 0n])).toBe('EIO');
    expect([guest.nested(EATS(2n)), guest.nested(EATS(1n))]).toEqual(['EIO', 5]);
    expect(guest.iommufd.destroy(guest.viommu)).toBe('EBUSY');
    expect([
      guest.iommufd.destroy(5),
      guest.iommufd.destroy(guest.viommu),
      guest.iommufd.destroy(guest.parent),
    ]).toEqual([0, 0, 0]);
  });
});

describe('vDEVICE', () => {
  it('names a device once', () => {
    const guest = new Guest();
    guest.lab.bind(1);
    expect(guest.vdevice({ viommu_id: 99, dev_id: 99 })).toBe('ENOENT');
    expect(guest.vdevice({ dev_id: 99 })).toBe('ENOENT');
    expect(guest.vdevice()).toBe(6);
    expect(guest.vdevice({ virt_id: 7 })).toBe('EEXIST');
    expect(guest.vdevice({ dev_id: 5 })).toBe('EEXIST');
    expect(guest.vdevice({ dev_id: 5, virt_id: 7 })).toBe(7);
    expect([guest.iommufd.destroy(6), guest.vdevice()]).toEqual([0, 6]);
  });

  it('goes with its device, and leaves its id taken', () => {
    const guest = new Guest();
    expect(guest.vdevice()).toBe(5);
    guest.lab.client.close(guest.lab.devices[0]!);
    expect(guest.iommufd.destroy(5)).toBe('ENOENT');
    expect([
      guest.iommufd.destroy(guest.viommu),
      guest.iommufd.ioas(),
      guest.iommufd.ioas(),
      guest.iommufd.ioas(),
    ]).toEqual([0, 1, 4, 6]);
    const { ctx } = guest.iommufd;
    guest.iommufd.close();
    expect(ctx.objects.size).toBe(0);
  });
});

describe('invalidation', () => {
  const NH_ALL = command(TLBI, { Opcode: 0x10 });

  it('refuses in order, and says how many were done', () => {
    const guest = new Guest();
    guest.vdevice();
    expect(guest.invalidate([NH_ALL], { data_type: 0 })).toEqual(['EINVAL', 0]);
    expect(guest.invalidate([], { data_uptr: 8 })).toEqual(['EINVAL', 0]);
    expect(guest.invalidate([NH_ALL], { entry_len: 0x1001 })).toEqual(['EINVAL', 0]);
    expect(guest.invalidate([NH_ALL], { entry_num: 2 ** 19 + 1 })).toEqual(['EINVAL', 0]);
    expect(guest.invalidate([NH_ALL], { data_uptr: 8 })).toEqual(['EFAULT', 0]);
    expect(guest.invalidate([NH_ALL], { hwpt_id: guest.parent })).toEqual(['EINVAL', 0]);
    expect(guest.invalidate([NH_ALL, NH_ALL, [0x20n, 0n], NH_ALL])).toEqual(['EIO', 2]);
  });

  it('takes the commands of a guest for what is its own, and no others', () => {
    const guest = new Guest();
    guest.vdevice();
    const sid = BigInt(VSID) << 32n;
    const fine = [0x30n, 0x10n, 0x11n, 0x12n, 0x13n, 0x05n | sid, 0x06n | sid, 0x40n | sid];
    expect(guest.invalidate(fine.map((first) => [first, 0n]))).toEqual([0, fine.length]);
    const refused = [0x05n | (7n << 32n), 0x03n | sid, 0x04n, 0x20n, 0x28n, 0x2an, 0x44n, 0x46n, 0xffn];
    for (const first of refused) expect(guest.invalidate([[first, 0n]])).toEqual(['EIO', 0]);
  });
});

describe('the guest’s event queue', () => {
  it('has a depth: what does not fit is one LOST_EVENTS at the end, and the sequence goes on', () => {
    const guest = new Guest();
    guest.vdevice();
    const { out_veventq_fd: fd, out_veventq_id: id } = guest.queue({ veventq_depth: 2 });
    expect(guest.queue().result).toBe('EEXIST');
    guest.attach(guest.nested(STAGE1));
    for (let i = 0; i < 5; i += 1) guest.lab.dma(0, 0x700_0000 + i * PAGE, 1);
    expect(guest.lab.client.process.file(fd)?.poll?.()).toBe(0x41);
    expect(guest.events(fd, 39)).toBe('EINVAL');
    expect(guest.events(fd, 41)).toMatchObject([[0, 0, [EVENT_OF(0x10), WRITE_IN, 0x700_0000n, 0n]]]);
    expect(guest.events(fd)).toMatchObject([
      [0, 1, [EVENT_OF(0x10), WRITE_IN, 0x700_1000n, 0n]],
      [1, 4, []],
    ]);
    guest.lab.dma(0, 0x700_0000, 1);
    expect(guest.events(fd)).toEqual([[0, 5, [EVENT_OF(0x10), WRITE_IN, 0x700_0000n, 0n]]]);
    expect(guest.lab.client.process.file(fd)?.poll?.()).toBe(0);
    expect(named(guest.lab.client.pread(fd, new Uint8Array(40), 8))).toBe('ESPIPE');
    expect(named(guest.lab.client.pwrite(fd, new Uint8Array(8), 0))).toBe('EINVAL');
    expect(guest.iommufd.destroy(id)).toBe('EBUSY');
    guest.lab.client.close(fd);
    expect(guest.iommufd.destroy(id)).toBe(0);
  });

  it('takes a storm: what an event costs does not grow with the events that wait', () => {
    const guest = new Guest();
    guest.vdevice();
    const { out_veventq_id: id } = guest.queue({ veventq_depth: 50_000 });
    const queue = guest.iommufd.ctx.objects.get(id, VeventQueue, 'id');
    if (typeof queue === 'number') throw new Error('no queue');
    const record = new Uint8Array(32);
    for (let i = 0; i < 60_000; i += 1) queue.add(record);
    expect([queue.pending.length, queue.pending.at(-1)]).toEqual([50_001, { sequence: 59_999, data: null }]);
    // Two are read: there is room for two more, and what was lost shows as a gap of the sequence.
    queue.take();
    queue.take();
    for (let i = 0; i < 3; i += 1) queue.add(record);
    expect(queue.pending.slice(-3).map(({ sequence, data }) => [sequence, data !== null])).toEqual([
      [60_000, true],
      [60_001, true],
      [60_002, false],
    ]);
  });

  it('of a killed process is gone with everything else', () => {
    const guest = new Guest();
    guest.vdevice();
    guest.queue();
    guest.attach(guest.nested(STAGE1));
    guest.lab.enable(0);
    const { ctx } = guest.iommufd;
    guest.lab.host.kernel.exit(guest.lab.client.process);
    expect([ctx.objects.size, ctx.groupCount]).toEqual([0, 0]);
    expect(guest.lab.group(0).domain).toBe(guest.lab.group(0).defaultDomain);
  });
});
