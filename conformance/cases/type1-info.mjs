/** VFIO_IOMMU_GET_INFO with its capability chain, and VFIO_IOMMU_DIRTY_PAGES. */
import * as u from 'belfry/uapi';
import { K, mapDma, owned } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const SOURCE = 'drivers/vfio/vfio_iommu_type1.c';
const IOVA = 0x10_0000;

/** GET_INFO with a buffer of `argsz` bytes: what the fields and the chain hold, or the errno's number. */
function info(t, container, argsz) {
  const bytes = new Uint8Array(512);
  new DataView(bytes.buffer).setUint32(0, argsz, true);
  const result = t.kernel.ioctl(container, u.VFIO_IOMMU_GET_INFO, bytes);
  if (result < 0) return { result };
  const view = new DataView(bytes.buffer);
  const fields = u.vfio_iommu_type1_info.read(bytes);
  const chain = [];
  for (let at = fields.cap_offset; at !== 0; at = view.getUint32(at + 4, true))
    chain.push({ at, id: view.getUint16(at, true), version: view.getUint16(at + 2, true) });
  return { result, fields, chain, view, untouched: bytes.subarray(fields.argsz).every((byte) => byte === 0) };
}

suite('IOMMU_GET_INFO', { needs: ['type1'], source: SOURCE, fixture: owned('edu') }, (add) => {
  const branch = 'vfio_iommu_type1_get_info';
  add('EFAULT before EINVAL', branch, (t, { container }) => {
    t.result('null', t.kernel.ioctl(container, u.VFIO_IOMMU_GET_INFO, 0n), 'EFAULT');
    t.result('argsz 15', info(t, container, 15).result, 'EINVAL');
    t.result('argsz 0', info(t, container, 0).result, 'EINVAL');
  });
  add('without room for the chain: its size, the flag, and no offset', branch, (t, { container }) => {
    for (const argsz of [16, 24, 119]) {
      const { fields } = info(t, container, argsz);
      const { flags, cap_offset } = fields;
      t.same(`argsz ${argsz}`, { argsz: fields.argsz, flags, cap_offset }, { argsz: 120, flags: 3, cap_offset: 0 });
    }
  });
  add('page sizes of the IOMMU', 'vfio_update_pgsize_bitmap', (t, { container }) => {
    t.same('4 KiB, 2 MiB, 1 GiB', info(t, container, 24).fields.iova_pgsizes, 0x4020_1000n);
  });
  add('the chain: migration, entries left, IOVA ranges', branch, (t, { container }) => {
    const { chain, untouched } = info(t, container, 120);
    const expected = [
      { at: 24, id: u.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, version: 1 },
      { at: 56, id: u.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1 },
      { at: 72, id: u.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1 },
    ];
    t.same('capabilities', chain, expected);
    t.same('nothing behind', untouched, true);
  });
  add('migration: the smallest page, bitmaps of 256 MiB', 'vfio_iommu_migration_build_caps', (t, { container }) => {
    const { view } = info(t, container, 120);
    t.same('flags', view.getUint32(32, true), 0);
    t.same('pgsize_bitmap', view.getBigUint64(40, true), 0x1000n);
    t.same('max_dirty_bitmap_size', view.getBigUint64(48, true), 0x1000_0000n);
  });
  add('entries left: 65,535, less those that are mapped', 'vfio_iommu_dma_avail_build_caps', (t, { container }) => {
    const memory = t.memory(K);
    const available = () => info(t, container, 120).view.getUint32(64, true);
    t.same('none mapped', available(), 65_535);
    t.result('map', mapDma(t, container, { iova: IOVA, size: K, vaddr: memory.address }), 0);
    t.same('one mapped', available(), 65_534);
  });
  add('IOVA ranges: the aperture without the MSI window', 'vfio_iommu_iova_build_caps', (t, { container }) => {
    const { view } = info(t, container, 120);
    t.same('how many', view.getUint32(80, true), 2);
    const ranges = [88, 104].map((at) => [view.getBigUint64(at, true), view.getBigUint64(at + 8, true)]);
    const last = 2n ** 48n - 1n;
    t.same('which', ranges, [
      [0n, BigInt(t.window.start) - 1n],
      [BigInt(t.window.end) + 1n, last],
    ]);
  });
});

suite('DIRTY_PAGES', { needs: ['type1'], source: SOURCE, fixture: mapped }, (add) => {
  const branch = 'vfio_iommu_type1_dirty_pages';
  const START = u.VFIO_IOMMU_DIRTY_PAGES_FLAG_START;
  const STOP = u.VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP;
  const GET = u.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
  add('EFAULT, EINVAL: argsz, flags', branch, (t, { container, dirty }) => {
    t.result('null', t.kernel.ioctl(container, u.VFIO_IOMMU_DIRTY_PAGES, 0n), 'EFAULT');
    t.result('argsz 7', dirty({ flags: START, argsz: 7 }), 'EINVAL');
    t.result('no flag', dirty({ flags: 0 }), 'EINVAL');
    t.result('unknown flag', dirty({ flags: 8 }), 'EINVAL');
    t.result('two flags', dirty({ flags: START | STOP }), 'EINVAL');
  });
  add('START and STOP may be said again', branch, (t, { dirty }) => {
    for (const flags of [STOP, START, START, STOP, STOP]) t.result(`${flags}`, dirty({ flags }), 0);
  });
  add('GET_BITMAP: EINVAL while nothing is tracked', branch, (t, { dirty }) => {
    t.result('it', dirty({ flags: GET }), 'EINVAL');
  });
  add('GET_BITMAP: every page is dirty to an IOMMU that does not track', 'vfio_iova_dirty_bitmap', (t, host) => {
    t.result('START', host.dirty({ flags: START }), 0);
    t.result('GET', host.dirty({ flags: GET }), 0);
    t.same('bitmap', host.bitmap.bytes.slice(0, 8), Uint8Array.of(0xf, 0, 0, 0, 0, 0, 0, 0));
    t.result('again', host.dirty({ flags: GET }), 0);
    t.same('still all', host.bitmap.bytes[0], 0xf);
  });
  add('GET_BITMAP: EINVAL of another page size', branch, (t, { dirty }) => {
    t.result('START', dirty({ flags: START }), 0);
    t.result('8 KiB', dirty({ flags: GET, pgsize: 2 * K }), 'EINVAL');
    t.result('0', dirty({ flags: GET, pgsize: 0 }), 'EINVAL');
  });
  add('GET_BITMAP: EINVAL when not in whole pages, or of nothing', branch, (t, { dirty }) => {
    t.result('START', dirty({ flags: START }), 0);
    t.result('IOVA', dirty({ flags: GET, iova: IOVA + 1 }), 'EINVAL');
    t.result('size', dirty({ flags: GET, size: 1 }), 'EINVAL');
    t.result('size 0', dirty({ flags: GET, size: 0 }), 'EINVAL');
  });
  add('GET_BITMAP: EOVERFLOW when the range wraps', branch, (t, { dirty }) => {
    t.result('START', dirty({ flags: START }), 0);
    t.result('it', dirty({ flags: GET, iova: 2n ** 64n - 4096n, size: 2 * K }), 'EOVERFLOW');
  });
  add('GET_BITMAP: EINVAL of a bitmap that is too small', 'verify_bitmap_size', (t, { dirty }) => {
    t.result('START', dirty({ flags: START }), 0);
    t.result('0 bytes', dirty({ flags: GET, bytes: 0 }), 'EINVAL');
    t.result('4 bytes', dirty({ flags: GET, bytes: 4 }), 'EINVAL');
  });
  add('GET_BITMAP: EFAULT of a bitmap that is not there', 'vfio_iova_dirty_bitmap', (t, { dirty }) => {
    t.result('START', dirty({ flags: START }), 0);
    t.result('page 1', dirty({ flags: GET, at: K }), 'EFAULT');
  });
  add('GET_BITMAP: EINVAL when it cuts a mapping', 'vfio_iova_dirty_bitmap', (t, { dirty }) => {
    t.result('START', dirty({ flags: START }), 0);
    t.result('its first page', dirty({ flags: GET, size: K }), 'EINVAL');
    t.result('its last page', dirty({ flags: GET, iova: IOVA + 3 * K, size: K }), 'EINVAL');
  });
});

function mapped(t) {
  const host = owned('edu')(t);
  const memory = t.memory(4 * K);
  const bitmap = t.memory(K);
  t.must('MAP', mapDma(t, host.container, { iova: IOVA, size: 4 * K, vaddr: memory.address }));
  const dirty = ({ flags, argsz = 48, iova = IOVA, size = 4 * K, pgsize = K, bytes = 8, at = bitmap.address }) => {
    const request = new Uint8Array(48);
    const view = new DataView(request.buffer);
    view.setUint32(0, argsz, true);
    view.setUint32(4, flags, true);
    for (const [i, value] of [iova, size, pgsize, bytes, at].entries())
      view.setBigUint64(8 + 8 * i, BigInt.asUintN(64, BigInt(value)), true);
    return t.kernel.ioctl(host.container, u.VFIO_IOMMU_DIRTY_PAGES, request);
  };
  return { ...host, bitmap, dirty };
}
