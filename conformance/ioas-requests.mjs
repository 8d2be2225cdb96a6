/** Requests of an IOAS that expect something. */
import * as u from 'belfry/uapi';
import { ioas, K } from './fixtures.mjs';

const M = 0x10_0000;
const RW = u.IOMMU_IOAS_MAP_READABLE | u.IOMMU_IOAS_MAP_WRITEABLE;
const FIXED = u.IOMMU_IOAS_MAP_FIXED_IOVA;

/** An IOAS, four megabytes of memory that begin at a multiple of two, and requests that expect. */
export function ioasFixture(t) {
  const fd = t.open('/dev/iommu');
  return { fd, ...requests(t, fd, ioas(t, fd)) };
}

export function requests(t, fd, ioas_id) {
  const memory = t.memory(4 * M, 2 * M);
  const ask = (what, number, struct, fields, expected) =>
    t.request(what, fd, number, struct, { size: struct.size, ...fields }, expected);
  return {
    ioas: ioas_id,
    memory,
    /** `expected`: an errno, or `{ iova }`. */
    map: (what, fields, expected) =>
      ask(
        what,
        u.IOMMU_IOAS_MAP,
        u.iommu_ioas_map,
        { flags: FIXED | RW, ioas_id, user_va: memory.address, length: K, iova: M, ...fields },
        expected,
      ),
    choose: (what, fields, expected) =>
      ask(
        what,
        u.IOMMU_IOAS_MAP,
        u.iommu_ioas_map,
        { flags: RW, ioas_id, user_va: memory.address, length: K, ...fields },
        expected,
      ),
    unmap: (what, iova, length, expected) =>
      ask(what, u.IOMMU_IOAS_UNMAP, u.iommu_ioas_unmap, { ioas_id, iova, length }, expected),
    copy: (what, fields, expected) =>
      ask(
        what,
        u.IOMMU_IOAS_COPY,
        u.iommu_ioas_copy,
        {
          flags: FIXED | RW,
          src_ioas_id: ioas_id,
          dst_ioas_id: ioas_id,
          src_iova: M,
          dst_iova: 8 * M,
          length: K,
          ...fields,
        },
        expected,
      ),
    allow: (what, ranges, expected, fields = {}) => {
      const list = t.memory(K);
      new BigUint64Array(list.bytes.buffer, list.bytes.byteOffset, 2 * ranges.length).set(ranges.flat().map(BigInt));
      ask(
        what,
        u.IOMMU_IOAS_ALLOW_IOVAS,
        u.iommu_ioas_allow_iovas,
        { ioas_id, num_iovas: ranges.length, allowed_iovas: list.address, ...fields },
        expected,
      );
    },
    /** What IOVA_RANGES tells: `[errno or 0, how many there are, alignment, first and last of those that fit]`. */
    ranges: (room = 8, fields = {}) => {
      const list = t.memory(K);
      const bytes = u.iommu_ioas_iova_ranges.bytes({
        size: 32,
        ioas_id,
        num_iovas: room,
        allowed_iovas: list.address,
        ...fields,
      });
      const result = t.kernel.ioctl(fd, u.IOMMU_IOAS_IOVA_RANGES, bytes);
      const { num_iovas, out_iova_alignment } = u.iommu_ioas_iova_ranges.read(bytes);
      const words = new BigUint64Array(list.bytes.buffer, list.bytes.byteOffset, 2 * Math.min(num_iovas, room));
      return [result < 0 ? u.errnoName(result) : 0, num_iovas, out_iova_alignment, Array.from(words)];
    },
  };
}
