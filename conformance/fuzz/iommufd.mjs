/** Calls of /dev/iommu, of a device's cdev, and of a stage 1 that user space owns. */
import fc from 'fast-check';
import { ask, close, open } from './calls.mjs';
import {
  address,
  argsz,
  id,
  iova,
  K,
  mostly,
  of,
  pointer,
  reserved,
  reserved16,
  size,
  sizeof,
  span,
  weighted,
} from './values.mjs';

const LIST = 0x4000;
const DATA = 0xc000;
const context = mostly('i0', 12, 'i1');

export const contextCalls = [
  [2, open('i0', 'iommufd')],
  [1, open('i1', 'iommufd')],
  [0.4, of('i1', 'i1', 'i1', 'i0').chain(close)],
];

export function ioasCalls(window) {
  const where = iova(window);
  const ioas_id = id('ioas');
  return [
    [
      3,
      ask(
        'IOMMU_IOAS_ALLOC',
        context,
        'iommu_ioas_alloc',
        { size: sizeof(12), flags: reserved },
        { keep: ['ioas', 'out_ioas_id'] },
      ),
    ],
    [
      14,
      fc.boolean().chain((fixed) =>
        ask('IOMMU_IOAS_MAP', context, 'iommu_ioas_map', {
          size: sizeof(40),
          flags: weighted([20, 6], [3, of(4, 2)], [1, of(0, 8)]).map((bits) => bits | (fixed ? 1 : 0)),
          ioas_id,
          __reserved: reserved,
          user_va: address,
          length: size,
          iova: fixed ? where : 0,
        }),
      ),
    ],
    [6, ask('IOMMU_IOAS_UNMAP', context, 'iommu_ioas_unmap', { size: sizeof(24), ioas_id, ...unmapped(where) })],
    [
      6,
      ask('IOMMU_IOAS_COPY', context, 'iommu_ioas_copy', {
        size: sizeof(40),
        flags: weighted([10, 7], [8, 6], [4, of(5, 3, 4)], [1, of(1, 9)]),
        dst_ioas_id: ioas_id,
        src_ioas_id: ioas_id,
        length: size,
        dst_iova: where,
        src_iova: weighted([6, of(0, K, 2 * K, 0x10_0000)], [2, where]),
      }),
    ],
    [2, allow(ioas_id)],
    [
      2,
      ask(
        'IOMMU_IOAS_IOVA_RANGES',
        context,
        'iommu_ioas_iova_ranges',
        { size: sizeof(32), ioas_id, num_iovas: of(0, 1, 2, 8), __reserved: reserved, allowed_iovas: pointer(LIST) },
        { poke: [LIST, '00'.repeat(64)], peek: [LIST, 64] },
      ),
    ],
    [
      2,
      ask('IOMMU_OPTION', context, 'iommu_option', {
        size: sizeof(24),
        option_id: weighted([4, 1], [3, 0], [1, of(2, 0xffff_ffff)]),
        op: of(0, 1, 1, 2),
        __reserved: reserved16,
        object_id: weighted([3, ioas_id], [2, 0]),
        val64: of(0, 1, 2, '0xffffffffffffffff'),
      }),
    ],
    [
      4,
      ask('IOMMU_DESTROY', context, 'iommu_destroy', {
        size: sizeof(8),
        id: of('ioas', 'hwpt', 'dev', 'viommu', 'vdevice', 'nested', 'fault', 'eventq').chain(id),
      }),
    ],
    [
      2,
      ask('IOMMU_VFIO_IOAS', context, 'iommu_vfio_ioas', {
        size: sizeof(12),
        ioas_id,
        op: of(0, 1, 1, 2, 3),
        __reserved: reserved16,
      }),
    ],
    [
      1,
      ask(of('IOMMU_IOAS_CHANGE_PROCESS'), context, 'iommu_ioas_change_process', {
        size: sizeof(8),
        __reserved: reserved,
      }),
    ],
    [1, ask(of('0x3b7f', '0x3b95', '0x3ba0', '0x3b40'), context, 'iommu_destroy', { size: sizeof(8), id: 0 })],
  ];
}

const unmapped = (where) => ({
  iova: weighted([8, where], [1, 0]),
  length: weighted([8, span], [1, '0xffffffffffffffff']),
});

const le64 = (value) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer).toString('hex');
const range = fc
  .tuple(fc.nat({ max: 63 }), fc.integer({ min: 0, max: 64 }), mostly(-1, 8, 0, 1, -2))
  .map(([from, count, by]) => [from * K, BigInt.asUintN(64, BigInt((from + count) * K + by))]);
const allow = (ioas_id) =>
  fc.array(range, { maxLength: 3 }).chain((ranges) =>
    ask(
      'IOMMU_IOAS_ALLOW_IOVAS',
      context,
      'iommu_ioas_allow_iovas',
      {
        size: sizeof(24),
        ioas_id,
        num_iovas: mostly(ranges.length, 10, 4),
        __reserved: reserved,
        allowed_iovas: pointer(LIST),
      },
      { poke: [LIST, ranges.flat().map(le64).join('').padEnd(128, '0')] },
    ),
  );

export function cdevCalls(model) {
  const device = fc.constant(`d-${model}`);
  const table = weighted([5, id('ioas')], [5, id('hwpt')], [4, id('nested')]);
  return [
    [1, open(`d-${model}`, `cdev ${model}`)],
    [0.15, close(`d-${model}`)],
    [
      2,
      ask(
        'VFIO_DEVICE_BIND_IOMMUFD',
        device,
        'vfio_device_bind_iommufd',
        {
          argsz: sizeof(16),
          flags: mostly(0, 20, 1, 2),
          iommufd: mostly('fd i0', 8, 'fd i1', -1, 9999, 'fd c0', 'fd e0'),
        },
        { keep: ['dev', 'out_devid'] },
      ),
    ],
    [
      7,
      ask(
        'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
        device,
        'vfio_device_attach_iommufd_pt',
        { argsz: argsz(12), flags: mostly(0, 20, 1, 2), pt_id: table, pasid: mostly(0, 20, 1) },
        { keep: ['hwpt', 'pt_id'] },
      ),
    ],
    [
      2,
      ask('VFIO_DEVICE_DETACH_IOMMUFD_PT', device, 'vfio_device_detach_iommufd_pt', {
        argsz: argsz(8),
        flags: mostly(0, 20, 1, 2),
      }),
    ],
  ];
}

export function hwptCalls(window) {
  const dev_id = id('dev');
  return [
    [
      5,
      ask(
        'IOMMU_HWPT_ALLOC',
        context,
        'iommu_hwpt_alloc',
        {
          size: weighted([3, sizeof(40)], [3, sizeof(48)]),
          flags: weighted([6, 0], [3, 1], [2, of(2, 4, 8, 3, 9, 16)]),
          dev_id,
          pt_id: weighted([8, id('ioas')], [1, id('hwpt')]),
          __reserved: reserved,
          data_type: mostly(0, 20, 1, 2, 3),
          data_len: mostly(0, 20, 16, 8),
          data_uptr: mostly(0, 10, `mem ${DATA}`),
          fault_id: mostly(0, 8, 'id fault 0', 1),
          __reserved2: reserved,
        },
        { keep: ['hwpt', 'out_hwpt_id'] },
      ),
    ],
    [
      2,
      ask('IOMMU_GET_HW_INFO', context, 'iommu_hw_info', {
        size: weighted([3, sizeof(40)], [1, sizeof(32)]),
        flags: mostly(0, 6, 1, 2),
        dev_id,
        data_len: of(0, 4, 40, 64, 128),
        data_uptr: pointer(DATA),
        in_data_type: mostly(0, 6, 1, 2, 3, 4),
      }),
    ],
    [
      1,
      ask('IOMMU_HWPT_SET_DIRTY_TRACKING', context, 'iommu_hwpt_set_dirty_tracking', {
        size: sizeof(16),
        flags: of(0, 1, 2),
        hwpt_id: id('hwpt'),
        __reserved: reserved,
      }),
    ],
    [
      1,
      ask('IOMMU_HWPT_GET_DIRTY_BITMAP', context, 'iommu_hwpt_get_dirty_bitmap', {
        size: sizeof(48),
        hwpt_id: id('hwpt'),
        flags: of(0, 0, 1, 2),
        __reserved: reserved,
        iova: iova(window),
        length: size,
        page_size: mostly(K, 8, 0, 0x800, 0x2000),
        data: pointer(0x8000),
      }),
    ],
    [
      1,
      ask(
        'IOMMU_FAULT_QUEUE_ALLOC',
        context,
        'iommu_fault_alloc',
        { size: sizeof(16), flags: reserved },
        { keep: ['fault', 'out_fault_id'], masked: ['out_fault_fd'], as: 'fault' },
      ),
    ],
    [1, of('fault', 'eventq').chain(close)],
    [1, fc.record({ op: fc.constant('read'), fd: of('fault', 'eventq'), length: of(0, 1, 7, 8, 40, 64, 65) })],
    [
      1,
      fc.record({
        op: fc.constant('write'),
        fd: of('fault', 'eventq'),
        bytes: of('', '00', '00'.repeat(8), '00'.repeat(16)),
      }),
    ],
  ];
}

export function nestingCalls() {
  const dev_id = id('dev');
  const viommu_id = id('viommu');
  return [
    [
      3,
      ask(
        'IOMMU_VIOMMU_ALLOC',
        context,
        'iommu_viommu_alloc',
        {
          size: weighted([3, sizeof(40)], [1, sizeof(24)]),
          flags: reserved,
          type: mostly(1, 8, 0, 2, 9),
          dev_id,
          hwpt_id: id('hwpt'),
          data_len: mostly(0, 20, 8),
          __reserved: reserved,
          data_uptr: mostly(0, 10, `mem ${DATA}`),
        },
        { keep: ['viommu', 'out_viommu_id'] },
      ),
    ],
    [
      3,
      ask(
        'IOMMU_VDEVICE_ALLOC',
        context,
        'iommu_vdevice_alloc',
        {
          size: sizeof(24),
          viommu_id,
          dev_id,
          virt_id: weighted([6, of(0, 1, 0x42)], [1, of('0xffffffff', '0x100000000', '0xffffffffffffffff')]),
        },
        { keep: ['vdevice', 'out_vdevice_id'] },
      ),
    ],
    [
      2,
      ask(
        'IOMMU_VEVENTQ_ALLOC',
        context,
        'iommu_veventq_alloc',
        {
          size: sizeof(32),
          flags: reserved,
          viommu_id,
          type: mostly(1, 8, 0, 2, 3),
          veventq_depth: weighted([6, 16], [1, of(0, 1, 2 ** 19, 2 ** 19 + 1)]),
          __reserved: reserved,
        },
        { keep: ['eventq', 'out_veventq_id'], masked: ['out_veventq_fd'], as: 'eventq' },
      ),
    ],
    [6, nestedTable(dev_id)],
    [6, invalidate()],
    [
      1,
      ask('IOMMU_HW_QUEUE_ALLOC', context, 'iommu_hw_queue_alloc', {
        size: sizeof(40),
        flags: reserved,
        viommu_id,
        type: of(0, 1, 2),
        index: of(0, 1),
        nesting_parent_iova: of(0, K),
        length: of(0, K),
      }),
    ],
  ];
}

/** V, Config, S1Fmt, S1CDMax; EATS and what is the kernel's. */
const entryWord0 = weighted(
  [8, of(0n, 1n, 9n, 0xbn, 0x4000_000bn, 0x4000_002bn, 0x800_0000_4000_000bn)],
  [3, fc.nat({ max: 15 }).map((config) => BigInt(config) | 0x4000_0000n)],
  [1, fc.nat({ max: 63 }).map((bit) => 9n | (1n << BigInt(bit)))],
);
const entryWord1 = weighted([8, of(0n, 1n << 28n)], [1, fc.nat({ max: 63 }).map((bit) => 1n << BigInt(bit))]);
const nestedTable = (dev_id) =>
  ask(
    'IOMMU_HWPT_ALLOC',
    context,
    'iommu_hwpt_alloc',
    {
      size: mostly(48, 8, 40, 44),
      flags: mostly(0, 10, 1, 2, 4, 8),
      dev_id,
      pt_id: id('viommu'),
      data_type: mostly(2, 12, 0, 1, 3),
      data_len: weighted([12, 16], [2, of(0, 8, 15, 17, 24, 32)]),
      data_uptr: pointer(DATA),
      fault_id: mostly(0, 12, 'id fault 0'),
    },
    {
      poke: fc.tuple(entryWord0, entryWord1).map(([a, b]) => [DATA, (le64(a) + le64(b)).padEnd(64, '0')]),
      keep: ['nested', 'out_hwpt_id'],
    },
  );

const command = fc
  .tuple(
    weighted(
      [6, of(0x10, 0x11, 0x12, 0x13, 0x30, 0x05, 0x06, 0x40)],
      [2, of(0x01, 0x03, 0x04, 0x20, 0x2a, 0x28, 0x46, 0x44)],
      [1, fc.nat({ max: 255 })],
    ),
    of(0n, 0x42n << 32n, 1n << 32n, 1n << 48n),
    of(0n, 0x700_0000n),
  )
  .map(([opcode, rest, address]) => le64(BigInt(opcode) | rest) + le64(address));
const invalidate = () =>
  fc.array(command, { minLength: 1, maxLength: 3 }).chain((commands) =>
    ask(
      'IOMMU_HWPT_INVALIDATE',
      context,
      'iommu_hwpt_invalidate',
      {
        size: sizeof(32),
        hwpt_id: weighted([10, id('viommu')], [1, id('nested')], [1, id('hwpt')]),
        data_uptr: pointer(DATA),
        data_type: mostly(1, 12, 0, 2),
        entry_len: weighted([12, 16], [1, of(0, 8, 15, 24, 5000)]),
        entry_num: mostly(commands.length, 12, 0, 2 ** 20),
        __reserved: reserved,
      },
      { poke: [DATA, commands.join('').padEnd(256, '0')] },
    ),
  );
