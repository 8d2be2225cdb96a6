/** What a caller of the library gets wrong: one kind of error that names the field, and nothing is changed by it. */
import { describe, expect, it } from 'vitest';
import { createDevice } from '../src/devices/index.ts';
import { bootLinux } from '../src/kernel/index.ts';
import { Machine, preset } from '../src/machine/index.ts';
import { CdevDevice, Hwpt, Ioas, Iommufd, MemoryFile, Nested, openDevice, VfioError } from '../src/vfio/index.ts';

const BDF = '0000:01:00.0';

/** What JavaScript, or data from a file, hands over in place of a number. */
const NO_NUMBERS: readonly unknown[] = [Number.NaN, -1, 1.5, 2 ** 53, Infinity, '4096', true, {}, null, 2n ** 64n, -1n];
const NO_CHOICES: readonly unknown[] = ['', 'MSI', 0, null, {}];
const NO_OBJECTS: readonly unknown[] = [1, '1', null, {}];

function world() {
  const { kernel } = bootLinux(new Machine(preset('arm-its'), createDevice)).process();
  const iommufd = Iommufd.open(kernel);
  const ioas = Ioas.create(iommufd);
  const device = CdevDevice.open(kernel, BDF);
  device.bind(iommufd);
  device.attach(ioas);
  const { iova, address } = ioas.mapDma({ length: 0x1_0000, iova: 0x10_0000 });
  return { kernel, iommufd, ioas, device, iova, address };
}

function nestedWorld() {
  const made = world();
  return { ...made, nested: Nested.attach(made.device, made.ioas, { streamId: 0x42 }) };
}

function trackedWorld() {
  const made = world();
  return { ...made, hwpt: Hwpt.create(made.device, made.ioas, { dirtyTracking: true }) };
}

function containerWorld() {
  const { kernel } = bootLinux(new Machine(preset('arm-its'), createDevice)).process();
  return { space: openDevice(kernel, BDF).container };
}

/** `given` stands where the types of the library let only numbers, names or objects of its own. */
function refusal(call: () => unknown): VfioError {
  try {
    call();
  } catch (error) {
    expect(error, String(error)).toBeInstanceOf(VfioError);
    return error as VfioError;
  }
  throw new Error('nothing was refused');
}

/** One of each kind for all cases: what is refused changes nothing. */
const worlds = new Map<() => unknown, unknown>();

function each<W>(make: () => W, call: (world: W, given: never) => unknown, given: readonly unknown[], field: string) {
  if (!worlds.has(make)) worlds.set(make, make());
  const made = worlds.get(make) as W;
  for (const value of given) {
    const error = refusal(() => call(made, value as never));
    expect([error.code, error.field], `${String(value)}: ${error.message}`).toEqual(['EINVAL', field]);
  }
}

describe('numbers that no request can carry', () => {
  const fixed = NO_NUMBERS.filter((value) => value !== null);
  it.each<[string, string, (w: ReturnType<typeof world>, v: never) => unknown, (readonly unknown[])?]>([
    ['Ioas.map: iova', 'iova', (w, v) => w.ioas.map(v, w.address, 4096), fixed],
    ['Ioas.map: address', 'user_va', (w, v) => w.ioas.map(0, v, 4096)],
    ['Ioas.map: length', 'length', (w, v) => w.ioas.map(0, w.address, v)],
    ['Ioas.mapDma: length', 'length', (w, v) => w.ioas.mapDma({ length: v })],
    ['Ioas.mapDma: iova', 'iova', (w, v) => w.ioas.mapDma({ length: 4096, iova: v })],
    ['Ioas.unmap: iova', 'iova', (w, v) => w.ioas.unmap(v, 4096)],
    ['Ioas.unmap: length', 'length', (w, v) => w.ioas.unmap(0x10_0000, v)],
    ['Ioas.copy: from', 'src_iova', (w, v) => w.ioas.copy(w.ioas, v, 4096)],
    ['Ioas.copy: length', 'length', (w, v) => w.ioas.copy(w.ioas, 0x10_0000, v)],
    ['Ioas.copy: iova', 'dst_iova', (w, v) => w.ioas.copy(w.ioas, 0x10_0000, 4096, { iova: v })],
    ['Ioas.allow: start', 'allowed_iovas[0].start', (w, v) => w.ioas.allow([{ start: v, end: 4095 }])],
    ['Ioas.allow: end', 'allowed_iovas[1].last', (w, v) => w.ioas.allow([world0, { start: 0x1_0000, end: v }])],
    ['MemoryFile: length', 'length', (w, v) => MemoryFile.create(w.kernel, { length: v })],
    ['attach: pasid', 'pasid', (w, v) => w.device.attach(w.ioas, { pasid: v })],
    ['detach: pasid', 'pasid', (w, v) => w.device.detach({ pasid: v })],
    ['doorbell.set: iova', 'iova', (w, v) => w.device.doorbell.set({ iova: v })],
    ['doorbell.set: size', 'size', (w, v) => w.device.doorbell.set({ iova: 0x9000_0000, size: v }), fixed],
    ['doorbell.set: start', 'start', (w, v) => w.device.doorbell.set({ iova: 0x9000_0000, start: v, count: 1 })],
    ['doorbell.get', 'start', (w, v) => w.device.doorbell.get(v)],
    ['msix.enable', 'count', (w, v) => w.device.msix.enable(v)],
    ['msix.enable: minimum', 'minimum', (w, v) => w.device.msix.enable(1, { minimum: v })],
    ['msix.program: start', 'start', (w, v) => w.device.msix.program(v, [-1])],
    ['region', 'index', (w, v) => w.device.region(v)],
    ['region.read32', 'offset', (w, v) => w.device.region(0).read32(v)],
    ['region.read: length', 'length', (w, v) => w.device.region(0).read(0, v)],
    ['feature', 'flags', (w, v) => w.device.feature(v)],
  ])('%s', (_, field, call, given = NO_NUMBERS) => each(world, call, given, field));

  it.each<[string, string, (w: ReturnType<typeof nestedWorld>, v: never) => unknown]>([
    ['map: iova', 'iova', (w, v) => w.nested.map(v, w.iova, 4096)],
    ['map: ipa', 'ipa', (w, v) => w.nested.map(0x20_0000, v, 4096)],
    ['map: length', 'length', (w, v) => w.nested.map(0x20_0000, w.iova, v)],
    ['unmap: iova', 'iova', (w, v) => w.nested.unmap(v, 4096)],
    ['unmap: length', 'length', (w, v) => w.nested.unmap(0x20_0000, v)],
    ['lookup', 'iova', (w, v) => w.nested.lookup(v)],
    ['doorbell.set: iova', 'iova', (w, v) => w.nested.doorbell.set({ iova: v })],
    ['invalidate', 'cmd[0]', (w, v) => w.nested.invalidate([[v, 0n]])],
  ])('of a stage 1: %s', (_, field, call) =>
    // Words of commands have 64 bits.
    each(nestedWorld, call, field === 'cmd[0]' ? [Number.NaN, -1n, 2n ** 64n, '1'] : NO_NUMBERS, field),
  );

  it.each<[string, string, (w: ReturnType<typeof trackedWorld>, v: never) => unknown]>([
    ['pageSize', 'page_size', (w, v) => w.hwpt.readDirty({ pageSize: v })],
    ['iova', 'iova', (w, v) => w.hwpt.readDirty({ range: { iova: v, length: 4096 } })],
    ['length', 'length', (w, v) => w.hwpt.readDirty({ range: { iova: 0x10_0000, length: v } })],
  ])('of readDirty: %s', (name, field, call) =>
    each(
      trackedWorld,
      call,
      name === 'pageSize' ? [0, ...NO_NUMBERS.filter((v) => v !== null)] : [...NO_NUMBERS],
      field,
    ),
  );

  it.each<[string, string, (w: ReturnType<typeof containerWorld>, v: never) => unknown, (readonly unknown[])?]>([
    ['map: iova', 'iova', (w, v) => w.space.map(v, 0x1000, 4096), fixed],
    ['map: address', 'vaddr', (w, v) => w.space.map(0, v, 4096)],
    ['map: length', 'size', (w, v) => w.space.map(0, 0x1000, v)],
    ['mapDma: length', 'length', (w, v) => w.space.mapDma({ length: v })],
    ['unmap: iova', 'iova', (w, v) => w.space.unmap(v, 4096)],
    ['unmap: length', 'size', (w, v) => w.space.unmap(0, v)],
    ['hasExtension', 'extension', (w, v) => w.space.hasExtension(v)],
  ])('of a container: %s', (_, field, call, given = NO_NUMBERS) => each(containerWorld, call, given, field));

  it('a file descriptor that would be another one in 32 bits', () => {
    each(world, (w, v) => w.device.msix.program(0, [v]), [2 ** 32 - 1, 2 ** 53 - 1, 1.5, '3', 3n], 'fds[0]');
  });

  it('stream ids and depths, before anything is made', () => {
    const { device, ioas } = world();
    for (const streamId of [2 ** 32, -1, Number.NaN])
      expect(refusal(() => Nested.attach(device, ioas, { streamId })).field).toBe('virt_id');
    expect(refusal(() => Nested.attach(device, ioas, { events: 1.5 })).field).toBe('veventq_depth');
    expect(refusal(() => Nested.attach(device, ioas, { window: { start: Number.NaN, end: 1 } })).field).toBe(
      'window.start',
    );
  });
});

/** The first of two ranges that may be allowed. */
const world0 = { start: 0, end: 4095 };

describe('words and objects that are none', () => {
  it.each<[string, string, (w: ReturnType<typeof world>, v: never) => unknown]>([
    ['access', 'access', (w, v) => w.ioas.map(0, w.address, 4096, v)],
    ['kind of a doorbell', 'kind', (w, v) => w.device.doorbell.set({ iova: 0x9000_0000, kind: v })],
    ['kind of interrupts', 'kind', (w, v) => w.device.interrupts(v)],
    ['via', 'via', (w, v) => openDevice(w.kernel, BDF, { via: v })],
  ])('%s', (_, field, call) => each(world, call, NO_CHOICES, field));

  it.each<[string, string, (w: ReturnType<typeof nestedWorld>, v: never) => unknown]>([
    ['kind of a mapping', 'kind', (w, v) => w.nested.map(0x20_0000, w.iova, 4096, v)],
    ['kind of a doorbell', 'kind', (w, v) => w.nested.doorbell.set({ iova: 0x9000_0000, kind: v })],
    ['carrier', 'by', (w, v) => w.nested.doorbell.set({ iova: 0x9000_0000, by: v })],
  ])('of a stage 1: %s', (_, field, call) => each(nestedWorld, call, NO_CHOICES, field));

  it.each<[string, string, (w: ReturnType<typeof world>, v: never) => unknown]>([
    ['Ioas.create', 'iommufd', (_, v) => Ioas.create(v)],
    ['Ioas.copy', 'src_ioas_id', (w, v) => w.ioas.copy(v, 0x10_0000, 4096)],
    ['Ioas.allow', 'allowed_iovas', (w, v) => w.ioas.allow(v)],
    ['Ioas.mapFile', 'fd', (w, v) => w.ioas.mapFile(v)],
    ['bind', 'iommufd', (w, v) => w.device.bind(v)],
    ['replace', 'pt_id', (w, v) => w.device.replace(v)],
    ['Hwpt.create', 'pt_id', (w, v) => Hwpt.create(w.device, v)],
    ['Hwpt.create: device', 'dev_id', (w, v) => Hwpt.create(v, w.ioas)],
    ['bind: token', 'token_uuid_ptr', (w, v) => w.device.bind(w.iommufd, { token: v })],
    ['exportDmaBuf', 'dma_ranges', (w, v) => w.device.exportDmaBuf(4, v === null ? ('' as never) : v)],
    ['msix.program', 'fds', (w, v) => w.device.msix.program(0, v)],
  ])('%s', (_, field, call) => each(world, call, NO_OBJECTS, field));

  it('a name that is none', () => {
    const { kernel } = world();
    expect(refusal(() => openDevice(kernel, 5 as never)).message).toBe(
      'openDevice: EINVAL: expected a name such as "0000:01:00.0", got 5 (name)',
    );
  });
});

describe('an object of another iommufd, whose id means something else here', () => {
  function two() {
    const made = world();
    const other = Iommufd.open(made.kernel);
    const foreign = Ioas.create(other);
    // The ids are the same: the kernel alone could not tell.
    expect(foreign.id).toBe(made.ioas.id);
    return { ...made, other, foreign };
  }

  it('is not attached to, and the device stays where it was', () => {
    const { device, ioas, foreign } = two();
    const error = refusal(() => device.replace(foreign));
    expect([error.code, error.field]).toEqual(['ENOENT', 'pt_id']);
    expect([device.table === ioas, foreign.devices.length]).toEqual([true, 0]);
    device.detach();
    expect(refusal(() => device.attach(foreign)).message).toBe(
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT: ENOENT: IOAS 1 belongs to another iommufd than device 0000:01:00.0 (pt_id)',
    );
  });

  it('gets no page table for a device that is bound elsewhere, or nowhere', () => {
    const { device, foreign, kernel } = two();
    expect(refusal(() => Hwpt.create(device, foreign)).message).toContain('is bound to another iommufd (dev_id)');
    expect(refusal(() => Nested.attach(device, foreign)).message).toContain('is bound to another iommufd (dev_id)');
    device.close();
    const fresh = CdevDevice.open(kernel, BDF);
    expect(refusal(() => Hwpt.create(fresh, foreign)).message).toContain('is bound to no iommufd (dev_id)');
  });
});

describe('a refused choice changes nothing', () => {
  it('a doorbell of a stage 1 stays', () => {
    const { nested, device } = nestedWorld();
    const before = nested.doorbell.set({ iova: 0x7_1234_5000 });
    refusal(() => nested.doorbell.set({ iova: Number.NaN }));
    refusal(() => nested.doorbell.set({ iova: 0x9000_0000, by: 'magic' as never }));
    nested.map(0x20_0000, 0x10_0000, 4096);
    expect(refusal(() => nested.doorbell.set({ iova: 0x20_0040 })).message).toBe(
      'nested doorbell: EEXIST: stage 1 maps 0x0020_0000 to 0x0010_0000 (iova); choose another',
    );
    expect(nested.doorbell.state).toBe(before);
    expect(nested.lookup(0x7_1234_5000)).toBe(before.window);
    device.close();
  });

  it('an IOVA may be a bigint wherever it is taken', () => {
    const { ioas } = world();
    expect(ioas.copy(ioas, 0x10_0000n, 4096, { iova: 0x20_0000n })).toBe(0x20_0000);
    expect(ioas.unmap(0x20_0000n, 4096)).toBe(4096);
  });

  it('a range that ends behind the page table is asked for up to its end', () => {
    const { hwpt } = trackedWorld();
    expect(hwpt.readDirty({ range: { iova: 0, length: 2 ** 52 }, pageSize: 2 ** 30 })).toEqual([]);
  });
});
