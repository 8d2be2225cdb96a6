import { describe, expect, it } from 'vitest';
import { Count, Loss } from '../../ports/ledger.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { descs, device, disable, enable, send, toWindow, V2mHost } from './testing/controllers.ts';

const SETSPI = 0x0802_0040;

describe('GICv2m driver', () => {
  it('composes the messages of G8 and of the lab: window page + 0x40, data 0x50, 0x51', () => {
    const host = new V2mHost();
    const dev = device(5);
    const vectors = enable(host.parent, dev, descs(dev, 2));
    expect(vectors.map(({ message }) => message)).toEqual([
      { addressHi: 0, addressLo: 0x0800_0040, data: 0x50 },
      { addressHi: 0, addressLo: 0x0800_0040, data: 0x51 },
    ]);
    send(host.context, dev.requester, SETSPI, 0x51);
    expect(host.sink.take()).toEqual([[0x51, 0]]);
    expect(host.parent.isolated).toBe(false);
  });

  it('cannot keep one owner from raising another one (S1)', () => {
    const host = new V2mHost();
    const [victim, attacker] = [device(5), device(6)];
    enable(host.parent, victim, descs(victim, 1));
    enable(host.parent, attacker, descs(attacker, 1));
    send(host.context, attacker.requester, SETSPI, 0x50);
    expect(host.sink.take()).toEqual([[0x50, 0]]);
    send(host.context, attacker.requester, SETSPI, 0x90);
    expect(host.context.tap.ledger[Count.LOST + Loss.NO_SUCH_INTID]).toBe(1);
  });

  it('hits other registers of the frame without a fault (G13)', () => {
    const host = new V2mHost();
    expect(send(host.context, 0x28, SETSPI + 4, 0x50)).toBe(0);
    expect(host.context.tap.ledger[Count.LOST + Loss.NOT_A_DOORBELL]).toBe(1);
  });

  it('takes aligned powers of two for plain MSI', () => {
    const host = new V2mHost();
    const dev = device(5);
    enable(host.parent, dev, descs(dev, 1));
    const block = enable(host.parent, dev, descs(dev, 3, false));
    expect(block.map(({ hwirq }) => hwirq)).toEqual([84, 85, 86]);
    disable(host.parent, dev, block);
    expect(enable(host.parent, dev, descs(dev, 4, false))[0]!.hwirq).toBe(84);
  });

  it('ends with ENOSPC, and goes on in a second frame', () => {
    const frames = [
      { base: 0x0802_0000, spiBase: 64, spiCount: 4 },
      { base: 0x0802_1000, spiBase: 100, spiCount: 2 },
    ];
    const host = new V2mHost(frames);
    const dev = device(5);
    const doorbells: number[] = [];
    const vectors = descs(dev, 6);
    const noted = (desc: (typeof vectors)[number], doorbell: number): number => {
      doorbells.push(doorbell);
      return toWindow(desc, doorbell);
    };
    expect(host.parent.allocate(dev, vectors, noted)).toBe(0);
    expect(vectors.map(({ hwirq }) => hwirq)).toEqual([64, 65, 66, 67, 100, 101]);
    expect(doorbells.slice(3, 5)).toEqual([0x0802_0040, 0x0802_1040]);
    expect(host.parent.allocate(dev, descs(dev, 1), noted)).toBe(-ERRNO.ENOSPC);
    expect(host.context.refusals.last?.why).toBe('no 1 free SPIs in a row: 6 of 6 are in use');
    host.parent.free(dev, vectors.slice(2, 3));
    expect(host.parent.allocate(dev, descs(dev, 1), noted)).toBe(0);
    expect(host.parent.doorbells).toHaveLength(2);
  });

  it('leaks the SPI of a failed prepare, as Linux 7.2 does', () => {
    const host = new V2mHost();
    const dev = device(5);
    expect(host.parent.allocate(dev, descs(dev, 1), () => -ERRNO.EOPNOTSUPP)).toBe(-ERRNO.EOPNOTSUPP);
    expect(enable(host.parent, dev, descs(dev, 1))[0]!.hwirq).toBe(81);
  });

  it('refuses a frame whose SPIs are none', () => {
    const bad = [
      { base: 0x0802_0000, spiBase: 16, spiCount: 4 },
      { base: 0x0802_1000, spiBase: 1000, spiCount: 21 },
      { base: 0x0802_2000, spiBase: 64, spiCount: 0 },
      { base: 0x0802_3000, spiBase: 64, spiCount: 956 },
    ];
    const host = new V2mHost(bad);
    expect(bad.map(({ base }) => host.parent.addFrame(base))).toEqual([-22, -22, -22, 0]);
  });

  it('masks at the distributor, and moves to another CPU with the same message', () => {
    const host = new V2mHost();
    const dev = device(5);
    const [desc] = enable(host.parent, dev, descs(dev, 1));
    host.parent.mask(desc!);
    send(host.context, dev.requester, SETSPI, 0x50);
    expect(host.sink.take()).toEqual([]);
    expect(host.parent.setAffinity(desc!, 1)).toBe(0);
    host.parent.unmask(desc!);
    expect(host.sink.take()).toEqual([[0x50, 1]]);
    expect(host.parent.setAffinity(desc!, 2)).toBe(-ERRNO.EINVAL);
  });
});
