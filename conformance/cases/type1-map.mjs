/** VFIO_IOMMU_MAP_DMA: its checks in their order, and what may be mapped where. */
import * as u from 'belfry/uapi';
import { find, K, mapDma, owned, s32, unmapDma } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const MAX = 2n ** 64n - 1n;
const IOVA = 0x10_0000;
/** Above every window: room for a gigabyte. */
const HIGH = 2 ** 32;
const READ = u.VFIO_DMA_MAP_FLAG_READ;
const RW = READ | u.VFIO_DMA_MAP_FLAG_WRITE;
const VADDR = u.VFIO_DMA_MAP_FLAG_VADDR;
const SOURCE = 'drivers/vfio/vfio_iommu_type1.c';

/** `map(fields)` and `unmap(fields)` of the container, with a page of memory where nothing else is said. */
const within = (iommu) => (t) => {
  const host = owned('edu', { iommu })(t);
  const memory = t.memory(16 * K);
  const map = (fields) => mapDma(t, host.container, { iova: IOVA, size: K, vaddr: memory.address, ...fields });
  return { ...host, memory, map, unmap: (fields) => unmapDma(t, host.container, fields) };
};

suite('MAP_DMA', { needs: ['type1'], source: SOURCE, fixture: within(3) }, (add) => {
  const checks = 'vfio_iommu_type1_map_dma';
  add('EFAULT: no struct', checks, (t, { container }) => {
    t.result('null', t.kernel.ioctl(container, u.VFIO_IOMMU_MAP_DMA, 0n), 'EFAULT');
  });
  add('EINVAL: argsz below 32', checks, (t, { map }) => {
    t.result('31, size 0', map({ argsz: 31, size: 0 }), 'EINVAL');
    t.result('32', map({ argsz: 32 }), 0);
  });
  add('EINVAL: an unknown flag', checks, (t, { map }) => {
    t.result('bit 3, and wrapping', map({ flags: RW | 8, iova: MAX - 4095n, size: 2 * K }), 'EINVAL');
  });
  const order = 'vfio_dma_do_map';
  add('EINVAL: size 0 before the address wraps', order, (t, { map }) => {
    t.result('size 0', map({ iova: MAX, size: 0 }), 'EINVAL');
  });
  add('EOVERFLOW: IOVA wraps, before it is unaligned', order, (t, { map }) => {
    t.result('by a page', map({ iova: MAX - 4095n, size: 2 * K }), 'EOVERFLOW');
    t.result('unaligned', map({ iova: MAX, size: 3 }), 'EOVERFLOW');
  });
  add('EOVERFLOW: the process’s address wraps', order, (t, { map }) => {
    t.result('by a page', map({ vaddr: MAX - 4095n, size: 2 * K }), 'EOVERFLOW');
    t.result('neither read nor write', map({ vaddr: MAX - 4095n, size: 2 * K, flags: 0 }), 'EOVERFLOW');
  });
  add('EINVAL: neither read nor write', order, (t, { map }) => {
    t.result('flags 0', map({ flags: 0 }), 'EINVAL');
  });
  add('EINVAL: VADDR with read or write', order, (t, { map }) => {
    t.result('all three', map({ flags: RW | VADDR }), 'EINVAL');
    t.result('with read', map({ flags: READ | VADDR }), 'EINVAL');
  });
  add('EINVAL: not in whole pages', order, (t, { map, memory }) => {
    t.result('IOVA', map({ iova: IOVA + 0x800 }), 'EINVAL');
    t.result('size', map({ size: 0x800 }), 'EINVAL');
    t.result('address', map({ vaddr: memory.address + 0x800 }), 'EINVAL');
  });
  add('EEXIST: anything of it is mapped already', order, (t, { map }) => {
    t.result('first', map({ size: 4 * K }), 0);
    t.result('the same', map({ size: 4 * K }), 'EEXIST');
    t.result('its last page', map({ iova: IOVA + 3 * K }), 'EEXIST');
    t.result('over its start', map({ iova: IOVA - K, size: 2 * K }), 'EEXIST');
    t.result('around it', map({ iova: IOVA - K, size: 8 * K }), 'EEXIST');
    t.result('right behind', map({ iova: IOVA + 4 * K }), 0);
    t.result('right before', map({ iova: IOVA - K }), 0);
  });
  add('EEXIST comes before the window', order, (t, { map }) => {
    t.result('below the window', map({ iova: t.window.start - K }), 0);
    t.result('over both', map({ iova: t.window.start - K, size: 2 * K }), 'EEXIST');
  });
  const ranges = 'vfio_iommu_iova_dma_valid';
  add('EINVAL: the first page of the MSI window', ranges, (t, { map }) => {
    t.result('it', map({ iova: t.window.start }), 'EINVAL');
  });
  add('EINVAL: the last page of the MSI window', ranges, (t, { map }) => {
    t.result('it', map({ iova: t.window.end + 1 - K }), 'EINVAL');
  });
  add('EINVAL: across either edge of the MSI window', ranges, (t, { map }) => {
    t.result('start', map({ iova: t.window.start - K, size: 2 * K }), 'EINVAL');
    t.result('end', map({ iova: t.window.end + 1 - K, size: 2 * K }), 'EINVAL');
    t.result('all of it', map({ iova: t.window.start - K, size: t.window.end + 1 - t.window.start + 2 * K }), 'EINVAL');
  });
  add('right below and right above the MSI window', ranges, (t, { map }) => {
    t.result('below', map({ iova: t.window.start - K }), 0);
    t.result('above', map({ iova: t.window.end + 1 }), 0);
  });
  add(
    'the physical doorbell’s page is an IOVA like any other',
    ranges,
    (t, { map }) => {
      t.result(
        'ITS of this machine',
        map({ iova: 0x809_0000 }),
        t.window.start <= 0x809_0000 && t.window.end >= 0x809_0000 ? 'EINVAL' : 0,
      );
    },
    { needs: ['its'] },
  );
  add(
    'the last page of the aperture, and the first behind it',
    ranges,
    (t, { map }) => {
      t.result('last of 48 bits', map({ iova: 2 ** 48 - K }), 0);
      t.result('first of 49', map({ iova: 2 ** 48 }), 'EINVAL');
    },
    { needs: ['arm'] },
  );
  add('IOVA 0 may be mapped', order, (t, { map }) => {
    t.result('it', map({ iova: 0 }), 0);
  });
  const pin = 'vfio_pin_pages_remote';
  add('EFAULT: nothing is mapped there in the process', pin, (t, { map }) => {
    t.result('page 1', map({ vaddr: K }), 'EFAULT');
    t.result('nothing was kept', map({}), 0);
  });
  add('EFAULT: the memory ends early, and all of it is rolled back', pin, (t, { map, unmap, memory }) => {
    const last = t.memory(K);
    const beyond = 64 * 1024 * K;
    t.result('too long', map({ vaddr: last.address, size: beyond, iova: HIGH }), 'EFAULT');
    t.result('nothing left', unmap({ iova: HIGH, size: beyond }), 0);
    t.result('free again', map({ vaddr: memory.address, iova: HIGH }), 0);
  });
  add('the same memory at two IOVAs', order, (t, { map }) => {
    t.result('first', map({}), 0);
    t.result('second', map({ iova: IOVA + K }), 0);
  });
  add('read only and write only', order, (t, { map }) => {
    t.result('read', map({ flags: READ }), 0);
    t.result('write', map({ flags: u.VFIO_DMA_MAP_FLAG_WRITE, iova: IOVA + K }), 0);
  });
  add('VADDR: ENOENT where nothing is mapped', order, (t, { map }) => {
    t.result('it', map({ flags: VADDR }), 'ENOENT');
  });
  add('VADDR: EINVAL of a mapping that was not invalidated', order, (t, { map }) => {
    t.result('map', map({}), 0);
    t.result('it', map({ flags: VADDR }), 'EINVAL');
  });
  add('VADDR: gives an invalidated mapping its memory back', order, (t, { map, unmap }) => {
    t.result('map', map({ size: 2 * K }), 0);
    t.result('invalidate', unmap({ iova: IOVA, size: 2 * K, flags: u.VFIO_DMA_UNMAP_FLAG_VADDR }), 2 * K);
    t.result('a part', map({ flags: VADDR }), 'EINVAL');
    t.result('all', map({ flags: VADDR, size: 2 * K }), 0);
    t.result('again', map({ flags: VADDR, size: 2 * K }), 'EINVAL');
  });
  add(
    'ENOSPC: no more entries than dma_entry_limit',
    order,
    (t, { map, unmap }) => {
      let made = 0;
      while (made < 70_000 && map({ iova: HIGH + made * K }) === 0) made += 1;
      t.same('mappings', made, 65_535);
      t.result('one more', map({ iova: HIGH + made * K }), 'ENOSPC');
      t.result('EEXIST comes before', map({ iova: HIGH }), 'EEXIST');
      t.result('one less', unmap({ iova: HIGH, size: K }), K);
      t.result('and one more', map({}), 0);
    },
    { needs: ['its', 'no-nesting'] },
  );
});

suite('UNMAP_DMA', { needs: ['type1'], source: SOURCE, fixture: within(3) }, (add) => {
  const checks = 'vfio_iommu_type1_unmap_dma';
  const GET = u.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
  const ALL = u.VFIO_DMA_UNMAP_FLAG_ALL;
  add('EFAULT: no struct', checks, (t, { container }) => {
    t.result('null', t.kernel.ioctl(container, u.VFIO_IOMMU_UNMAP_DMA, 0n), 'EFAULT');
  });
  add('EINVAL: argsz, unknown flags', checks, (t, { unmap }) => {
    t.result('argsz 23', unmap({ iova: IOVA, size: K, argsz: 23 }), 'EINVAL');
    t.result('flag 8', unmap({ iova: IOVA, size: K, flags: 8 }), 'EINVAL');
  });
  add('EINVAL: a bitmap together with ALL or VADDR', checks, (t, { unmap }) => {
    t.result('ALL', unmap({ flags: GET | ALL }), 'EINVAL');
    t.result('VADDR', unmap({ iova: IOVA, size: K, flags: GET | u.VFIO_DMA_UNMAP_FLAG_VADDR }), 'EINVAL');
  });
  add('EINVAL: a bitmap, and argsz without room for it', checks, (t, { unmap }) => {
    t.result('argsz 24', unmap({ iova: IOVA, size: K, flags: GET }), 'EINVAL');
  });
  const order = 'vfio_dma_do_unmap';
  add('EINVAL: IOVA or size not in whole pages', order, (t, { unmap }) => {
    t.result('IOVA', unmap({ iova: IOVA + 1, size: K }), 'EINVAL');
    t.result('size', unmap({ iova: IOVA, size: 1 }), 'EINVAL');
  });
  add('EINVAL: size 0', order, (t, { unmap }) => {
    t.result('it', unmap({ iova: IOVA, size: 0 }), 'EINVAL');
  });
  add('EOVERFLOW: the range wraps', order, (t, { unmap }) => {
    t.result('it', unmap({ iova: MAX - 4095n, size: 2 * K }), 'EOVERFLOW');
  });
  add('nothing mapped is 0 and size 0', order, (t, { unmap }) => {
    t.result('it', unmap({ iova: IOVA, size: K }), 0);
  });
  add('EINVAL: it cuts a mapping, at either end', order, (t, { map, unmap }) => {
    t.result('map', map({ size: 4 * K }), 0);
    t.result('first page', unmap({ iova: IOVA, size: K }), 'EINVAL');
    t.result('last page', unmap({ iova: IOVA + 3 * K, size: K }), 'EINVAL');
    t.result('the middle', unmap({ iova: IOVA + K, size: K }), 'EINVAL');
    t.result('from before into it', unmap({ iova: IOVA - K, size: 2 * K }), 'EINVAL');
    t.result('all', unmap({ iova: IOVA, size: 4 * K }), 4 * K);
  });
  add('several mappings at once, with holes between', order, (t, { map, unmap }) => {
    for (const page of [0, 2, 5]) t.result(`map ${page}`, map({ iova: IOVA + page * K }), 0);
    t.result('unmap', unmap({ iova: IOVA - K, size: 16 * K }), 3 * K);
  });
  add('ALL: EINVAL with a range', order, (t, { unmap }) => {
    t.result('IOVA', unmap({ iova: IOVA, flags: ALL }), 'EINVAL');
    t.result('size', unmap({ size: K, flags: ALL }), 'EINVAL');
  });
  add('ALL takes everything away, also nothing', order, (t, { map, unmap }) => {
    t.result('nothing', unmap({ flags: ALL }), 0);
    t.result('map', map({}), 0);
    t.result('map higher', map({ iova: 2 ** 32, size: 2 * K }), 0);
    t.result('all', unmap({ flags: ALL }), 3 * K);
  });
  add(
    'VADDR: EINVAL of what is invalid already, and all that the call marked is valid again',
    order,
    (t, { map, unmap }) => {
      const flags = u.VFIO_DMA_UNMAP_FLAG_VADDR;
      t.result('map', map({}), 0);
      t.result('map next', map({ iova: IOVA + K }), 0);
      t.result('second invalid', unmap({ iova: IOVA + K, size: K, flags }), K);
      t.result('both', unmap({ iova: IOVA, size: 2 * K, flags }), 'EINVAL');
      t.result('the first is still valid', map({ flags: VADDR }), 'EINVAL');
      t.result('the second is not', map({ flags: VADDR, iova: IOVA + K }), 0);
    },
  );
  add('an invalid mapping can be unmapped', order, (t, { map, unmap }) => {
    t.result('map', map({}), 0);
    t.result('invalidate', unmap({ iova: IOVA, size: K, flags: u.VFIO_DMA_UNMAP_FLAG_VADDR }), K);
    t.result('unmap', unmap({ iova: IOVA, size: K }), K);
  });
  add('a group is not attached while a mapping is invalid: EBUSY', 'vfio_iommu_type1_attach_group', (t, host) => {
    t.result('map', host.map({}), 0);
    t.result('invalidate', host.unmap({ iova: IOVA, size: K, flags: u.VFIO_DMA_UNMAP_FLAG_VADDR }), K);
    const other = t.open(`/dev/vfio/${find(t, 'nvme').group}`);
    t.result('SET_CONTAINER', t.kernel.ioctl(other, u.VFIO_GROUP_SET_CONTAINER, s32(host.container)), 'EBUSY');
  });
  add('a bitmap is EINVAL while nothing is tracked', order, (t, { map, container }) => {
    t.result('map', map({}), 0);
    const bitmap = t.memory(K);
    const bytes = new Uint8Array(48);
    bytes.set(u.vfio_iommu_type1_dma_unmap.bytes({ argsz: 48, flags: GET, iova: IOVA, size: K }));
    const view = new DataView(bytes.buffer);
    view.setBigUint64(24, BigInt(K), true);
    view.setBigUint64(32, 8n, true);
    view.setBigUint64(40, BigInt(bitmap.address), true);
    t.result('it', t.kernel.ioctl(container, u.VFIO_IOMMU_UNMAP_DMA, bytes), 'EINVAL');
  });
});

suite('type1 version 1', { needs: ['type1'], source: SOURCE, fixture: within(1) }, (add) => {
  const order = 'vfio_dma_do_unmap';
  add('a range that begins in a mapping takes nothing', order, (t, { map, unmap }) => {
    t.result('map', map({ size: 4 * K }), 0);
    t.result('second page', unmap({ iova: IOVA + K, size: K }), 0);
  });
  add('a range over the start of a mapping takes all of it', order, (t, { map, unmap }) => {
    t.result('map', map({ size: 4 * K }), 0);
    t.result('first page', unmap({ iova: IOVA, size: K }), 4 * K);
    t.result('nothing is left', unmap({ iova: IOVA, size: 4 * K }), 0);
  });
  add('DIRTY_PAGES is EACCES', 'vfio_iommu_type1_dirty_pages', (t, { container }) => {
    const bytes = new Uint8Array(Uint32Array.of(8, u.VFIO_IOMMU_DIRTY_PAGES_FLAG_START).buffer);
    t.result('START', t.kernel.ioctl(container, u.VFIO_IOMMU_DIRTY_PAGES, bytes), 'EACCES');
    t.result(
      'argsz 7',
      t.kernel.ioctl(container, u.VFIO_IOMMU_DIRTY_PAGES, Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0)),
      'EACCES',
    );
  });
});
