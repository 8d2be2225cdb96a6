import { describe, expect, it } from 'vitest';
import { Count, Loss } from '../../ports/ledger.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { ItsNode } from './its-node.ts';
import { LpiTables } from './lpi-tables.ts';
import { prepared } from './msi-desc-iova.ts';
import { descs, device, disable, enable, GICD, GICR, ITS, ItsHost, toWindow } from './testing/controllers.ts';

describe('ITS driver', () => {
  it('composes the messages of G5: window page + 0x40, data 0 to 3', () => {
    const host = new ItsHost();
    const dev = device(5);
    expect(host.parent.prepareDevice(dev, 4)).toBe(0);
    const vectors = enable(host.parent, dev, descs(dev, 4));
    for (const [event, { message, hwirq }] of vectors.entries()) {
      expect(message).toEqual({ addressHi: 0, addressLo: 0x0800_0040, data: event });
      expect(hwirq).toBe(8192 + event);
      host.ring(dev, event);
    }
    // The CPU with the fewest LPIs takes the next one.
    expect(host.sink.take()).toEqual([
      [8192, 0],
      [8193, 1],
      [8194, 0],
      [8195, 1],
    ]);
  });

  it('gives a second device the same address and events of its own (G6)', () => {
    const host = new ItsHost();
    const [one, two] = [device(5), device(6)];
    host.parent.prepareDevice(one, 4);
    host.parent.prepareDevice(two, 2);
    enable(host.parent, one, descs(one, 4));
    const vectors = enable(host.parent, two, descs(two, 2));
    expect(vectors.map(({ message }) => [message.addressLo, message.data])).toEqual([
      [0x0800_0040, 0],
      [0x0800_0040, 1],
    ]);
    expect(vectors.map(({ hwirq }) => hwirq)).toEqual([8196, 8197]);
    host.ring(two, 1);
    expect(host.sink.take().map(([lpi]) => lpi)).toEqual([8197]);
  });

  it('puts a second ITS behind its own doorbell (G7)', () => {
    const host = new ItsHost();
    const dev = device(5);
    host.parent.prepareDevice(dev, 1);
    const vectors = descs(dev, 1);
    host.parent.allocate(dev, vectors, (desc, doorbell) => {
      expect(doorbell).toBe(0x0809_0040);
      return prepared(desc, 0x0800_1000, 4096);
    });
    host.parent.compose(vectors[0]!, vectors[0]!.message);
    expect(vectors[0]!.message.addressLo).toBe(0x0800_1040);
    expect(host.parent.doorbells).toEqual([{ base: 0x0809_0000, size: 0x1_0000, register: 0x40, isolated: true }]);
  });

  it('confines a crafted event to the sender (S2, G12)', () => {
    const host = new ItsHost();
    const [one, two] = [device(5), device(6)];
    for (const dev of [one, two]) {
      host.parent.prepareDevice(dev, 4);
      enable(host.parent, dev, descs(dev, 4));
    }
    host.ring(two, 2);
    expect(host.sink.take().map(([lpi]) => lpi)).toEqual([8198]);
    // LPI numbers of the other device are no events.
    host.ring(two, 8192);
    host.ring(two, 0x77);
    expect(host.sink.take()).toEqual([]);
    expect(host.context.tap.ledger[Count.LOST + Loss.ITS_NO_EVENT]).toBe(2);
  });

  it('carries plain MSI as one aligned block', () => {
    const host = new ItsHost();
    const dev = device(5);
    host.parent.prepareDevice(dev, 8);
    enable(host.parent, dev, descs(dev, 1, false));
    const block = enable(host.parent, dev, descs(dev, 3, false));
    expect(block.map(({ message }) => message.data)).toEqual([4, 5, 6]);
    disable(host.parent, dev, block);
    const again = enable(host.parent, dev, descs(dev, 4, false));
    expect(again[0]!.message.data).toBe(4);
  });

  it('masks by the property byte and INV: a message waits, and fires on unmask', () => {
    const host = new ItsHost();
    const dev = device(5);
    host.parent.prepareDevice(dev, 1);
    const [desc] = enable(host.parent, dev, descs(dev, 1));
    host.parent.mask(desc!);
    host.ring(dev, 0);
    host.ring(dev, 0);
    expect(host.sink.take()).toEqual([]);
    host.parent.unmask(desc!);
    expect(host.sink.take()).toEqual([[8192, 0]]);
    const { ledger } = host.context.tap;
    expect([ledger[Count.PENDING], ledger[Count.COALESCED]]).toEqual([0, 1]);
  });

  it('moves an interrupt to another CPU without a new message', () => {
    const host = new ItsHost();
    const dev = device(5);
    host.parent.prepareDevice(dev, 1);
    const [desc] = enable(host.parent, dev, descs(dev, 1));
    const before = { ...desc!.message };
    expect(host.parent.setAffinity(desc!, 1)).toBe(0);
    host.parent.compose(desc!, desc!.message);
    expect(desc!.message).toEqual(before);
    host.ring(dev, 0);
    expect(host.sink.take()).toEqual([[8192, 1]]);
    expect(host.parent.cpuOf(desc!)).toBe(1);
    expect(host.parent.setAffinity(desc!, 2)).toBe(-ERRNO.EINVAL);
  });

  it('raises and withdraws by software', () => {
    const host = new ItsHost();
    const dev = device(5);
    host.parent.prepareDevice(dev, 1);
    const [desc] = enable(host.parent, dev, descs(dev, 1));
    host.parent.setPending(desc!, true);
    expect(host.sink.take()).toEqual([[8192, 0]]);
    host.parent.mask(desc!);
    host.parent.setPending(desc!, true);
    host.parent.setPending(desc!, false);
    host.parent.unmask(desc!);
    expect(host.sink.take()).toEqual([]);
  });

  it('leaks the event of a failed prepare, as Linux 7.2 does (G9)', () => {
    const host = new ItsHost();
    const dev = device(5);
    host.parent.prepareDevice(dev, 4);
    expect(host.parent.allocate(dev, descs(dev, 1), () => -ERRNO.EOPNOTSUPP)).toBe(-ERRNO.EOPNOTSUPP);
    host.parent.releaseDevice(dev);
    expect(host.context.lines).toEqual(['WARNING: its_msi_teardown: 0000:00:05.0 has 1 events left']);
    expect(host.parent.prepareDevice(dev, 4)).toBe(0);
    const vectors = enable(host.parent, dev, descs(dev, 3));
    expect(vectors.map(({ message }) => message.data)).toEqual([1, 2, 3]);
    expect(host.parent.allocate(dev, descs(dev, 1), toWindow)).toBe(-ERRNO.ENOSPC);
  });

  it('gives back what came before the vector that failed', () => {
    const host = new ItsHost();
    const dev = device(5);
    host.parent.prepareDevice(dev, 4);
    let calls = 0;
    const third = (desc: ReturnType<typeof descs>[number], doorbell: number): number =>
      ++calls === 3 ? -ERRNO.ENOMEM : toWindow(desc, doorbell);
    expect(host.parent.allocate(dev, descs(dev, 4), third)).toBe(-ERRNO.ENOMEM);
    const vectors = enable(host.parent, dev, descs(dev, 3));
    expect(vectors.map(({ message }) => message.data)).toEqual([0, 1, 3]);
  });

  it('an unmapped event after deactivation, an unmapped device after release', () => {
    const host = new ItsHost();
    const dev = device(5);
    host.parent.prepareDevice(dev, 2);
    const vectors = enable(host.parent, dev, descs(dev, 2));
    disable(host.parent, dev, vectors);
    host.ring(dev, 0);
    expect(host.context.tap.ledger[Count.LOST + Loss.ITS_NO_EVENT]).toBe(1);
    host.parent.releaseDevice(dev);
    host.ring(dev, 0);
    expect(host.context.tap.ledger[Count.LOST + Loss.ITS_NO_DEVICE]).toBe(1);
  });

  it('frees every table', () => {
    const host = new ItsHost({ deviceBits: 20 });
    const before = host.context.memory.allocated;
    const dev = device(5);
    for (let turn = 0; turn < 3; turn++) {
      expect(host.parent.prepareDevice(dev, 2048)).toBe(0);
      const vectors = enable(host.parent, dev, descs(dev, 2048));
      disable(host.parent, dev, vectors);
      host.parent.releaseDevice(dev);
    }
    // Pages of the device table stay with the ITS.
    expect(host.context.memory.allocated - before).toBe(65536);
    expect(host.lpis.ranges.free).toBe(57_344);
    host.node.release();
    host.lpis.release();
    expect(host.context.memory.allocated).toBe(0);
  });

  it('an ITE corrupted in memory loses exactly that interrupt once it is invalidated', () => {
    const host = new ItsHost();
    const dev = device(5);
    const before = host.context.memory.allocated;
    host.parent.prepareDevice(dev, 4);
    expect(host.context.memory.allocated).toBeGreaterThan(before);
    const vectors = enable(host.parent, dev, descs(dev, 4));
    host.its.tables.findDevice(dev.requester);
    host.context.memory.write64(host.its.tables.itt + 8, 0, 0);
    host.parent.unmask(vectors[1]!);
    for (let event = 0; event < 4; event++) host.ring(dev, event);
    expect(host.sink.take().map(([lpi]) => lpi)).toEqual([8192, 8194, 8195]);
  });
});

describe('limits of the ITS driver', () => {
  it('uses 16 bits of LPIs, 57,344 of them, and answers ENOMEM beyond', () => {
    const host = new ItsHost({ lpiBits: 24 });
    expect(host.lpis.idBits).toBe(16);
    // 28 devices of 2,048 events are all there are.
    for (let n = 1; n <= 28; n++) expect(host.parent.prepareDevice(device(n), 2048)).toBe(0);
    expect(host.lpis.ranges.free).toBe(0);
    expect(host.parent.prepareDevice(device(29), 1)).toBe(-ERRNO.ENOMEM);
    expect(host.context.refusals.last?.why).toContain('all LPIs below 65536 are taken');
    expect(host.parent.allocate(device(29), descs(device(29), 1), toWindow)).toBe(-ERRNO.EINVAL);
  });

  it('makes do with half of the LPIs, and then has no event for the rest', () => {
    const host = new ItsHost();
    for (let n = 1; n <= 27; n++) host.parent.prepareDevice(device(n), 2048);
    host.parent.prepareDevice(device(28), 1024);
    const dev = device(29);
    expect(host.parent.prepareDevice(dev, 2048)).toBe(0);
    expect(host.parent.allocate(dev, descs(dev, 1024), toWindow)).toBe(0);
    expect(host.parent.allocate(dev, descs(dev, 1), toWindow)).toBe(-ERRNO.ENOSPC);
  });

  it('fills all 57,344 LPIs with live vectors', () => {
    const host = new ItsHost();
    const all = Array.from({ length: 28 }, (_, n) => device(n + 1));
    for (const dev of all) {
      host.parent.prepareDevice(dev, 2048);
      enable(host.parent, dev, descs(dev, 2048));
    }
    for (const dev of all) for (let event = 0; event < 2048; event += 7) host.ring(dev, event);
    const seen = host.sink.take().map(([lpi]) => lpi);
    expect(seen).toHaveLength(28 * 293);
    expect(new Set(seen).size).toBe(28 * 293);
    expect(Math.max(...seen)).toBeLessThan(65_536);
  });

  it('can use 24 bits when told to', () => {
    const host = new ItsHost({ cpus: 1, lpiBits: 24, maxBits: 24 });
    expect(host.lpis.ranges.free).toBe(2 ** 24 - 8192);
    const dev = device(5);
    host.parent.prepareDevice(dev, 1);
    enable(host.parent, dev, descs(dev, 1));
    host.ring(dev, 0);
    expect(host.sink.take()).toEqual([[8192, 0]]);
  });

  it('refuses a device id beyond the table, and gives device 0 at least 32 events', () => {
    const host = new ItsHost({ deviceBits: 8 });
    expect(host.parent.prepareDevice(device(0x20), 1)).toBe(-ERRNO.ENOMEM);
    const zero = device(0);
    expect(host.parent.prepareDevice(zero, 1)).toBe(0);
    expect(host.parent.allocate(zero, descs(zero, 32), toWindow)).toBe(0);
    expect(host.parent.allocate(zero, descs(zero, 1), toWindow)).toBe(-ERRNO.ENOSPC);
  });

  it('keeps a device that came twice', () => {
    const host = new ItsHost();
    const dev = device(5);
    host.parent.prepareDevice(dev, 4);
    host.parent.prepareDevice(device(5), 4);
    host.parent.releaseDevice(dev);
    const vectors = enable(host.parent, dev, descs(dev, 1));
    expect(vectors[0]!.message.data).toBe(0);
  });

  it('says what is missing where there is no ITS, no LPIs, or no memory', () => {
    const host = new ItsHost();
    const { context } = host;
    expect(new ItsNode(context, 0x0a00_0000, host.lpis).init()).toBe(-ERRNO.ENODEV);
    const none = new LpiTables(context, { distributor: 0x0a00_0000, redistributors: GICR, cpus: 1 });
    context.bus.map(0x0a00_0000, 0x10000, { name: 'nothing', read: () => 0, write: () => {} });
    expect(none.init()).toBe(-ERRNO.ENXIO);
    while (context.memory.allocate(65536, 65536) !== null);
    const before = context.memory.allocated;
    expect(new ItsNode(context, ITS, host.lpis).init()).toBe(-ERRNO.ENOMEM);
    expect(new LpiTables(context, { distributor: GICD, redistributors: GICR, cpus: 2 }).init()).toBe(-ERRNO.ENOMEM);
    expect(context.memory.allocated).toBe(before);
  });
});
