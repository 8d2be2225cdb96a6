/**
 * The 19 rules of the user-given doorbell (docs/doorbell.md) on whole hosts, over both ways to a device: its group in a container with type1, and its own
 * file attached to an IOAS. Where the two differ the rule has tests of its own, and says why.
 */
import { describe, expect, it } from 'vitest';
import { presetInput } from '../src/machine/presets.ts';
import {
  VFIO_DEVICE_FEATURE_BELFRY_DOORBELL as DOORBELL,
  vfio_device_feature_belfry_doorbell as layout,
} from '../src/uapi/belfry.ts';
import { CdevDevice, Container, type Device, Ioas, Iommufd, Nested, openDevice, VfioError } from '../src/vfio/index.ts';
import { DEVICE, type TestHostOptions, testHost } from './support/host.ts';
import { msiMessage, msixEntry } from './support/messages.ts';

const PAGE = 4096;
const MSI = 1;
const MSIX = 2;
const SECOND = '0000:02:00.0';
const IOVA = 0x900_0000;
const WINDOW = 0x800_0000;
/** GITS_TRANSLATER of the preset. */
const TRANSLATER = 0x5081_0040;

const PATHS = [
  ['group and type1', 'container'],
  ['cdev and IOAS', 'iommufd'],
] as const;
type Via = (typeof PATHS)[number][1];

interface Given {
  readonly flags?: number;
  readonly index?: number;
  readonly start?: number;
  readonly count?: number;
  readonly iova?: number | bigint;
  readonly size?: number | bigint;
}

const payload = ({ flags = 0, index = MSIX, start = 0, count = 0, iova = IOVA, size = PAGE }: Given): Uint8Array =>
  layout.bytes({ flags, index, start, count, iova: BigInt(iova), size: BigInt(size) });

/** `EINVAL iova`, or what was returned. */
function answer(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    if (error instanceof VfioError) return error.field === undefined ? error.code : `${error.code} ${error.field}`;
    throw error;
  }
}

const set = (device: Device, given: Given = {}) => answer(() => device.feature(DOORBELL).set(payload(given)));
const get = (device: Device, given: Given = {}) =>
  answer(() => {
    const { flags, iova, size } = layout.read(device.feature(DOORBELL).get(payload({ iova: 0, size: 0, ...given })));
    return { flags, iova: Number(iova), size: Number(size) };
  });

function bed(via: Via, options: TestHostOptions = {}, preset: Parameters<typeof testHost>[0] = 'arm-its') {
  const slots = ['01.0', '02.0'].map((at) => {
    const model = { device: options.device ?? 'bell', options: options.options ?? { msix: 4 } };
    const below = [{ at: '00.0', kind: 'function' as const, ...model }];
    return { at, kind: 'root-port' as const, acs: true, below };
  });
  const pci = { ...presetInput(preset).pci, slots };
  const host = testHost(preset, { abi: 'belfry', ...options, input: { ...options.input, pci } });
  const { kernel, process } = host.process();
  const pciDevice = (name: string) => host.pciDevices.find((each) => each.name === name)!;
  const open = (name = DEVICE, into?: Container | Ioas): Device => {
    const device = openDevice(kernel, name, into ?? { via });
    device.config.busMaster = true;
    return device;
  };
  /** Another address space of the same kind. */
  const another = (): Container | Ioas =>
    via === 'container' ? Container.open(kernel) : Ioas.create(Iommufd.open(kernel));
  const domain = (name = DEVICE) =>
    host.groups!.groups.find(({ devices }) => devices.includes(pciDevice(name)))!.domain;
  const entry = (vector: number, name = DEVICE) => msixEntry(host, pciDevice(name), vector);
  const ring = (vector: number, name = DEVICE): void => {
    host.machine.pci.function(name)!.raise(vector);
    kernel.settle();
  };
  const memory = kernel.allocate(4 * PAGE);
  if (typeof memory === 'number') throw new Error('no memory');
  const map = (device: Device, iova: number, length = PAGE) =>
    answer(() => device.space.map(iova, memory.address, length));
  const covers = (device: Device, iova: number) =>
    device.space.ranges().some(({ start, end }) => start <= iova && iova <= end);
  return { host, kernel, process, pciDevice, open, another, domain, entry, ring, map, covers, memory };
}

describe.each(PATHS)('on the path %s', (_name, via) => {
  it('rule 1: one call; with abi linux-7.2 ENOTTY, even the probe', () => {
    const device = bed(via).open();
    expect([device.doorbell.probe(), device.feature(DOORBELL).supports('get'), set(device)]).toEqual([true, true, 0]);
    const plain = bed(via, { abi: 'linux-7.2' }).open();
    expect([plain.doorbell.probe(), set(plain), get(plain)]).toEqual([false, 'ENOTTY flags', 'ENOTTY flags']);
  });

  it('rule 2: 32 bytes, flags 0', () => {
    const device = bed(via).open();
    const short = answer(() => device.feature(DOORBELL).set(payload({}).subarray(0, 31)));
    expect([short, set(device, { flags: 1, index: 0 }), get(device, { flags: 2 })]).toEqual([
      'EINVAL argsz',
      'EINVAL flags',
      'EINVAL flags',
    ]);
    expect([set(device, { index: 0, start: 9 }), set(device, { index: 3 })]).toEqual(['EINVAL index', 'EINVAL index']);
  });

  it('rule 3: vectors, or the default; size 0 clears, and what was never set too', () => {
    const device = bed(via).open();
    expect(set(device, { start: 2, count: 2, size: 0 })).toBe(0);
    expect([set(device), set(device, { start: 1, count: 2, iova: 0xa00_0000 })]).toEqual([0, 0]);
    const iovas = () => [0, 1, 2, 3].map((start) => (get(device, { start }) as { iova: number }).iova);
    expect(iovas()).toEqual([IOVA, 0xa00_0000, 0xa00_0000, IOVA]);
    expect([
      set(device, { start: 4, count: 1 }),
      set(device, { start: 3, count: 2 }),
      set(device, { start: 1 }),
    ]).toEqual(['EINVAL start', 'EINVAL count', 'EINVAL start']);
    expect([set(device, { iova: 77, size: 0 }), iovas()]).toEqual([0, [0, 0xa00_0000, 0xa00_0000, 0]]);
  });

  it('rule 4: GET says the message address, ACTIVE once it is allocated, and what a vector would get', () => {
    const device = bed(via).open();
    set(device, { start: 1, count: 1 });
    device.msix.enable(2);
    const answers = [0, 1, 2].map((start) => get(device, { start }));
    const window = { flags: 1, iova: WINDOW + 0x40, size: PAGE };
    expect(answers).toEqual([window, { flags: 1, iova: IOVA + 0x40, size: PAGE }, { flags: 0, iova: 0, size: PAGE }]);
    expect(get(device, { start: 4 })).toBe('EINVAL start');
  });

  it.each([
    [4096, 0x1000],
    [65_536, 0x1_0000],
  ] as const)('rule 5: with pages of %i, multiples of them, and nothing is rounded', (pageSize, granule) => {
    const device = bed(via, { input: { pageSize } }).open();
    expect((get(device) as { size: number }).size).toBe(granule);
    expect([set(device, { iova: IOVA + granule / 2, size: granule }), set(device, { size: granule / 2 })]).toEqual([
      'EINVAL iova',
      'EINVAL size',
    ]);
    expect(set(device, { size: granule })).toBe(0);
  });

  it('rule 6: EOVERFLOW where it wraps, EINVAL outside of the aperture; its last page is fine', () => {
    const device = bed(via).open();
    expect(set(device, { iova: 2n ** 64n - 0x1000n, size: 0x2000 })).toBe('EOVERFLOW size');
    expect(set(device, { iova: 2n ** 48n })).toBe('EINVAL iova');
    expect(set(device, { iova: 2n ** 48n - 0x1000n, size: 0x2000 })).toBe('EINVAL size');
    expect(set(device, { iova: 2n ** 48n - 0x1000n })).toBe(0);
  });

  it('rule 7: MSI has one address', () => {
    const { open, pciDevice } = bed(via, { options: { msix: 0, msi: 4 } });
    const device = open();
    const index = MSI;
    expect([set(device, { index, count: 1 }), set(device, { index, start: 1, count: 3 })]).toEqual([
      'EINVAL count',
      'EINVAL start',
    ]);
    expect([set(device, { index, count: 4 }), set(device, { index, size: 0 }), set(device, { index })]).toEqual([
      0, 0, 0,
    ]);
    device.msi.enable(4);
    expect(msiMessage(pciDevice(DEVICE))).toMatchObject({ address: IOVA + 0x40, vectors: 4 });
  });

  it('rule 8: SET reserves, allocation maps', () => {
    const { open, domain, covers } = bed(via);
    const device = open();
    set(device);
    expect([covers(device, IOVA), domain().lookup(IOVA + 0x40)]).toEqual([false, -1]);
    device.msix.enable(1);
    expect(domain().lookup(IOVA + 0x40)).toBe(TRANSLATER);
  });

  it('rule 9: MAP over it is refused, UNMAP passes by, and the vectors ring on', () => {
    const { open, map, ring } = bed(via);
    const device = open();
    set(device);
    const { vectors } = device.msix.enable(1);
    expect([map(device, IOVA), map(device, IOVA - PAGE, 2 * PAGE), map(device, IOVA - PAGE)]).toEqual([
      expect.stringContaining('EINVAL'),
      expect.stringContaining('EINVAL'),
      IOVA - PAGE,
    ]);
    expect([device.space.unmap(IOVA, PAGE), device.space.unmapAll()]).toEqual([0, PAGE]);
    ring(0);
    expect(vectors[0]!.take()).toBe(1);
  });

  it('rule 10: EADDRINUSE over a mapping, part of another range, a page of the window; not over the window that is free', () => {
    const { open, map } = bed(via);
    const device = open();
    const other = open(SECOND, device.space as Container | Ioas);
    map(device, 0xb00_0000);
    expect(set(device, { iova: 0xaff_f000, size: 2 * PAGE })).toBe('EADDRINUSE iova');
    expect([set(device, { size: 2 * PAGE }), set(other), set(other, { size: 2 * PAGE })]).toEqual([
      0,
      'EADDRINUSE iova',
      0,
    ]);
    other.msix.enable(1);
    expect(set(device, { start: 0, count: 1, iova: WINDOW })).toBe(0);
    const third = get(other) as { iova: number };
    expect(third.iova).toBe(IOVA + 0x40);
    set(other, { size: 0 });
    // The window steps over the page that the user has.
    expect(get(other)).toMatchObject({ iova: WINDOW + PAGE + 0x40 });
    expect(set(device, { start: 1, count: 1, iova: WINDOW + PAGE })).toBe('EADDRINUSE iova');
  });

  it('rule 12: one page for each physical page and range; devices share it, and two ranges may lead to one', () => {
    const { open, domain, entry } = bed(via);
    const device = open();
    const other = open(SECOND, device.space as Container | Ioas);
    for (const each of [device, other]) set(each, { size: 2 * PAGE });
    set(device, { start: 3, count: 1, iova: 0xa00_0000 });
    device.msix.enable(4);
    other.msix.enable(1);
    expect([entry(0), entry(3), entry(0, SECOND)].map(({ address }) => address)).toEqual([
      IOVA + 0x40,
      0xa00_0040,
      IOVA + 0x40,
    ]);
    expect([IOVA + 0x40, 0xa00_0040, IOVA + PAGE].map((iova) => domain().lookup(iova))).toEqual([
      TRANSLATER,
      TRANSLATER,
      -1,
    ]);
    device.msix.disable();
    expect(domain(SECOND).lookup(IOVA + 0x40)).toBe(TRANSLATER);
  });

  it('rule 13: in the device’s domain alone', () => {
    const { open, domain, another } = bed(via);
    const device = open();
    const other = open(SECOND, another());
    set(device);
    device.msix.enable(1);
    other.msix.enable(1);
    expect([domain().lookup(IOVA + 0x40), domain(SECOND).lookup(IOVA + 0x40)]).toEqual([TRANSLATER, -1]);
  });

  it('rule 14: EPERM where the page holds more than the frame; the parameter of the path’s own module accepts that', () => {
    const { open, host } = bed(via, { allowUnsafeInterrupts: true, input: { pageSize: 65_536 } }, 'arm-v2m');
    const device = open();
    const { vfio_iommu_type1, iommufd } = host.context.modules;
    const [own, others] = via === 'container' ? [vfio_iommu_type1, iommufd] : [iommufd, vfio_iommu_type1];
    own.allow_unsafe_interrupts = false;
    expect([others.allow_unsafe_interrupts, set(device, { size: 65_536 })]).toEqual([true, 'EPERM iova']);
    own.allow_unsafe_interrupts = true;
    others.allow_unsafe_interrupts = false;
    expect(set(device, { size: 65_536 })).toBe(0);
  });

  it('rule 15: the page goes with its last vector; the window’s stays', () => {
    const { open, domain } = bed(via);
    const device = open();
    set(device, { start: 0, count: 2 });
    device.msix.enable(4);
    device.msix.disable();
    expect([domain().lookup(IOVA + 0x40), domain().lookup(WINDOW + 0x40)]).toEqual([-1, TRANSLATER]);
    expect(device.space.ranges().some(({ start, end }) => start <= IOVA && IOVA <= end)).toBe(false);
  });

  it('rule 16: armed vectors move, all or none, and ring at every place; plain MSI that cannot be masked is EBUSY', () => {
    const { open, entry, ring, domain, map } = bed(via);
    const device = open();
    const { vectors } = device.msix.enable(4);
    map(device, 0xb00_0000);
    for (const iova of [IOVA, 0xa00_0000]) {
      expect(set(device, { iova })).toBe(0);
      for (const [i, vector] of vectors.entries()) {
        ring(i);
        expect([entry(i), vector.take()]).toEqual([{ address: iova + 0x40, data: i, masked: false }, 1]);
      }
    }
    expect([set(device, { iova: 0xb00_0000 }), set(device, { iova: 0xa00_0000, size: 2 * PAGE })]).toEqual([
      'EADDRINUSE iova',
      'EADDRINUSE iova',
    ]);
    expect([entry(3).address, domain().lookup(IOVA + 0x40)]).toEqual([0xa00_0040, -1]);
    // The MSI of a bell has a mask for each message, that of edu none.
    const masked = bed(via, { options: { msix: 0, msi: 1 } });
    const bell = masked.open();
    bell.msi.enable(1);
    expect([set(bell, { index: MSI }), msiMessage(masked.pciDevice(DEVICE)).address]).toEqual([0, IOVA + 0x40]);
    const edu = bed(via, { device: 'edu', options: {} }).open();
    edu.msi.enable(1);
    expect([set(edu, { index: MSI }), set(edu, { index: MSI, size: 0 })]).toEqual(['EBUSY index', 'EBUSY index']);
    edu.msi.disable();
    expect(set(edu, { index: MSI })).toBe(0);
  });

  it('rule 18: ends at clear and at close; a reset rewrites the same message', () => {
    const { open, map, entry, host, process } = bed(via);
    const device = open();
    const keeper = open(SECOND, device.space as Container | Ioas);
    set(device);
    set(device, { size: 0 });
    expect([map(keeper, IOVA), keeper.space.unmap(IOVA, PAGE)]).toEqual([IOVA, PAGE]);
    set(device);
    device.msix.enable(1);
    device.reset();
    expect(entry(0).address).toBe(IOVA + 0x40);
    const { space } = keeper;
    expect(space.ranges().some(({ start, end }) => start <= IOVA && IOVA <= end)).toBe(false);
    device.msix.disable();
    set(device, { size: 0 });
    set(device, { iova: 0xa00_0000 });
    host.kernel.exit(process);
    expect(host.irqs.interrupts().filter(({ action }) => action.startsWith('vfio'))).toEqual([]);
    expect([process.descriptors.length, process.lockedPages]).toEqual([0, 0]);
  });

  it('rule 19: EOPNOTSUPP where the platform bypasses', () => {
    const device = bed(via, {}, 'x86').open();
    expect([set(device), set(device, { size: 0 }), set(device, { start: 9, count: 1 })]).toEqual([
      'EOPNOTSUPP index',
      'EOPNOTSUPP index',
      'EINVAL start',
    ]);
    expect(get(device)).toMatchObject({ flags: 2, iova: 0 });
  });
});

describe('rule 11 differs: a group’s device can be opened in a container only, a cdev before it is attached', () => {
  it('cdev: accepted while it is attached to nothing, EADDRINUSE at the attach, which changes nothing', () => {
    const { kernel, memory } = bed('iommufd');
    const iommufd = Iommufd.open(kernel);
    const ioas = Ioas.create(iommufd);
    const device = CdevDevice.open(kernel, DEVICE);
    device.bind(iommufd);
    ioas.map(IOVA, memory.address, PAGE);
    expect([set(device), answer(() => device.attach(ioas)), device.table]).toEqual([0, 'EADDRINUSE iova', null]);
    ioas.unmap(IOVA, PAGE);
    expect(device.attach(ioas)).toBeGreaterThan(0);
    expect(answer(() => ioas.map(IOVA, memory.address, PAGE))).toContain('EINVAL');
  });
});

describe('rule 17 differs: type1 has no request that replaces a domain', () => {
  it('cdev: installed in the new one before the switch, at the same IOVA, and gone from the old', () => {
    const { open, domain, entry, ring } = bed('iommufd');
    const device = open() as CdevDevice;
    set(device);
    const { vectors } = device.msix.enable(1);
    const old = domain();
    const other = Ioas.create(device.space.iommufd);
    device.replace(other);
    ring(0);
    expect([vectors[0]!.take(), entry(0).address, domain().lookup(IOVA + 0x40)]).toEqual([1, IOVA + 0x40, TRANSLATER]);
    expect(domain()).not.toBe(old);
    expect(other.ranges().some(({ start, end }) => start <= IOVA && IOVA <= end)).toBe(false);
  });
});

describe('rules 18 and 19 on the cdev path alone', () => {
  it('rule 18: a detach ends the reservation, what was given is remembered, and the next attach makes it again', () => {
    const { open, ring, map } = bed('iommufd');
    const device = open() as CdevDevice;
    const ioas = device.space;
    set(device);
    const { vectors } = device.msix.enable(1);
    device.detach();
    expect([get(device), ioas.ranges().length]).toEqual([{ flags: 0, iova: IOVA + 0x40, size: PAGE }, 1]);
    device.attach(ioas);
    ring(0);
    expect([vectors[0]!.take(), map(device, IOVA)]).toEqual([1, expect.stringContaining('EINVAL')]);
  });

  it('rule 19: nested, where PREPARE is the way; a device with a range is not attached to it', () => {
    const { open } = bed('iommufd');
    const device = open() as CdevDevice;
    const nested = Nested.attach(device, device.space);
    expect(set(device)).toBe('EOPNOTSUPP index');
    nested.close();
    const other = bed('iommufd').open() as CdevDevice;
    set(other);
    expect(answer(() => Nested.attach(other, other.space))).toBe('EOPNOTSUPP pt_id');
  });
});
