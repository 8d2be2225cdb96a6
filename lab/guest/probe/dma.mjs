/** Mapping and unmapping: every check of MAP_DMA, UNMAP_DMA and DIRTY_PAGES, and what IOMMU_GET_INFO answers. */
import * as u from 'belfry/uapi';
import { hexBytes, plain } from './probe.mjs';

const R = u.VFIO_DMA_MAP_FLAG_READ;
const W = u.VFIO_DMA_MAP_FLAG_WRITE;
const RW = R | W;

export function probeInfo(p, container) {
  for (const argsz of [0, 15, 16, 20, 24, 32, 64, 100, 112, 200]) {
    const bytes = new Uint8Array(256);
    new DataView(bytes.buffer).setUint32(0, argsz, true);
    p.ask(`argsz ${argsz}`, container, u.VFIO_IOMMU_GET_INFO, bytes, (answer) =>
      hexBytes(answer.subarray(0, Math.max(argsz, 24))),
    );
  }
  p.ioctl('null', container, u.VFIO_IOMMU_GET_INFO, 0n);
}

/** @param window the platform's MSI range: `{ start, end }` inclusive */
export function probeMaps(p, container, window) {
  const memory = p.kernel.allocate(0x20_0000, 0x20_0000);
  const map = (iova, size, flags = RW, vaddr = memory.address, argsz = 32) =>
    p.kernel.ioctl(
      container,
      u.VFIO_IOMMU_MAP_DMA,
      u.vfio_iommu_type1_dma_map.bytes({ argsz, flags, vaddr, iova, size }),
    );
  const unmapBytes = (iova, size, flags = 0, argsz = 24) =>
    u.vfio_iommu_type1_dma_unmap.bytes({ argsz, flags, iova, size });
  const unmap = (name, ...rest) =>
    p.ask(name, container, u.VFIO_IOMMU_UNMAP_DMA, unmapBytes(...rest), (bytes) => ({
      size: u.vfio_iommu_type1_dma_unmap.read(bytes).size,
    }));
  /** Maps, notes, and takes it away again. */
  const once = (name, ...rest) => {
    const result = p.result(`MAP ${name}`, map(...rest));
    if (result === 0) p.kernel.ioctl(container, u.VFIO_IOMMU_UNMAP_DMA, unmapBytes(rest[0], rest[1]));
  };
  const { start, end } = window;
  const K = 0x1000;
  once('first page of the window', start, K);
  once('middle of the window', start + 0x4_0000, K);
  once('last page of the window', end + 1 - K, K);
  once('whole window', start, end + 1 - start);
  once('straddling the start', start - K, 2 * K);
  once('straddling the end', end + 1 - K, 2 * K);
  once('just below', start - K, K);
  once('just above', end + 1, K);
  once('physical ITS page', 0x809_0000, K);
  once('last page of 48 bits', 2 ** 48 - K, K);
  once('first page beyond 48 bits', 2 ** 48, K);
  once('last page of 64 bits', 2n ** 64n - 4096n, K);
  once('wrap', 2n ** 64n - 4096n, 2 * K);
  once('vaddr wraps', 0x10_0000, 2 * K, RW, 2n ** 64n - 4096n);
  once('unaligned iova', 0x10_0800, K);
  once('unaligned size', 0x10_0000, 0x800);
  once('unaligned vaddr', 0x10_0000, K, RW, memory.address + 0x800);
  once('size 0', 0x10_0000, 0);
  once('size 0 and a bad flag', 0x10_0000, 0, 0x103);
  once('no flags', 0x10_0000, K, 0);
  once('unknown flag', 0x10_0000, K, 0x103);
  once('read only', 0x10_0000, K, R);
  once('write only', 0x10_0000, K, W);
  once('VADDR with nothing mapped', 0x10_0000, K, u.VFIO_DMA_MAP_FLAG_VADDR);
  once('VADDR and READ', 0x10_0000, K, u.VFIO_DMA_MAP_FLAG_VADDR | R);
  once('argsz 31', 0x10_0000, K, RW, memory.address, 31);
  once('argsz 40', 0x10_0000, K, RW, memory.address, 40);
  once('bad vaddr', 0x10_0000, K, RW, 0x1000);
  once('bad vaddr in the window', start, K, RW, 0x1000);
  once('bad vaddr, no flags', 0x10_0000, K, 0, 0x1000);
  once('2 MiB', 0x20_0000, 0x20_0000);
  once('first page of all', 0, K);
  p.ioctl('MAP null', container, u.VFIO_IOMMU_MAP_DMA, 0n);

  p.result('MAP a', map(0x10_0000, 2 * K));
  p.result('MAP b', map(0x10_2000, 2 * K));
  p.result('MAP over a', map(0x10_1000, K));
  p.result('MAP over a with a bad vaddr', map(0x10_1000, K, RW, 0x1000));
  p.result('MAP over a from below', map(0xf_f000, 2 * K));
  p.result('MAP around a', map(0xf_0000, 0x2_0000));
  p.result('MAP VADDR over a, still valid', map(0x10_0000, 2 * K, u.VFIO_DMA_MAP_FLAG_VADDR));
  unmap('UNMAP second half of a', 0x10_1000, K);
  unmap('UNMAP first half of a', 0x10_0000, K);
  unmap('UNMAP from inside a to inside b', 0x10_1000, 2 * K);
  unmap('UNMAP argsz 23', 0x10_0000, 2 * K, 0, 23);
  unmap('UNMAP unknown flag', 0x10_0000, 2 * K, 8);
  unmap('UNMAP unaligned iova', 0x10_0800, K);
  unmap('UNMAP unaligned size', 0x10_0000, 0x800);
  unmap('UNMAP size 0', 0x10_0000, 0);
  unmap('UNMAP wrap', 2n ** 64n - 4096n, 2 * K);
  unmap('UNMAP ALL with a size', 0, K, u.VFIO_DMA_UNMAP_FLAG_ALL);
  unmap('UNMAP ALL and DIRTY', 0, 0, u.VFIO_DMA_UNMAP_FLAG_ALL | u.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP);
  unmap('UNMAP DIRTY, argsz 24', 0x10_0000, 2 * K, u.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP);
  unmap('UNMAP nothing', 0x90_0000, K);
  unmap('UNMAP the window', start, end + 1 - start);
  unmap('UNMAP VADDR of a', 0x10_0000, 2 * K, u.VFIO_DMA_UNMAP_FLAG_VADDR);
  unmap('UNMAP VADDR of a again', 0x10_0000, 2 * K, u.VFIO_DMA_UNMAP_FLAG_VADDR);
  p.result('MAP VADDR half of a', map(0x10_0000, K, u.VFIO_DMA_MAP_FLAG_VADDR));
  p.result('MAP VADDR of a', map(0x10_0000, 2 * K, u.VFIO_DMA_MAP_FLAG_VADDR));
  unmap('UNMAP a and b with room around', 0xf_0000, 0x2_0000);
  p.result('MAP c', map(0x30_0000, K));
  p.result('MAP d', map(0x50_0000, 3 * K));
  unmap('UNMAP ALL', 0, 0, u.VFIO_DMA_UNMAP_FLAG_ALL);
  unmap('UNMAP ALL with nothing', 0, 0, u.VFIO_DMA_UNMAP_FLAG_ALL);
  unmap('UNMAP everything by range', 0, 2n ** 64n - 4096n);
  p.ioctl('UNMAP null', container, u.VFIO_IOMMU_UNMAP_DMA, 0n);
  memory.free();
}

export function probeDirty(p, container) {
  const request = (name, flags, argsz = 8) => {
    const bytes = new Uint8Array(64);
    u.vfio_iommu_type1_dirty_bitmap.patch(bytes, { argsz, flags });
    return p.ioctl(name, container, u.VFIO_IOMMU_DIRTY_PAGES, bytes);
  };
  const memory = p.kernel.allocate(0x4000);
  const bitmap = p.kernel.allocate(0x1000);
  const mapBytes = u.vfio_iommu_type1_dma_map.bytes({
    argsz: 32,
    flags: RW,
    vaddr: memory.address,
    iova: 0x10_0000,
    size: 0x4000,
  });
  p.ioctl('MAP', container, u.VFIO_IOMMU_MAP_DMA, mapBytes);
  const get = (
    name,
    { iova = 0x10_0000, size = 0x4000, pgsize = 0x1000, bytes = 8, argsz = 48, data = bitmap.address } = {},
  ) => {
    const whole = new Uint8Array(64);
    u.vfio_iommu_type1_dirty_bitmap.patch(whole, { argsz, flags: u.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP });
    const view = new DataView(whole.buffer);
    const words = [iova, size, pgsize, bytes, data];
    for (const [i, value] of words.entries()) view.setBigUint64(8 + i * 8, BigInt(value), true);
    bitmap.bytes.fill(0);
    const result = p.kernel.ioctl(container, u.VFIO_IOMMU_DIRTY_PAGES, whole);
    p.note(name, result < 0 ? u.errnoName(result) : plain(bitmap.bytes.subarray(0, 8)));
  };
  request('no flag', 0);
  request('two flags', 3);
  request('unknown flag', 8);
  request('argsz 7', 1, 7);
  request('STOP before START', u.VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
  get('GET before START');
  request('START', u.VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
  request('START again', u.VFIO_IOMMU_DIRTY_PAGES_FLAG_START);
  get('GET');
  get('GET again');
  get('GET with argsz 47', { argsz: 47 });
  get('GET with another page size', { pgsize: 0x2000 });
  get('GET with half a page', { size: 0x800 });
  get('GET of size 0', { size: 0 });
  get('GET unaligned', { iova: 0x10_0800 });
  get('GET with a small bitmap', { bytes: 0 });
  get('GET with a wrong pointer', { data: 8 });
  get('GET of half the mapping', { size: 0x2000 });
  get('GET of nothing', { iova: 0x90_0000 });
  get('GET wrapping', { iova: 2n ** 64n - 4096n, size: 0x2000 });
  request('STOP', u.VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP);
  get('GET after STOP');
  p.kernel.ioctl(
    container,
    u.VFIO_IOMMU_UNMAP_DMA,
    u.vfio_iommu_type1_dma_unmap.bytes({ argsz: 24, iova: 0x10_0000, size: 0x4000 }),
  );
  bitmap.free();
  memory.free();
}
