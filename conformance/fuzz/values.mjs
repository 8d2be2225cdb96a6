/** Values that calls are made of: mostly what is right, and next to it what is not. */
import fc from 'fast-check';

export const K = 0x1000;
/** Memory that is mapped stands behind what structs point to. */
const MAPPED = 0x1_0000;

/** `[weight, arbitrary or constant]`… */
export const weighted = (...choices) =>
  fc.oneof(
    ...choices.map(([weight, choice]) => ({
      weight: Math.ceil(weight * 10),
      arbitrary: typeof choice?.generate === 'function' ? choice : fc.constant(choice),
    })),
  );
export const of = (...values) => fc.constantFrom(...values);
/** Mostly the first; one in `rarity` of the others. */
export const mostly = (value, rarity, ...others) => weighted([rarity - 1, value], [1, of(...others)]);

export const pages = (least, most) => fc.integer({ min: least, max: most }).map((count) => count * K);

/** Addresses of this process: a page of it, rarely one inside a page or one that is not there. */
export const address = weighted(
  [40, fc.integer({ min: 0, max: 63 }).map((page) => `mem ${MAPPED + page * K}`)],
  [2, fc.integer({ min: 0, max: 63 }).map((page) => `mem ${MAPPED + page * K + 0x10}`)],
  [1, of(0, 8, '0xfffffffffffff000', '0xffff000000000000')],
);
/** Where a struct has its array or its data. */
export const pointer = (offset) => mostly(`mem ${offset}`, 25, 0, 8, '0xfffffffffffff000');

/** I/O addresses: few, so that they meet; the platform's MSI range and the ends. */
export const iova = (window) =>
  weighted(
    [12, fc.integer({ min: 0, max: 14 }).map((page) => page * K)],
    [6, fc.integer({ min: 0, max: 12 }).map((page) => 0x10_0000 + page * K)],
    [3, fc.integer({ min: -4, max: 3 }).map((page) => window.start + page * K)],
    [3, fc.integer({ min: -4, max: 3 }).map((page) => window.end + 1 + page * K)],
    [1, fc.integer({ min: -4, max: 3 }).map((page) => 2 ** 48 + page * K)],
    [1, fc.integer({ min: -3, max: 3 }).map((page) => 2 ** 39 + page * K)],
    [1, of('0xffffffffffffffff', '0xfffffffffffff000', '0xffffffffffffe000', '0x7ffffffffffff000')],
    [1, fc.integer({ min: 0, max: 0x4_0000 })],
  );
export const size = weighted(
  [20, pages(1, 6)],
  [2, of(0, 1, 0x10, 0x800, 0x1800)],
  [1, of('0xffffffffffffffff', '0xfffffffffffff000', '0x8000000000000000')],
);
/** What takes a range away may be larger than any mapping. */
export const span = weighted([8, size], [2, of(0x1_0000, 0x4_0000, 0x20_0000)]);

/** argsz of a struct, often a little too small or too large. */
export const argsz = (right) =>
  weighted(
    [24, right],
    [2, fc.integer({ min: Math.max(0, right - 9), max: right + 24 })],
    [1, of(0, 1, 8, 12, 16, 20, 24, 32, 64, 128, 0xffff_ffff)],
  );
/** size of a request of iommufd. What is behind the struct is read. */
export const sizeof = (right) =>
  weighted([40, right], [1, fc.integer({ min: Math.max(0, right - 12), max: right + 40 })], [1, of(0, 4, 8, 12, 200)]);

export const reserved = weighted([40, 0], [1, of(1, 0xffff_ffff)]);
export const reserved16 = weighted([40, 0], [1, of(1, 0xffff)]);

/** The number of an object: mostly one of the kind. */
export const id = (kind) =>
  weighted(
    [16, fc.nat({ max: 3 }).map((n) => `id ${kind} ${n}`)],
    [1, fc.constantFrom('ioas', 'hwpt', 'dev', 'viommu', 'vdevice', 'nested').map((other) => `id ${other} 0`)],
    [1, fc.nat({ max: 12 })],
  );

export const bytes = (least, most) =>
  fc
    .array(weighted([2, 0], [2, 0xff], [3, fc.nat({ max: 255 })]), { minLength: least, maxLength: most })
    .map((list) => Buffer.from(list).toString('hex'));

export const eventfd = of('fd e0', 'fd e1', 'fd e2', 'fd e3');
/** -1 is no eventfd, on purpose; the others are wrong. */
export const anyEventfd = weighted([16, eventfd], [3, -1], [1, of(-2, 9999, 'fd c0', 'fd i0')]);
