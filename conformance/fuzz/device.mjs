/** Calls of a device: what it says, interrupts, regions, configuration space, features. */
import fc from 'fast-check';
import { ask, close, plain } from './calls.mjs';
import { anyEventfd, argsz, bytes, eventfd, mostly, of, reserved, weighted } from './values.mjs';

const REGION = 2 ** 40;
const CONFIG = 7 * REGION;
/**
 * Interrupts by index, and the capabilities: where each begins and ends. What belongs to none is memory in QEMU, and stays as it was written for whoever comes
 * next: it is read, and not written.
 */
const SHAPE = {
  edu: { counts: [1, 1, 0, 0, 1], config: 0x100, capabilities: [[0x40, 0x4e]] },
  nvme: {
    counts: [1, 0, 65, 1, 1],
    config: 0x1000,
    capabilities: [
      [0x40, 0x4c],
      [0x60, 0x68],
      [0x80, 0xbc],
    ],
  },
  igb: {
    counts: [1, 1, 10, 1, 1],
    config: 0x1000,
    capabilities: [
      [0x40, 0x48],
      [0x50, 0x68],
      [0x70, 0x7c],
      [0xa0, 0xdc],
      [0x100, 0x148],
      [0x150, 0x158],
      [0x160, 0x1a0],
    ],
  },
};
const HEADER = [0, 0x40];

export function deviceCalls(model) {
  const device = fc.constant(`d-${model}`);
  return [
    [0.2, close(`d-${model}`)],
    [2, ask('VFIO_DEVICE_GET_INFO', device, 'vfio_device_info', { argsz: argsz(24) })],
    [
      3,
      ask('VFIO_DEVICE_GET_REGION_INFO', device, 'vfio_region_info', {
        argsz: weighted([3, argsz(32)], [2, 128]),
        index: weighted([20, fc.nat({ max: 9 })], [1, of(0xffff_ffff, 0x100)]),
      }),
    ],
    [2, ask('VFIO_DEVICE_GET_IRQ_INFO', device, 'vfio_irq_info', { argsz: argsz(16), index: fc.nat({ max: 6 }) })],
    [14, setIrqs(device, SHAPE[model])],
    [3, fc.record({ op: fc.constant('signal'), fd: of('e0', 'e1', 'e2'), bytes: signals })],
    [6, configRead(device, SHAPE[model])],
    [6, configWrite(device, SHAPE[model])],
    [2, regionRead(device, model)],
    [4, feature(device)],
    [2, ioeventfd(device)],
    [model === 'edu' ? 1 : 0.2, plain('VFIO_DEVICE_RESET', device, of(0))],
    [1, hotReset(device)],
    [1, plain(of('VFIO_DEVICE_QUERY_GFX_PLANE', 'VFIO_DEVICE_GET_GFX_DMABUF', '0x3b90', '0x3bff'), device, of(0))],
  ];
}

/** 1 mostly; nothing, and what an eventfd does not take. */
const signals = weighted(
  [8, of('0100000000000000')],
  [1, of('0300000000000000', '0000000000000000', 'ffffffffffffffff', '01')],
);

function setIrqs(device, { counts }) {
  const index = weighted([10, 0], [16, counts[2] > 0 ? 2 : 1], [3, 1], [1, of(0, 1, 2, 3, 4, 4, 4, 5)]);
  return index.chain((chosen) => {
    const have = counts[chosen] ?? 0;
    const some = Math.min(3, Math.max(have, 1));
    const count = weighted([20, fc.integer({ min: 1, max: some })], [6, 0], [1, have], [1, of(have + 1, 3)]);
    const start = weighted(
      [24, 0],
      [6, fc.nat({ max: some - 1 })],
      [1, of(Math.max(have - 1, 0), have, 3, 0xffff_ffff)],
    );
    const data = weighted([30, 4], [12, 1], [12, 2], [1, of(0, 3, 8)]);
    const action =
      chosen === 0 ? weighted([20, 32], [8, 8], [8, 16], [1, 0]) : weighted([30, 32], [1, of(0, 8, 16, 24, 40, 56)]);
    return fc.tuple(count, start, data, action).chain(([number, from, kind, what]) => {
      const tail =
        kind === 4
          ? fc.array(anyEventfd, { minLength: number, maxLength: number })
          : kind === 2
            ? fc.array(of('00', '01', 'ff'), { minLength: number, maxLength: number }).map((list) => list.join(''))
            : fc.constant('');
      const right = 20 + (kind === 4 ? 4 * number : kind === 2 ? number : 0);
      return ask(
        'VFIO_DEVICE_SET_IRQS',
        device,
        'vfio_irq_set',
        {
          argsz: mostly(right, 25, right - 1, right + 3, 19, 20, 0),
          flags: kind | what,
          index: chosen,
          start: from,
          count: number,
        },
        { tail },
      );
    });
  });
}

/** A place for `length` bytes: inside the header or a capability; a read may be anywhere. */
const within = (length) => (place) =>
  fc.integer({ min: place[0], max: Math.max(place[0], place[1] - length) }).map((offset) => aligned(offset, length));
const aligned = (offset, length) => (length === 2 || length === 4 ? offset - (offset % length) : offset);
const written = ({ capabilities }, length) => of(HEADER, ...capabilities, ...capabilities).chain(within(length));
const readable = (shape, length) =>
  weighted(
    [12, written(shape, Math.min(length, 8))],
    [1, fc.nat({ max: 0xff })],
    [1, fc.nat({ max: shape.config + 8 })],
  );

const configRead = (device, shape) =>
  weighted([3, 1], [3, 2], [4, 4], [1, of(3, 8, 16, 64)]).chain((length) =>
    fc.record({
      op: fc.constant('pread'),
      fd: device,
      offset: readable(shape, length).map((offset) => CONFIG + offset),
      length: fc.constant(length),
    }),
  );

const configWrite = (device, shape) =>
  weighted([3, bytes(1, 1)], [4, bytes(2, 2)], [4, bytes(4, 4)], [1, bytes(1, 8)]).chain((data) =>
    fc.record({
      op: fc.constant('pwrite'),
      fd: device,
      offset: written(shape, data.length / 2).map((offset) => CONFIG + offset),
      bytes: fc.constant(data),
    }),
  );

/** edu's identification and liveness; of the others only how much is read of what is not there. */
function regionRead(device, model) {
  const region = fc.record({
    op: fc.constant('pread'),
    fd: device,
    offset: fc
      .tuple(weighted([4, model === 'edu' ? 1 : 6], [1, of(6, 8, 9, 10)]), of(0, 4, 2, 0x1000))
      .map(([index, at]) => index * REGION + at),
    length: of(1, 2, 4, 8, 12),
  });
  if (model !== 'edu') return region;
  const own = fc.record({ op: fc.constant('pread'), fd: device, offset: of(0, 4), length: of(4) });
  const written = fc.record({ op: fc.constant('pwrite'), fd: device, offset: of(4), bytes: bytes(4, 4) });
  const end = fc.record({
    op: fc.constant('pread'),
    fd: device,
    offset: of(0x10_0000 - 4, 0x10_0000, 0x10_0004),
    length: of(4, 8),
  });
  return weighted([3, own], [2, written], [1, end], [2, region]);
}

/** Ids of Linux and one of nobody's. DMA_BUF depends on the kernel's configuration, an entry to low power on when it takes effect. */
const feature = (device) =>
  ask(
    'VFIO_DEVICE_FEATURE',
    device,
    'vfio_device_feature',
    {
      argsz: weighted([6, 64], [2, argsz(8)], [2, argsz(12)]),
      flags: fc
        .tuple(
          weighted([6, of(0, 1, 2, 5, 6, 9, 10, 12)], [1, of(13, 0x7777)], [4, 10]),
          fc.nat({ max: 7 }),
          mostly(0, 30, 8, 0x800),
        )
        .map(([id, how, beyond]) => (id | (how << 16) | (beyond << 16)) >>> 0),
    },
    { tail: of('00000000', '01000000', '02000000', 'ffffffff') },
  );

/**
 * On what no harm comes of being written: edu's liveness, what cannot be written of the others. edu takes 4 and 8 bytes only: QEMU answers a shorter access
 * with an abort, which Linux on Arm does not survive.
 */
const ioeventfd = (device) => {
  const fields = (flags, offset) =>
    ask(
      'VFIO_DEVICE_IOEVENTFD',
      device,
      'vfio_device_ioeventfd',
      {
        argsz: argsz(40),
        flags,
        offset,
        data: of(0, 1),
        fd: weighted([4, 'fd e3'], [2, eventfd], [2, -1], [1, of(-2, 9999, 'fd c0')]),
        reserved,
      },
      { raw: [] },
    );
  const elsewhere = of(0x10_0000, CONFIG, 6 * REGION, REGION, 9 * REGION);
  return weighted([6, fields(4, 4)], [1, fields(8, 0)], [3, fields(of(0, 1, 2, 4, 8, 3, 5, 16), elsewhere)]);
};

const hotReset = (device) =>
  fc.oneof(
    ask('VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', device, 'vfio_pci_hot_reset_info', { argsz: argsz(12) }, { tail: '' }),
    ask(
      'VFIO_DEVICE_PCI_HOT_RESET',
      device,
      'vfio_pci_hot_reset',
      { argsz: argsz(16), flags: mostly(0, 8, 1), count: of(0, 1, 1, 2, 3) },
      { tail: of(['fd g-edu'], ['fd g-nvme'], [-1], ['fd c0', 'fd g-edu']) },
    ),
  );
