import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import { FixtureConfig, FixtureFunction } from './config-fixture.ts';
import { enumeratePci } from './enumerate.ts';
import type { PciDevice } from './pci-device.ts';

const COMMAND = 0x04;

/** A PCIe endpoint with FLR at 0x40 and PM at 0x80. */
function endpoint(): { fn: FixtureFunction; dev: PciDevice; resets: () => number } {
  const config = new FixtureConfig();
  const fn = config.add(0x0030, new FixtureFunction(0x1b36, 0x0010));
  fn.bar(0, 0x1000_0000, 0x4000).capability(0x34, 0x40, 0x10).put(0x42, 2, 0x0002).put(0x44, 4, 0x1000_0000);
  fn.allow(0x48, 2, 0x78ff).put(0x48, 2, 0x2810).capability(0x41, 0x80, 0x01).allow(0x84, 2, 0x0103).seal();
  let resets = 0;
  fn.onWrite = (offset, _size, value) => {
    if (offset !== 0x48 || (value & 0x8000) === 0) return;
    resets += 1;
    fn.reset();
  };
  const [dev] = enumeratePci(config, 0);
  return { fn, dev: dev as PciDevice, resets: () => resets };
}

describe('PciDevice', () => {
  it('enables decoding of what exists, counts enables, and the last disable stops bus mastering only', () => {
    const { fn, dev } = endpoint();
    expect(dev.enable()).toBe(0);
    expect(dev.enable()).toBe(0);
    dev.setMaster();
    expect(fn.read(COMMAND, 2)).toBe(0x0006);
    dev.disable();
    expect(fn.read(COMMAND, 2)).toBe(0x0006);
    dev.disable();
    expect(fn.read(COMMAND, 2)).toBe(0x0002);
  });

  it('a memory BAR without an address cannot be enabled; ports without one are as if they were not there', () => {
    const config = new FixtureConfig();
    config.add(0x08, new FixtureFunction(1, 1).bar(0, 0, 0x1000));
    config.add(0x10, new FixtureFunction(1, 2).bar(0, 0x1000_0000, 0x1000).put(0x14, 4, 1).allow(0x14, 4, 0xffe0));
    const [without, ports] = enumeratePci(config, 0) as [PciDevice, PciDevice];
    expect(without.enable()).toBe(-ERRNO.EINVAL);
    expect(without.enable()).toBe(-ERRNO.EINVAL);
    expect(ports.resources[1]).toMatchObject({ kind: 'io', size: 0x20, base: 0 });
    expect(ports.enable()).toBe(0);
    expect(config.functions.get(0x10)?.read(COMMAND, 2)).toBe(2);
  });

  it('shows ports where the host bridge has them', () => {
    const config = new FixtureConfig();
    config.add(0x10, new FixtureFunction(1, 2).put(0x10, 4, 0xc001).allow(0x10, 4, 0xffe0));
    expect(enumeratePci(config, 0, 0x7fff_0000)[0]?.resources[0]?.base).toBe(0x7fff_c000);
  });

  it('tryReset resets by FLR and puts configuration back, COMMAND after the bases', () => {
    const { fn, dev, resets } = endpoint();
    dev.enable();
    dev.setMaster();
    fn.put(0x10, 4, 0x2000_0000).put(0x48, 2, 0x5810).put(0x3c, 1, 7);
    expect(dev.tryReset()).toBe(0);
    expect(resets()).toBe(1);
    expect([fn.read(COMMAND, 2), fn.read(0x10, 4), fn.read(0x48, 2), fn.read(0x3c, 1)]).toEqual([
      6, 0x2000_0000, 0x5810, 7,
    ]);
    const order = fn.writes.slice(
      fn.writes.findIndex(({ offset, value }) => offset === 0x48 && (value & 0x8000) !== 0) + 1,
    );
    expect(order.findIndex(({ offset }) => offset === 0x10)).toBeLessThan(
      order.findIndex(({ offset }) => offset === COMMAND),
    );
  });

  it('EAGAIN while the lock is held, and nothing is touched', () => {
    const { fn, dev, resets } = endpoint();
    fn.writes.length = 0;
    dev.locked = true;
    expect(dev.tryReset()).toBe(-ERRNO.EAGAIN);
    expect(resets()).toBe(0);
    expect(fn.writes).toEqual([]);
  });

  it('ENOTTY without a method, before the lock is looked at', () => {
    const config = new FixtureConfig();
    config.add(0x0028, new FixtureFunction(0x1234, 0x11e8));
    const [dev] = enumeratePci(config, 0);
    (dev as PciDevice).locked = true;
    expect(dev?.canReset).toBe(false);
    expect(dev?.tryReset()).toBe(-ERRNO.ENOTTY);
  });

  it('resets through PM without NoSoftRst, through AF, and through a bus that holds nothing else', () => {
    const config = new FixtureConfig();
    config.add(0x0008, new FixtureFunction(0x1b36, 0xc).put(0x0e, 1, 1).allow(0x3e, 2, 0x40).put(0x19, 2, 0x0101));
    config.add(0x0100, new FixtureFunction(1, 1));
    config.add(0x0010, new FixtureFunction(1, 2).capability(0x34, 0x40, 0x01).allow(0x44, 2, 3));
    config.add(0x0018, new FixtureFunction(1, 3).capability(0x34, 0x40, 0x01).put(0x44, 2, 8));
    config.add(0x0020, new FixtureFunction(1, 4).capability(0x34, 0x40, 0x13).put(0x43, 1, 3));
    const byDevice = new Map(enumeratePci(config, 0).map((dev) => [dev.deviceId, dev]));
    expect([0xc, 1, 2, 3, 4].map((id) => byDevice.get(id)?.canReset)).toEqual([false, true, true, false, true]);
    expect(byDevice.get(1)?.tryReset()).toBe(0);
    const control = config.functions
      .get(0x0008)
      ?.writes.filter(({ offset }) => offset === 0x3e)
      .map(({ value }) => value);
    expect(control).toEqual([0x40, 0]);
    expect(byDevice.get(2)?.tryReset()).toBe(0);
    const states = config.functions
      .get(0x0010)
      ?.writes.filter(({ offset }) => offset === 0x44)
      .map(({ value }) => value);
    expect(states).toEqual([3, 0]);
  });

  it('a second function on the bus forbids the bus reset', () => {
    const config = new FixtureConfig();
    config.add(0x0008, new FixtureFunction(0x1b36, 0xc).put(0x0e, 1, 1).put(0x19, 2, 0x0101));
    config.add(0x0100, new FixtureFunction(1, 1).put(0x0e, 1, 0x80));
    config.add(0x0101, new FixtureFunction(1, 1));
    expect(enumeratePci(config, 0).map((dev) => dev.canReset)).toEqual([false, false, false]);
  });

  it('restores the MSI enable bit last and asks for the messages', () => {
    const config = new FixtureConfig();
    const fn = config.add(0x0028, new FixtureFunction(1, 2));
    fn.capability(0x34, 0x40, 0x05)
      .put(0x42, 2, 0x0080)
      .allow(0x42, 2, 0x71)
      .allow(0x44, 12, 2 ** 48 - 1)
      .allow(0x4c, 2, 0xffff);
    fn.capability(0x41, 0x60, 0x01).allow(0x64, 2, 3).seal();
    const [dev] = enumeratePci(config, 0) as [PciDevice];
    fn.put(0x44, 4, 0x0800_0040).put(0x4c, 2, 5).put(0x42, 2, 0x0081);
    let asked = 0;
    dev.restoreMsiState = () => {
      asked += 1;
    };
    fn.onWrite = (offset, _size, value) => {
      if (offset === 0x64 && (value & 3) === 0) fn.reset();
    };
    expect(dev.tryReset()).toBe(0);
    expect([fn.read(0x42, 2), fn.read(0x44, 4), fn.read(0x4c, 2), asked]).toEqual([0x0081, 0x0800_0040, 5, 1]);
  });
});
