/** The library on whole hosts: what a program does with a device through iommufd, and that the same program runs on type1. */
import { describe, expect, it } from 'vitest';
import {
  CdevDevice,
  Container,
  Hwpt,
  Ioas,
  Iommufd,
  openDevice,
  VfioError,
  type Via,
  waysTo,
} from '../src/vfio/index.ts';
import { countsOf } from './support/counts.ts';
import { GuestRig } from './support/guest-rig.ts';
import { DEVICE, testHost } from './support/host.ts';
import { msixEntry } from './support/messages.ts';

const WAYS: readonly Via[] = ['container', 'iommufd'];
const PAGE = 4096;

function caught(act: () => unknown): VfioError {
  try {
    act();
  } catch (error) {
    if (error instanceof VfioError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** A process, with what it has open and pinned. */
function owner(...args: Parameters<typeof testHost>) {
  const host = testHost(...args);
  const { kernel, process } = host.process();
  const left = () => [process.descriptors.length, process.lockedPages];
  const fn = host.machine.pci.function(DEVICE)!;
  const dev = host.pciDevices.find(({ name }) => name === DEVICE)!;
  return { host, kernel, process, left, fn, dev };
}

describe('the same program', () => {
  it.each(WAYS)('by %s: DMA, the doorbell where it asks, interrupts, and nothing left', (via) => {
    const { host, kernel, left, fn, dev } = owner('arm-its', { options: { msix: 3 } });
    {
      using device = openDevice(kernel, DEVICE, { via });
      const { space } = device;
      expect(space.pageSizes()[0]).toBe(PAGE);
      // The window is not to be mapped (IOVA ranges of the lab: 0 to the window, behind it to 48 bits).
      expect(space.ranges()).toEqual([
        { start: 0, end: 0x7ff_ffff },
        { start: 0x810_0000, end: 0xffff_ffff_ffff },
      ]);
      const buffer = space.mapDma({ length: PAGE, iova: 0x10_0000 });
      const { iova } = device.doorbell.set({ iova: 0x0809_0040 });
      expect(iova).toBe(0x0809_0000);
      device.config.busMaster = true;
      const { vectors, granted } = device.msix.enable(3);
      expect(granted).toBe(3);
      expect([0, 1, 2].map((i) => msixEntry(host, dev, i).address)).toEqual([0x0809_0040, 0x0809_0040, 0x0809_0040]);
      expect(device.doorbell.get(1)).toMatchObject({ address: 0x0809_0040, size: PAGE, active: true });
      for (const vector of [0, 2, 2]) fn.raise(vector);
      kernel.settle();
      expect(vectors.map((vector) => vector.take())).toEqual([1, 0, 2]);
      buffer.bytes.set([1, 2, 3, 4]);
      expect(dev.iommuGroup!.domain.lookup(0x10_0000)).toBeGreaterThanOrEqual(0);
      buffer.close();
      expect(dev.iommuGroup!.domain.lookup(0x10_0000)).toBe(-1);
    }
    expect(left()).toEqual([0, 0]);
    expect(dev.iommuGroup!.domain === dev.iommuGroup!.defaultDomain).toBe(true);
  });

  it.each(WAYS)('by %s: what is refused, and where', (via) => {
    const { kernel, left } = owner('arm-its');
    {
      using device = openDevice(kernel, DEVICE, { via });
      const { space } = device;
      using memory = space.mapDma({ length: 2 * PAGE, iova: 0x10_0000 });
      const code = (act: () => unknown): string => caught(act).code;
      expect(code(() => space.map(0x800_0000, memory.address, PAGE))).toBe('EINVAL');
      expect(code(() => space.map(0x10_1000, memory.address, PAGE))).toBe('EEXIST');
      expect(code(() => space.map(0x20_0800, memory.address, PAGE))).toBe('EINVAL');
      expect(code(() => device.doorbell.set({ iova: 0x10_0000 }))).toBe('EADDRINUSE');
      expect(space.unmap(0x40_0000, PAGE)).toBe(0);
      expect(['EINVAL', 'ENOENT']).toContain(code(() => space.unmap(0x10_1000, PAGE)));
      const free = space.map(null, memory.address, PAGE);
      expect(space.unmap(free, PAGE)).toBe(PAGE);
      expect(space.unmapAll()).toBe(2 * PAGE);
    }
    expect(left()).toEqual([0, 0]);
  });

  it('finds both ways on this kernel; the container is what it gets without a wish', () => {
    const { kernel } = owner('arm-its');
    expect(waysTo(kernel, DEVICE)).toEqual(['container', 'iommufd']);
    using device = openDevice(kernel, DEVICE);
    expect(device.space instanceof Container).toBe(true);
    expect(device.space === device.container).toBe(true);
  });

  it('by both at once is refused, each way round', () => {
    const { kernel, left } = owner('arm-its');
    {
      using _first = openDevice(kernel, DEVICE, { via: 'container' });
      expect(caught(() => openDevice(kernel, DEVICE, { via: 'iommufd' }))).toMatchObject({
        code: 'EBUSY',
        request: 'VFIO_DEVICE_BIND_IOMMUFD',
      });
    }
    {
      using _first = openDevice(kernel, DEVICE, { via: 'iommufd' });
      expect(caught(() => openDevice(kernel, DEVICE, { via: 'container' })).code).toBe('EBUSY');
    }
    expect(left()).toEqual([0, 0]);
  });
});

describe('iommufd by hand', () => {
  it('bind, attach, map where the kernel chooses, replace under fire, detach', () => {
    const { host, kernel, left, fn, dev } = owner('arm-its', { options: { msix: 2 } });
    {
      using iommufd = Iommufd.open(kernel);
      using first = Ioas.create(iommufd);
      using second = Ioas.create(iommufd);
      using device = CdevDevice.open(kernel, DEVICE);
      expect(caught(() => device.info()).code).toBe('EINVAL');
      expect(device.bind(iommufd)).toBe(3);
      expect(first.pageSizes()).toEqual([1]);
      expect(first.ranges()).toEqual([{ start: 0, end: Number.MAX_SAFE_INTEGER }]);
      expect(device.attach(first)).toBe(4);
      // First fit, behind page 0 (3b.3.1).
      const buffer = first.mapDma({ length: PAGE });
      expect(buffer.iova).toBe(0x1000);
      expect(second.copy(first, 0x1000, PAGE, { iova: 0x7000 })).toBe(0x7000);
      device.config.busMaster = true;
      const { vectors } = device.msix.enable(2);
      expect(msixEntry(host, dev, 0).address).toBe(0x0800_0040);
      fn.raise(1);
      device.replace(second);
      fn.raise(1);
      kernel.settle();
      expect(vectors.map((vector) => vector.take())).toEqual([0, 2]);
      expect([first.devices.length, second.devices.length]).toEqual([0, 1]);
      expect(dev.iommuGroup!.domain.lookup(0x7000)).toBeGreaterThan(0);
      using hwpt = Hwpt.create(device, first, { nestParent: true });
      device.replace(hwpt);
      fn.raise(0);
      kernel.settle();
      expect(vectors[0]?.take()).toBe(1);
      device.detach();
      fn.raise(0);
      kernel.settle();
      expect(vectors[0]?.take()).toBe(0);
      expect(device.table).toBeNull();
    }
    expect(left()).toEqual([0, 0]);
  });

  it('an allow list, and a mapping in the way of a device', () => {
    const { kernel } = owner('arm-its');
    using iommufd = Iommufd.open(kernel);
    using ioas = Ioas.create(iommufd);
    ioas.allow([{ start: 0x20_0000, end: 0x2f_ffff }]);
    expect(ioas.mapDma({ length: PAGE }).iova).toBe(0x20_0000);
    using over = ioas.mapDma({ length: PAGE, iova: 0x800_0000 });
    using device = CdevDevice.open(kernel, DEVICE);
    device.bind(iommufd);
    expect(caught(() => device.attach(ioas))).toMatchObject({ code: 'EADDRINUSE' });
    over.close();
    device.attach(ioas);
    expect(caught(() => ioas.allow([{ start: 0x700_0000, end: 0x8ff_ffff }])).code).toBe('EADDRINUSE');
  });

  it('closing in the wrong order leaves nothing either', () => {
    const { kernel, left } = owner('arm-its');
    const device = openDevice(kernel, DEVICE, { via: 'iommufd' });
    const ioas = device.space;
    ioas.mapDma({ length: PAGE });
    ioas.close();
    expect(caught(() => device.space).code).toBe('EINVAL');
    expect(device.config.vendorId).toBe(0x1b36);
    device.iommufd?.close();
    expect(device.isClosed).toBe(true);
    expect(left()).toEqual([0, 0]);
  });

  it('interrupts that are not isolated: each way names its own parameter', () => {
    const { kernel, left } = owner('arm-v2m');
    const refusals = WAYS.map((via) => caught(() => openDevice(kernel, DEVICE, { via })));
    expect(refusals.map(({ code, request }) => [code, request])).toEqual([
      ['EPERM', 'VFIO_SET_IOMMU'],
      ['EPERM', 'VFIO_DEVICE_BIND_IOMMUFD'],
    ]);
    expect(refusals[0]?.hint).toContain('vfio_iommu_type1.allow_unsafe_interrupts');
    expect(refusals[1]?.hint).toContain('iommufd.allow_unsafe_interrupts');
    expect(left()).toEqual([0, 0]);
  });
});

describe('a guest on iommufd', () => {
  const guest = { allowUnsafeInterrupts: true, options: { msix: 3 } };

  it.each([
    ['arm-its', 'guest', 0x0809_0040],
    ['arm-v2m', 'guest', 0x0809_0040],
    ['x86', 'bypass', null],
  ] as const)('%s: rule %s, and everything arrives', (name, rule, address) => {
    const host = testHost(name, guest);
    const rig = new GuestRig(host, { iommu: 'iommufd' });
    expect(rig.assignment.doorbell.rule).toBe(rule);
    expect(rig.vm.devices[0]?.device instanceof CdevDevice).toBe(true);
    const served: number[] = [];
    rig.enable(3, (vector) => served.push(vector));
    if (address !== null) expect(msixEntry(host, rig.dev, 2).address).toBe(address);
    for (const vector of [0, 1, 2, 1]) rig.ring(vector);
    expect(served).toEqual([0, 1, 2, 1]);
    expect(countsOf(host.machine.tap)).toMatchObject({ sent: 4, delivered: 4, lost: {} });
    rig.close();
    expect([rig.process.descriptors.length, rig.process.lockedPages]).toEqual([0, 0]);
    expect(rig.dev.iommuGroup!.domain === rig.dev.iommuGroup!.defaultDomain).toBe(true);
  });

  it.each(['type1', 'iommufd'] as const)('%s: the window, an address, and one that is refused', (iommu) => {
    const addressOf = (doorbell: 'window' | number): number => {
      const host = testHost('arm-its', guest);
      const rig = new GuestRig(host, { iommu, doorbell });
      rig.enable(1);
      const { address } = msixEntry(host, rig.dev, 0);
      rig.ring(0);
      expect(countsOf(host.machine.tap)).toMatchObject({ sent: 1, delivered: 1 });
      rig.close();
      return address;
    };
    expect([addressOf('window'), addressOf(0x9000_0000)]).toEqual([0x0800_0040, 0x9000_0040]);
    expect(caught(() => addressOf(0x4000_0000))).toMatchObject({ code: 'EADDRINUSE', request: 'doorbell' });
  });

  it('a guest that is killed leaves no device attached', () => {
    const host = testHost('arm-its', guest);
    const rig = new GuestRig(host, { iommu: 'iommufd' });
    rig.enable(3);
    host.kernel.exit(rig.process);
    expect(rig.process.lockedPages).toBe(0);
    expect(rig.dev.iommuGroup!.dmaOwner).toBeNull();
    const { kernel } = host.process();
    using device = openDevice(kernel, DEVICE, { via: 'iommufd' });
    expect(device.id).toBeGreaterThan(0);
  });
});
