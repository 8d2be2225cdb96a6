/** Hot reset (vfio_pci_core.c, vfio_main.c): what it would hit, who may, and what is there afterwards. */
import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import { setDriverData } from './device-set.ts';
import { BusHost, s32 } from './testing/bus-host.ts';
import { named, Rig } from './testing/rig.ts';

const FIRST = '0000:01:00.0';
const SECOND = '0000:01:00.1';
const MSIX = 2;

function setUp(drivers?: readonly (string | null)[]) {
  const bus = new BusHost(drivers === undefined ? {} : { drivers });
  const { client } = bus;
  const groups = [bus.group(FIRST)];
  const fd = bus.device(groups[0], FIRST);
  const info = (argsz: number, on = fd) => {
    const bytes = new Uint8Array(Math.max(argsz, 12));
    uapi.vfio_pci_hot_reset_info.patch(bytes, { argsz });
    const result = named(client.ioctl(on, uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, bytes));
    const { flags, count } = uapi.vfio_pci_hot_reset_info.read(bytes.subarray(0, 12));
    return { result, flags, count, bytes };
  };
  const reset = (fds: readonly number[], fields: { argsz?: number; flags?: number; count?: number } = {}) => {
    const bytes = new Uint8Array(12 + 4 * fds.length);
    uapi.vfio_pci_hot_reset.patch(bytes, { argsz: bytes.length, flags: 0, count: fds.length, ...fields });
    bytes.set(s32(...fds), 12);
    return named(client.ioctl(fd, uapi.VFIO_DEVICE_PCI_HOT_RESET, bytes));
  };
  return { ...bus, bus, client, groups, fd, info, reset };
}

const dependent = (bytes: Uint8Array, i: number) => uapi.vfio_pci_dependent_device.read(bytes, 12 + 8 * i);

describe('GET_PCI_HOT_RESET_INFO', () => {
  it('lists every function of the bus with its group', () => {
    const { info, bus } = setUp();
    const { result, flags, count, bytes } = info(28);
    expect([result, flags, count]).toEqual([0, 0, 2]);
    const group = (name: string) => bus.dev(name).iommuGroup?.id;
    expect(dependent(bytes, 0)).toMatchObject({ group_id: group(FIRST), segment: 0, bus: 1, devfn: 0 });
    expect(dependent(bytes, 1)).toMatchObject({ group_id: group(SECOND), segment: 0, bus: 1, devfn: 1 });
    expect(group(FIRST)).not.toBe(group(SECOND));
  });

  it('EFAULT, EINVAL argsz, ENODEV, ENOSPC with the count that is needed', () => {
    const { info, client, fd } = setUp();
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, 8)).toBe(-14);
    expect(info(11).result).toBe('EINVAL');
    expect(info(27)).toMatchObject({ result: 'ENOSPC', count: 2, flags: 0 });
    expect(info(12)).toMatchObject({ result: 'ENOSPC', count: 2 });
    const onRootBus = new Rig().open();
    const ask = (argsz: number) =>
      onRootBus.request(uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, uapi.vfio_pci_hot_reset_info, { argsz });
    expect([ask(11), ask(12)]).toEqual(['EINVAL', 'ENODEV']);
  });

  it('EFAULT the list cannot be written: the header stays as it was', () => {
    const { client, fd } = setUp();
    const page = client.allocate(4096);
    if (typeof page === 'number') throw new Error('no memory');
    const at = page.length - uapi.vfio_pci_hot_reset_info.size;
    uapi.vfio_pci_hot_reset_info.write(page.bytes, { argsz: 4096, count: 77 }, at);
    const { syscalls } = client.kernel;
    const request = uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO;
    expect(syscalls.ioctl(client.process, fd, request, BigInt(page.address + at))).toBe(-14);
    expect(uapi.vfio_pci_hot_reset_info.read(page.bytes, at)).toMatchObject({ argsz: 4096, count: 77 });
  });

  it('a device that is open by itself: ids of its iommufd, OWNED while all are its own or of its groups', () => {
    const { info, host, bus } = setUp();
    const context = {};
    const [first, second] = [FIRST, SECOND].map((name) => host.vfio.deviceOf(bus.dev(name))!);
    first.cdevOpened = true;
    first.iommufd = { context, deviceId: 7 };
    const ids = () => {
      const { flags, bytes } = info(28);
      return [flags, dependent(bytes, 0).devid, dependent(bytes, 1).devid];
    };
    expect(ids()).toEqual([1, 7, 0xffff_ffff]);
    second.iommufd = { context: {}, deviceId: 3 };
    expect(ids()).toEqual([1, 7, 0xffff_ffff]);
    second.iommufd = { context, deviceId: 3 };
    expect(ids()).toEqual([3, 7, 3]);
  });
});

describe('PCI_HOT_RESET', () => {
  it('resets every function, and leaves vectors, messages and BARs as they were', () => {
    const { bus, client, groups, fd, reset, models, host } = setUp();
    groups.push(bus.group(SECOND));
    const other = bus.device(groups[1], SECOND);
    const eventfd = client.eventfd();
    if (typeof eventfd === 'number') throw new Error();
    for (const each of [fd, other]) {
      client.pwrite(each, Uint8Array.of(6, 0), 7 * 2 ** 40 + 4);
      const bytes = new Uint8Array(24);
      uapi.vfio_irq_set.patch(bytes, { argsz: 24, flags: 0x24, index: MSIX, start: 0, count: 1 });
      bytes.set(s32(eventfd.fd), 20);
      expect(client.ioctl(each, uapi.VFIO_DEVICE_SET_IRQS, bytes)).toBe(0);
    }
    const table = [FIRST, SECOND].map((name) => bus.dev(name).resources[0].base + 0x2000);
    const messages = () => table.map((at) => host.context.bus.read32(at) >>> 0);
    const before = { messages: messages(), resets: models.map((model) => model.resets) };
    expect(before.messages).toEqual([0x0800_0040, 0x0800_0040]);
    expect(reset(groups)).toBe(0);
    expect(models.map((model, i) => model.resets - before.resets[i])).toEqual([1, 1]);
    expect(messages()).toEqual(before.messages);
    for (const model of models) model.port?.raise(0);
    client.settle();
    expect(eventfd.drain()).toBe(2);
  });

  it('wakes every function, takes its mappings away, and lets it sleep again', () => {
    const { bus, groups, reset } = setUp();
    groups.push(bus.group(SECOND));
    const events: string[] = [];
    setDriverData(bus.dev(SECOND), {
      needsReset: false,
      beginBusReset: () => events.push('begin'),
      quiesce: () => events.push('quiesce'),
      unquiesce: () => {},
      endBusReset: () => events.push('end'),
    });
    expect(reset(groups.slice(0, 1))).toBe('EINVAL');
    expect(events.splice(0)).toEqual(['begin', 'end']);
    expect(reset(groups)).toBe(0);
    expect(events).toEqual(['begin', 'quiesce', 'end']);
    const { core } = new Rig().open();
    core.dev.setPowerState(3);
    const before = core.state.zaps;
    core.quiesce();
    expect([core.state.zaps, core.dev.powerState]).toEqual([before + 1, 0]);
  });

  it('ends D3hot, which the reset itself would not survive', () => {
    const { bus, client, groups, fd, reset } = setUp();
    groups.push(bus.group(SECOND));
    const power = bus.dev(FIRST).capability(1) + 4;
    client.pwrite(fd, Uint8Array.of(3), 7 * 2 ** 40 + power);
    expect(bus.dev(FIRST).powerState).toBe(3);
    expect(reset(groups)).toBe(0);
    expect(bus.dev(FIRST).powerState).toBe(0);
  });

  it('EFAULT, EINVAL argsz, EINVAL flags, EINVAL count 0, EINVAL too many, EFAULT the array', () => {
    const { client, fd, groups, reset, bus } = setUp();
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_PCI_HOT_RESET, 8)).toBe(-14);
    expect(reset([], { argsz: 11, flags: 1 })).toBe('EINVAL');
    expect(client.refusal()?.field).toBe('argsz');
    expect(reset([], { flags: 1 })).toBe('EINVAL');
    expect(client.refusal()?.field).toBe('flags');
    expect(reset([])).toBe('EINVAL');
    expect(bus.why()).toMatch(/opened through a group/);
    expect(reset([groups[0], 999, 999])).toBe('EINVAL');
    expect(bus.why()).toMatch(/more than the 2 functions/);
    expect(reset([], { count: 2 })).toBe('EFAULT');
  });

  it('ENODEV on a root bus, after the count and before the descriptors', () => {
    const rig = new Rig().open();
    const ask = (count: number) =>
      rig.request(uapi.VFIO_DEVICE_PCI_HOT_RESET, uapi.vfio_pci_hot_reset, { argsz: 12, count });
    expect([ask(0), ask(1)]).toEqual(['EINVAL', 'ENODEV']);
  });

  it('EBADF, EINVAL no group, then EINVAL a device whose group was not given', () => {
    const { client, bus, groups, reset, container, fd } = setUp();
    expect(reset([999])).toBe('EBADF');
    for (const wrong of [container, fd]) expect(reset([wrong, 999])).toBe('EINVAL');
    expect(client.refusal()?.field).toBe('group_fds');
    expect(reset(groups)).toBe('EINVAL');
    expect(bus.why()).toMatch(new RegExp(`${SECOND} is reset too`));
  });

  it('EINVAL before ownership: a function of the bus without a VFIO driver', () => {
    const { bus, groups, reset } = setUp(['vfio-pci', 'vfio-pci', null]);
    expect(reset(groups)).toBe('EINVAL');
    expect(bus.why()).toMatch(/0000:01:00.2 .* no VFIO driver/);
  });

  it('EAGAIN while a lock is held: nothing is reset', () => {
    const { bus, groups, reset, models } = setUp();
    groups.push(bus.group(SECOND));
    bus.dev(SECOND).locked = true;
    const before = models.map((model) => model.resets);
    expect(reset(groups)).toBe('EAGAIN');
    expect(models.map((model) => model.resets)).toEqual(before);
  });

  it('open by itself: count must be 0, and every device bound to the same iommufd', () => {
    const { bus, groups, reset, host, models } = setUp();
    const context = {};
    const [first, second] = [FIRST, SECOND].map((name) => host.vfio.deviceOf(bus.dev(name))!);
    first.cdevOpened = true;
    first.iommufd = { context, deviceId: 1 };
    expect(reset(groups)).toBe('EINVAL');
    expect(bus.why()).toMatch(/by its iommufd/);
    expect(reset([])).toBe('EINVAL');
    expect(bus.why()).toMatch(/its iommufd do not own it/);
    second.iommufd = { context, deviceId: 2 };
    const before = models.map((model) => model.resets);
    expect(reset([])).toBe(0);
    expect(models.map((model, i) => model.resets - before[i])).toEqual([1, 1]);
  });
});

describe('the last close of a bus without function resets', () => {
  it('resets the bus when nobody has any of its functions open', () => {
    const bus = new BusHost({ spec: { express: { type: 'endpoint', acs: true } } });
    const groups = [FIRST, SECOND].map((name) => bus.group(name));
    const fds = [FIRST, SECOND].map((name, i) => bus.device(groups[i], name));
    const before = bus.models.map((model) => model.resets);
    const since = () => bus.models.map((model, i) => model.resets - before[i]);
    bus.client.close(fds[0]);
    expect(since()).toEqual([0, 0]);
    bus.client.close(fds[1]);
    expect(since()).toEqual([1, 1]);
  });
});
