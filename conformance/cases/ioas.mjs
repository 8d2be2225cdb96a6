/** An IOAS without a device: what may be mapped, where the kernel puts what has no place, copies, allowed ranges. */
import * as u from 'belfry/uapi';
import { K } from '../fixtures.mjs';
import { ioasFixture } from '../ioas-requests.mjs';
import { suite } from '../suite.mjs';

const SOURCE = 'drivers/iommu/iommufd';
const MAX = 2n ** 64n - 1n;
const READ = u.IOMMU_IOAS_MAP_READABLE;
const RW = READ | u.IOMMU_IOAS_MAP_WRITEABLE;
const FIXED = u.IOMMU_IOAS_MAP_FIXED_IOVA;
const M = 0x10_0000;

suite('IOAS_MAP', { needs: ['iommufd'], source: SOURCE, fixture: ioasFixture }, (add) => {
  const branch = 'ioas.c iommufd_ioas_map';
  add('EOPNOTSUPP: unknown flags, the reserved field, before EOVERFLOW', branch, (_t, { map }) => {
    map('flag 8', { flags: FIXED | RW | 8, iova: MAX }, 'EOPNOTSUPP');
    map('reserved', { __reserved: 1, iova: MAX }, 'EOPNOTSUPP');
  });
  add('EOVERFLOW: an address or a length of all ones', branch, (_t, { map }) => {
    map('IOVA', { iova: MAX }, 'EOVERFLOW');
    map('length', { length: MAX }, 'EOVERFLOW');
    map('both, and no access', { iova: MAX, flags: FIXED }, 'EOVERFLOW');
  });
  add('EINVAL: neither read nor write, before ENOENT', branch, (_t, { map }) => {
    map('no access', { flags: FIXED, ioas_id: 99 }, 'EINVAL');
  });
  add('ENOENT: no such IOAS', branch, (_t, { map }) => {
    map('99', { ioas_id: 99 }, 'ENOENT');
    map('99, length 0', { ioas_id: 99, length: 0 }, 'ENOENT');
  });
  add('EINVAL: length 0', 'io_pagetable.c iopt_alloc_area_pages', (_t, { map }) => {
    map('it', { length: 0 }, 'EINVAL');
  });
  const check = 'io_pagetable.c iopt_check_iova';
  add('EOVERFLOW: the range wraps', check, (_t, { map }) => {
    map('by a page', { iova: MAX - 4095n, length: 2 * K }, 'EOVERFLOW');
  });
  add('EEXIST: anything of it is mapped', check, (_t, { map }) => {
    map('first', { length: 2 * K }, { iova: BigInt(M) });
    map('its second page', { iova: M + K }, 'EEXIST');
    map('around it', { iova: M - K, length: 4 * K }, 'EEXIST');
    map('right behind', { iova: M + 2 * K }, 0);
  });
  add('without a device a byte is enough, anywhere', check, (_t, { map, memory }) => {
    map('one byte', { length: 1 }, 0);
    map('at an odd place', { length: 1, iova: M + 1, user_va: memory.address + 1 }, 0);
    map('another place in the page', { length: 16, iova: M + 2 * K, user_va: memory.address + 8 }, 0);
  });
  add('IOVA 0, and the last page of 64 bits', check, (_t, { map }) => {
    map('0', { iova: 0 }, { iova: 0n });
    map('the last', { iova: MAX - 4095n }, { iova: MAX - 4095n });
  });
  add(
    'without a device nothing is pinned: memory that is not there is taken',
    'pages.c iopt_area_fill_domains',
    (_t, { map }) => {
      map('page 1', { user_va: K }, 0);
    },
  );
  add('write only and read only', branch, (_t, { map }) => {
    map('write', { flags: FIXED | u.IOMMU_IOAS_MAP_WRITEABLE }, 0);
    map('read', { flags: FIXED | READ, iova: 2 * M }, 0);
  });
});

suite('an IOVA chosen by the kernel', {
  needs: ['iommufd'],
  source: `${SOURCE}/io_pagetable.c`,
  fixture: ioasFixture,
}, (add) => {
  const branch = 'iopt_alloc_iova';
  add('never 0; the lowest that fits', branch, (_t, { choose }) => {
    choose('first', {}, { iova: 0x1000n });
    choose('second', {}, { iova: 0x2000n });
  });
  add('aligned to the length, as far as the memory is', branch, (_t, { choose, memory }) => {
    choose('16 KiB', { length: 4 * K, user_va: memory.address + 4 * K }, { iova: 0x4000n });
    choose('16 KiB, memory at a page', { length: 4 * K, user_va: memory.address + K }, { iova: 0x8000n });
    choose('2 MiB', { length: 2 * M }, { iova: 0x20_0000n });
  });
  add('keeps the place in the page', branch, (_t, { choose, memory }) => {
    choose('0x123', { length: 0x10, user_va: memory.address + 0x123 }, { iova: 0x1123n });
  });
  add('a hole between two maps is filled', branch, (_t, { map, choose }) => {
    map('page 1', { iova: K }, 0);
    map('page 3', { iova: 3 * K }, 0);
    choose('between', {}, { iova: 0x2000n });
    choose('behind', {}, { iova: 0x4000n });
  });
  add('EOVERFLOW: half of all addresses', branch, (_t, { choose }) => {
    choose('2^63', { length: 2n ** 63n }, 'EOVERFLOW');
  });
  add('only in ranges that are allowed, else ENOSPC', branch, (_t, { allow, choose, map }) => {
    allow(
      'two',
      [
        [M, 2 * M - 1],
        [4 * M, 5 * M - 1],
      ],
      0,
    );
    choose('a page', {}, { iova: BigInt(M) });
    choose('a megabyte', { length: M }, { iova: BigInt(4 * M) });
    choose('two', { length: 2 * M }, 'ENOSPC');
    map('a fixed one lies where it wants', { iova: 8 * M }, 0);
  });
});

suite('IOAS_UNMAP', { needs: ['iommufd'], source: SOURCE, fixture: ioasFixture }, (add) => {
  const branch = 'io_pagetable.c iopt_unmap_iova_range';
  add('ENOENT: no such IOAS', 'ioas.c iommufd_ioas_unmap', (_t, { unmap }) => {
    unmap('nothing mapped', M, K, 'ENOENT');
  });
  add('everything, also of nothing', 'io_pagetable.c iopt_unmap_all', (_t, { map, unmap }) => {
    unmap('of nothing', 0, MAX, { length: 0n });
    map('one', {}, 0);
    map('another', { iova: 8 * M, length: 2 * K }, 0);
    unmap('all', 0, MAX, { length: 0x3000n });
  });
  add('EINVAL: length 0; EOVERFLOW: all ones, or wrapping', 'ioas.c iommufd_ioas_unmap', (_t, { unmap }) => {
    unmap('length 0', M, 0, 'EINVAL');
    unmap('all ones', M, MAX, 'EOVERFLOW');
    unmap('wrapping', MAX - 4095n, 2 * K, 'EOVERFLOW');
  });
  add('ENOENT: it would cut a mapping', branch, (_t, { map, unmap }) => {
    map('two pages', { length: 2 * K }, 0);
    unmap('the first', M, K, 'ENOENT');
    unmap('the second', M + K, K, 'ENOENT');
    unmap('both', M, 2 * K, { length: 0x2000n });
  });
  add('holes around and between are fine', branch, (_t, { map, unmap }) => {
    map('one', {}, 0);
    map('another', { iova: M + 4 * K }, 0);
    unmap('with room around', M - K, 8 * K, { length: 0x2000n });
    unmap('then', M - K, 8 * K, 'ENOENT');
  });
});

suite('IOAS_COPY', { needs: ['iommufd'], source: SOURCE, fixture: ioasFixture }, (add) => {
  const branch = 'ioas.c iommufd_ioas_copy';
  add('EOPNOTSUPP: unknown flags; EOVERFLOW: all ones', branch, (_t, { copy }) => {
    copy('flag 8', { flags: FIXED | RW | 8, length: MAX }, 'EOPNOTSUPP');
    copy('length', { length: MAX }, 'EOVERFLOW');
    copy('destination', { dst_iova: MAX }, 'EOVERFLOW');
  });
  add('ENOENT: no such IOAS, or the source is not mapped', branch, (_t, { copy, map }) => {
    copy('nothing there', {}, 'ENOENT');
    map('a page', {}, 0);
    copy('two', { length: 2 * K }, 'ENOENT');
    copy('from none', { src_ioas_id: 99 }, 'ENOENT');
    copy('into none', { dst_ioas_id: 99 }, 'ENOENT');
  });
  add('EPERM: writable of what is read only', 'io_pagetable.c iopt_map_pages', (_t, { copy, map }) => {
    map('read only', { flags: FIXED | READ }, 0);
    copy('writable', {}, 'EPERM');
    copy('readable', { flags: FIXED | READ }, 0);
  });
  add('EEXIST: onto another', 'io_pagetable.c iopt_map_pages', (_t, { copy, map }) => {
    map('a page', {}, 0);
    copy('onto itself', { dst_iova: M }, 'EEXIST');
  });
  add('to a place that the kernel chooses', branch, (_t, { copy, map }) => {
    map('a page', {}, 0);
    copy('chosen', { flags: RW, dst_iova: 0 }, { dst_iova: 0x1000n });
  });
  add('several mappings as one', branch, (_t, { copy, map }) => {
    map('one', {}, 0);
    map('its neighbour', { iova: M + K }, 0);
    copy('both', { length: 2 * K }, { dst_iova: BigInt(8 * M) });
  });
});

suite('IOVA ranges', { needs: ['iommufd'], source: `${SOURCE}/ioas.c`, fixture: ioasFixture }, (add) => {
  const branch = 'iommufd_ioas_iova_ranges';
  add('of an IOAS without a device: all, by bytes', branch, (t, { ranges }) => {
    t.same('it', ranges(), [0, 1, 1n, [0n, MAX]]);
  });
  add('EMSGSIZE: without room, and how many there are', branch, (t, { ranges }) => {
    t.same('room for none', ranges(0), ['EMSGSIZE', 1, 1n, []]);
  });
  add('EOPNOTSUPP, ENOENT, EFAULT', branch, (t, { ranges }) => {
    t.same('reserved field', ranges(8, { __reserved: 1, ioas_id: 99 })[0], 'EOPNOTSUPP');
    t.same('no such IOAS', ranges(8, { ioas_id: 99 })[0], 'ENOENT');
    t.same('a bad pointer', ranges(8, { allowed_iovas: 8 })[0], 'EFAULT');
  });
  const allowed = 'iommufd_ioas_allow_iovas';
  add('ALLOW_IOVAS: EINVAL overlapping, backwards, of one byte', 'iommufd_ioas_load_iovas', (_t, { allow }) => {
    allow(
      'overlapping',
      [
        [M, 2 * M],
        [2 * M, 3 * M],
      ],
      'EINVAL',
    );
    allow('backwards', [[2 * M, M]], 'EINVAL');
    allow('one byte', [[M, M]], 'EINVAL');
  });
  add('ALLOW_IOVAS: EOPNOTSUPP, ENOENT, EFAULT', allowed, (_t, { allow }) => {
    allow('reserved field', [[0, 1]], 'EOPNOTSUPP', { __reserved: 1 });
    allow('no such IOAS', [[0, 1]], 'ENOENT', { ioas_id: 99 });
    allow('a bad pointer', [[0, 1]], 'EFAULT', { allowed_iovas: 8 });
  });
  add('ALLOW_IOVAS does not change what IOVA_RANGES tells', allowed, (t, { allow, ranges }) => {
    allow('one', [[M, 2 * M - 1]], 0);
    t.same('ranges', ranges(), [0, 1, 1n, [0n, MAX]]);
  });
  add('ALLOW_IOVAS of nothing allows everything', allowed, (_t, { allow, choose }) => {
    allow('one', [[M, 2 * M - 1]], 0);
    allow('none', [], 0);
    choose('a page', {}, { iova: 0x1000n });
  });
});
