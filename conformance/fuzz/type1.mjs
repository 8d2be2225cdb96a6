/** Calls of containers, groups and type1; the same requests of a context of iommufd. */
import fc from 'fast-check';
import { ask, close, open, plain } from './calls.mjs';
import { address, argsz, iova, mostly, of, pointer, size, span, weighted } from './values.mjs';

const BITMAP = 0x8000;
const container = weighted([12, 'c0'], [1, 'c1'], [2, 'i0']);
const group = (model) => mostly(`g-${model}`, 12, 'c0', 'g-edu');

export const groupCalls = (model) => [
  [2, open('c0', 'container')],
  [1, open('c1', 'container')],
  [2, open(`g-${model}`, `group ${model}`)],
  [0.5, of('c1', 'c1', 'c0', `g-${model}`, `d-${model}`).chain(close)],
  [2, ask('VFIO_GROUP_GET_STATUS', group(model), 'vfio_group_status', { argsz: argsz(8) })],
  [4, fc.record(setContainer(model))],
  [0.6, plain('VFIO_GROUP_UNSET_CONTAINER', group(model), fc.constant(0))],
  [4, getDevice(model)],
  [3, plain('VFIO_SET_IOMMU', container, of(3, 3, 3, 1, 0, 2, 7, 8, 10))],
  [2, plain('VFIO_CHECK_EXTENSION', container, fc.nat({ max: 14 }))],
  [1, plain('VFIO_GET_API_VERSION', mostly('c0', 6, 'i0', 'c1', `g-${model}`, `d-${model}`), of(0, 1))],
];

function setContainer(model) {
  const fd = weighted([8, 'fd c0'], [2, 'fd c1'], [2, 'fd i0'], [1, of(-1, 9999, `fd g-${model}`, 'fd e0')]);
  return {
    op: fc.constant('ioctl'),
    fd: group(model),
    request: fc.constant('VFIO_GROUP_SET_CONTAINER'),
    tail: fd.map((one) => [one]),
  };
}

function getDevice(model) {
  return fc.record({
    op: fc.constant('ioctl'),
    fd: group(model),
    request: fc.constant('VFIO_GROUP_GET_DEVICE_FD'),
    tail: weighted([8, fc.constant([`name ${model}`])], [1, of(['name igb'], '', '303030303a30303a30352e3000')]),
    as: fc.constant(`d-${model}`),
  });
}

export function containerCalls(window) {
  const where = iova(window);
  return [
    [2, ask('VFIO_IOMMU_GET_INFO', container, 'vfio_iommu_type1_info', { argsz: weighted([3, argsz(24)], [3, 200]) })],
    [
      12,
      ask('VFIO_IOMMU_MAP_DMA', container, 'vfio_iommu_type1_dma_map', {
        argsz: argsz(32),
        flags: weighted([12, 3], [2, of(1, 2)], [1, of(0, 4, 5, 7, 8)]),
        vaddr: address,
        iova: where,
        size,
      }),
    ],
    [5, unmap(where, of(0, 0, 0, 2, 4, 6, 8))],
    [2, unmap(where, of(1, 1, 3, 5))],
    [
      1,
      ask(
        'VFIO_IOMMU_DIRTY_PAGES',
        container,
        'vfio_iommu_type1_dirty_bitmap',
        { argsz: argsz(8), flags: of(1, 2, 1, 2, 0, 3, 4, 8) },
        { tail: '' },
      ),
    ],
    [3, dirty(where)],
    [
      1,
      plain(of('VFIO_IOMMU_ENABLE', 'VFIO_IOMMU_DISABLE', 'VFIO_DEVICE_RESET', '0x3b99', '0x5401'), container, of(0)),
    ],
  ];
}

const bitmap = fc.tuple(
  weighted([10, of('0x1000')], [1, of('0x800', '0x2000', '0x0', '0x200000')]),
  weighted([10, of('0x8', '0x40')], [1, of('0x0', '0x1', '0x1000', '0xffffffffffffffff', '0x4000000')]),
  pointer(BITMAP).map((one) => (typeof one === 'number' ? `0x${one.toString(16)}` : one)),
);

const unmap = (where, which) =>
  fc.tuple(which, bitmap).chain(([bits, tail]) =>
    ask(
      'VFIO_IOMMU_UNMAP_DMA',
      container,
      'vfio_iommu_type1_dma_unmap',
      {
        argsz: argsz(bits & 1 ? 48 : 24),
        flags: bits,
        iova: weighted([4, where], [bits & 2 ? 12 : 1, 0]),
        size: weighted([4, span], [bits & 2 ? 12 : 1, 0]),
      },
      bits & 1 ? { tail, peek: [BITMAP, 16], poke: [BITMAP, '00'.repeat(16)] } : {},
    ),
  );

const word = (arbitrary) => arbitrary.map((value) => `0x${BigInt(value).toString(16)}`);
const dirty = (where) =>
  ask(
    'VFIO_IOMMU_DIRTY_PAGES',
    container,
    'vfio_iommu_type1_dirty_bitmap',
    { argsz: argsz(48), flags: mostly(4, 12, 5, 6, 7) },
    {
      tail: fc
        .tuple(word(where), word(weighted([3, span], [3, 0x1_0000])), bitmap)
        .map(([from, length, rest]) => [from, length, ...rest]),
      poke: [BITMAP, '00'.repeat(16)],
      peek: [BITMAP, 16],
    },
  );
