import { describe, expect, it } from 'vitest';
import { Count, Loss } from '../../ports/ledger.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { descs, device, disable, enable, send } from './testing/controllers.ts';
import { VTD, X86Host } from './testing/x86-host.ts';
import { IrTable } from './x86-ir-table.ts';
import { X86Vectors } from './x86-vectors.ts';

const never = (): number => {
  throw new Error('x86 prepares no doorbell');
};

/** 0x22 to 0xeb without the 16 of ISA and the system call. */
const PER_CPU = 0xec - 0x22 - 16 - 1;

describe('vectors', () => {
  it('come from the CPU with the most free ones, lowest first', () => {
    const vectors = new X86Vectors(2);
    expect(vectors.available).toBe(2 * PER_CPU);
    expect([vectors.allocate(), vectors.allocate(), vectors.allocate()]).toEqual([0x22, 0x122, 0x23]);
    vectors.release(0x22);
    vectors.release(0x22);
    vectors.release(0x30);
    expect(vectors.allocate()).toBe(0x22);
    const all = new Set<number>();
    for (let intid = vectors.allocate(); intid >= 0; intid = vectors.allocate()) all.add(intid);
    expect(all.size).toBe(2 * PER_CPU - 3);
    expect([...all].some((intid) => intid % 256 === 0x80 || intid % 256 < 0x22 || intid % 256 > 0xeb)).toBe(false);
  });
});

describe('x86 without remapping', () => {
  it('writes destination and vector, and prepares nothing', () => {
    const host = new X86Host();
    const dev = device(5);
    const vectors = descs(dev, 3);
    expect(host.plain.allocate(dev, vectors, never)).toBe(0);
    for (const desc of vectors) host.plain.compose(desc, desc.message);
    expect(vectors.map(({ message }) => [message.addressLo >>> 0, message.data])).toEqual([
      [0xfee0_0000, 0x22],
      [0xfee0_1000, 0x22],
      [0xfee0_0000, 0x23],
    ]);
    // Any requester: not isolated (G15: EPERM at attach).
    send(host.context, 0x999, 0xfee0_1000, 0x22);
    expect(host.sink.take()).toEqual([[256 + 0x22, 1]]);
    expect(host.plain.isolated).toBe(false);
  });

  it('has no several messages of plain MSI, and an end of vectors', () => {
    const host = new X86Host(1);
    const dev = device(5);
    expect(host.plain.allocate(dev, descs(dev, 2, false), never)).toBe(-ERRNO.EINVAL);
    expect(host.plain.allocate(dev, descs(dev, PER_CPU + 1), never)).toBe(-ERRNO.ENOSPC);
    expect(host.vectors.available).toBe(PER_CPU);
    const all = descs(dev, PER_CPU);
    expect(host.plain.allocate(dev, all, never)).toBe(0);
    host.plain.free(dev, all);
    expect(host.vectors.available).toBe(PER_CPU);
  });
});

describe('x86 with VT-d remapping', () => {
  function ready(cpus = 2): X86Host {
    const host = new X86Host(cpus);
    expect(host.table.init()).toBe(0);
    return host;
  }

  it('composes the messages of the lab', () => {
    const host = ready();
    const [edu, nvme] = [device(5), device(6)];
    const [bell] = enable(host.remapped, edu, descs(edu, 1, false));
    expect([bell!.message.addressLo >>> 0, bell!.message.data]).toEqual([0xfee0_0218, 0]);
    // One that another driver has, as in the lab.
    enable(host.remapped, edu, descs(edu, 1));
    const vectors = enable(host.remapped, nvme, descs(nvme, 3));
    expect(vectors.map(({ message }) => [message.addressLo >>> 0, message.data])).toEqual([
      [0xfee0_0258, 0],
      [0xfee0_0278, 0],
      [0xfee0_0298, 0],
    ]);
    send(host.context, nvme.requester, 0xfee0_0278, 0);
    expect(host.sink.take()).toEqual([[vectors[1]!.hwirq, Math.floor(vectors[1]!.hwirq / 256)]]);
  });

  it('carries several messages of plain MSI in one block', () => {
    const host = ready();
    const dev = device(5);
    const block = enable(host.remapped, dev, descs(dev, 4, false));
    expect(new Set(block.map(({ message }) => message.addressLo)).size).toBe(1);
    for (const desc of block) send(host.context, dev.requester, desc.message.addressLo, desc.message.data);
    expect(host.sink.take().map(([intid]) => intid)).toEqual(block.map(({ hwirq }) => hwirq));
    disable(host.remapped, dev, block);
    expect(host.table.handles.used).toBe(16);
  });

  it('lets nobody else use an entry', () => {
    const host = ready();
    const [one, two] = [device(5), device(6)];
    const [mine] = enable(host.remapped, one, descs(one, 1));
    send(host.context, two.requester, mine!.message.addressLo, 0);
    // Nor a compatibility message, nor an entry that nobody has.
    send(host.context, two.requester, 0xfee0_0000, mine!.hwirq & 0xff);
    send(host.context, two.requester, mine!.message.addressLo, 0x77);
    expect(host.sink.take()).toEqual([]);
    expect(host.context.tap.ledger[Count.LOST + Loss.REMAP_FAULT]).toBe(3);
  });

  it('an entry is gone after deactivation, and its handle and vector come back', () => {
    const host = ready();
    const dev = device(5);
    const before = host.vectors.available;
    const vectors = enable(host.remapped, dev, descs(dev, 8));
    send(host.context, dev.requester, vectors[7]!.message.addressLo, 0);
    disable(host.remapped, dev, vectors);
    send(host.context, dev.requester, vectors[7]!.message.addressLo, 0);
    expect(host.sink.take()).toHaveLength(1);
    expect([host.table.handles.used, host.vectors.available]).toEqual([16, before]);
    host.table.release();
    expect(host.context.memory.allocated).toBe(0);
    expect(host.remapping.enabled).toBe(false);
  });

  it('an entry corrupted in memory loses exactly its interrupt once invalidated', () => {
    const host = ready();
    const dev = device(5);
    const vectors = enable(host.remapped, dev, descs(dev, 3));
    for (const { message } of vectors) send(host.context, dev.requester, message.addressLo, 0);
    host.context.memory.write64(host.table.addressOf(host.remapped.indexOf(vectors[1]!)), 0, 0);
    host.remapping.invalidate(4, 0);
    host.sink.take();
    for (const { message } of vectors) send(host.context, dev.requester, message.addressLo, 0);
    expect(host.sink.take().map(([intid]) => intid)).toEqual([vectors[0]!.hwirq, vectors[2]!.hwirq]);
  });

  it('gives back everything when vectors or entries end', () => {
    const host = ready(1);
    const dev = device(5);
    expect(host.remapped.allocate(dev, descs(dev, PER_CPU + 1), never)).toBe(-ERRNO.ENOSPC);
    expect([host.table.handles.used, host.vectors.available]).toEqual([16, PER_CPU]);
    enable(host.remapped, dev, descs(dev, PER_CPU - 2));
    const used = host.table.handles.used;
    expect(host.remapped.allocate(dev, descs(dev, 4, false), never)).toBe(-ERRNO.ENOSPC);
    expect([host.table.handles.used, host.vectors.available]).toEqual([used, 2]);
    while (host.table.handles.take(0) >= 0);
    expect(host.remapped.allocate(dev, descs(dev, 1), never)).toBe(-ERRNO.ENOSPC);
    expect(host.context.refusals.last?.why).toContain('every vector');
  });

  it('says so where the unit does not remap', () => {
    const host = new X86Host();
    const dead = new IrTable(host.context, { base: VTD + 0x1000, flushInterruptEntries: () => {} });
    host.context.bus.map(VTD + 0x1000, 4096, { name: 'dead', read: () => 0, write: () => {} });
    expect(dead.init()).toBe(-ERRNO.ENODEV);
    expect(host.context.memory.allocated).toBe(0);
  });
});
