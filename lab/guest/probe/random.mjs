/**
 * Random programs: the same requests on both kernels, from a seed. Each line of the record holds some of them with what they answered, so that the first
 * difference shows what led to it.
 */
import * as u from 'belfry/uapi';

const K = 0x1000;
const LINE = 25;
const MAX = 2n ** 64n - 1n;

/** xorshift32: the same numbers wherever this runs. */
class Random {
  constructor(seed) {
    this.state = seed | 1;
  }

  below(limit) {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x;
    return (x >>> 0) % limit;
  }

  of(...choices) {
    return choices[this.below(choices.length)];
  }

  chance(percent) {
    return this.below(100) < percent;
  }
}

/** Makes `count` requests; `next(random)` makes one and says what it was and what came. */
function program(p, name, seed, count, next) {
  const random = new Random(seed);
  let line = [];
  for (let i = 1; i <= count; i++) {
    line.push(next(random));
    if (line.length < LINE && i < count) continue;
    p.note(`${name}, seed ${seed}, to ${i}`, line);
    line = [];
  }
}

const answer = (result) => (result < 0 ? u.errnoName(result) : result);

/** MAP_DMA, UNMAP_DMA and DIRTY_PAGES in a container of type1. */
export function randomMaps(p, container, window, { seed, count }) {
  const memory = p.kernel.allocate(16 * K, 0x20_0000);
  const bitmap = p.kernel.allocate(K);
  const bases = [
    0x10_0000,
    0x10_4000,
    0x10_8000,
    window.start - 4 * K,
    window.start,
    window.end + 1 - 2 * K,
    window.end + 1,
    2 ** 48 - 4 * K,
  ];
  const place = (r) => r.of(...bases) + r.below(8) * K + (r.chance(3) ? 0x800 : 0);
  const size = (r) => (r.chance(4) ? r.of(0, 0x800) : (1 + r.below(4)) * K);
  const map = (r) => {
    const [iova, length] = [place(r), size(r)];
    const flags = r.chance(75) ? 3 : r.of(1, 2, 3, 4, 0, 5, 8);
    const page = r.below(12);
    const vaddr = r.chance(5) ? 0x1000 : memory.address + page * K + (r.chance(3) ? 0x10 : 0);
    const bytes = u.vfio_iommu_type1_dma_map.bytes({ argsz: r.chance(2) ? 31 : 32, flags, vaddr, iova, size: length });
    return `MAP ${iova.toString(16)}+${length.toString(16)} ${flags}: ${answer(p.kernel.ioctl(container, u.VFIO_IOMMU_MAP_DMA, bytes))}`;
  };
  const unmap = (r) => {
    const flags = r.chance(85) ? 0 : r.of(1, 2, 4, 8, 6);
    const [iova, length] = r.chance(6) ? [0, 0] : [place(r), r.chance(15) ? 32 * K : size(r)];
    const bytes = new Uint8Array(64);
    u.vfio_iommu_type1_dma_unmap.patch(bytes, { argsz: flags & 1 ? 48 : 24, flags, iova, size: length });
    if (flags & 1) bitmapField(bytes, 24, K, bitmap);
    const result = p.kernel.ioctl(container, u.VFIO_IOMMU_UNMAP_DMA, bytes);
    const { size: done } = u.vfio_iommu_type1_dma_unmap.read(bytes);
    return `UNMAP ${iova.toString(16)}+${length.toString(16)} ${flags}: ${result < 0 ? answer(result) : done.toString(16)}`;
  };
  const dirty = (r) => {
    const flags = r.of(1, 2, 4, 4, 4);
    const [iova, length] = [place(r), r.chance(50) ? size(r) : 16 * K];
    const bytes = new Uint8Array(64);
    u.vfio_iommu_type1_dirty_bitmap.patch(bytes, { argsz: flags === 4 ? 48 : 8, flags });
    const view = new DataView(bytes.buffer);
    view.setBigUint64(8, BigInt(iova), true);
    view.setBigUint64(16, BigInt(length), true);
    bitmapField(bytes, 24, K, bitmap);
    bitmap.bytes.fill(0);
    const result = p.kernel.ioctl(container, u.VFIO_IOMMU_DIRTY_PAGES, bytes);
    const found = result === 0 && flags === 4 ? ` ${Buffer.from(bitmap.bytes.subarray(0, 4)).toString('hex')}` : '';
    return `DIRTY ${flags} ${iova.toString(16)}+${length.toString(16)}: ${answer(result)}${found}`;
  };
  program(p, 'maps', seed, count, (r) => r.of(map, map, map, unmap, unmap, dirty)(r));
  const all = u.vfio_iommu_type1_dma_unmap.bytes({ argsz: 24, flags: u.VFIO_DMA_UNMAP_FLAG_ALL });
  p.ioctl('UNMAP ALL at the end', container, u.VFIO_IOMMU_UNMAP_DMA, all);
  p.note('size', `${u.vfio_iommu_type1_dma_unmap.read(all).size}`);
  memory.free();
  bitmap.free();
}

function bitmapField(bytes, offset, pgsize, bitmap) {
  const view = new DataView(bytes.buffer);
  view.setBigUint64(offset, BigInt(pgsize), true);
  view.setBigUint64(offset + 8, 8n, true);
  view.setBigUint64(offset + 16, BigInt(bitmap.address), true);
}

/** SET_IRQS of every kind, and what then is on the eventfds. */
export function randomInterrupts(p, device, counts, { seed, count }) {
  const eventfds = Array.from({ length: 4 }, () => p.eventfd());
  const targets = [...eventfds.map(({ fd }) => fd), -1, 9999, -2];
  const next = (r) => {
    const index = r.chance(60) ? counts.main : r.below(5);
    const have = counts.of[index];
    const start = r.chance(70) ? 0 : r.of(1, 2, 3, Math.max(have - 1, 0), have);
    const number = r.chance(70) ? 1 + r.below(3) : r.of(0, 0, 0, have, have + 1);
    const data = r.of(1, 2, 4, 4, 4);
    const action = r.chance(88) ? 32 : r.of(8, 16, 24, 0);
    const chosen = Array.from({ length: Math.min(number, 80) }, () => r.below(r.chance(90) ? 5 : 7));
    const payload =
      data === 4
        ? new Uint8Array(Int32Array.from(chosen, (i) => targets[i]).buffer)
        : Uint8Array.from(chosen, (i) => i & 1);
    const extra = data === 1 ? new Uint8Array(0) : payload;
    const bytes = new Uint8Array(20 + extra.length + 8);
    u.vfio_irq_set.patch(bytes, { argsz: 20 + extra.length, flags: data | action, index, start, count: number });
    bytes.set(extra, 20);
    const result = p.kernel.ioctl(device, u.VFIO_DEVICE_SET_IRQS, bytes);
    p.kernel.settle();
    const arrived = eventfds.map((eventfd) => eventfd.drain()).join('');
    return `${index} ${data}|${action} ${start}+${number} ${data === 1 ? '' : chosen.slice(0, 4).join('')}: ${answer(result)} ${arrived}`;
  };
  program(p, 'interrupts', seed, count, next);
  for (const { fd } of eventfds) p.kernel.close(fd);
}

/** IOAS requests without a device: where the kernel puts what it may place itself. */
export function randomIoas(p, { seed, count }) {
  const fd = p.kernel.open('/dev/iommu');
  if (fd < 0) return void p.result('open /dev/iommu', fd);
  const memory = p.kernel.allocate(0x40_0000, 0x20_0000);
  const list = p.kernel.allocate(K);
  const ids = [0, 0].map(() => {
    const bytes = u.iommu_ioas_alloc.bytes({ size: 12 });
    p.kernel.ioctl(fd, u.IOMMU_IOAS_ALLOC, bytes);
    return u.iommu_ioas_alloc.read(bytes).out_ioas_id;
  });
  const place = (r) => 0x1000 * r.below(48) + (r.chance(10) ? r.below(4096) : 0);
  const length = (r) => r.of(1, 0x10, K, K, K, 2 * K, 3 * K, 4 * K, 0x1_0000, 0x1_0800);
  const call = (request, struct, fields, shown) => {
    const bytes = struct.bytes({ size: struct.size, ...fields });
    const result = p.kernel.ioctl(fd, request, bytes);
    return result < 0 ? answer(result) : shown === null ? 0 : struct.read(bytes)[shown].toString(16);
  };
  const map = (r) => {
    const flags = (r.chance(50) ? 1 : 0) | r.of(6, 6, 6, 4, 2, 0);
    const [ioas_id, iova, size, offset] = [
      r.of(...ids),
      place(r),
      length(r),
      r.below(64) * K + (r.chance(15) ? r.below(K) : 0),
    ];
    const done = call(
      u.IOMMU_IOAS_MAP,
      u.iommu_ioas_map,
      { flags, ioas_id, user_va: memory.address + offset, length: size, iova: flags & 1 ? iova : 0 },
      'iova',
    );
    return `MAP ${ioas_id} ${flags} ${flags & 1 ? iova.toString(16) : offset.toString(16)}+${size.toString(16)}: ${done}`;
  };
  const unmap = (r) => {
    const [ioas_id, iova, size] = [r.of(...ids), place(r), r.chance(30) ? 0x2_0000 : length(r)];
    return `UNMAP ${ioas_id} ${iova.toString(16)}+${size.toString(16)}: ${call(u.IOMMU_IOAS_UNMAP, u.iommu_ioas_unmap, { ioas_id, iova, length: size }, 'length')}`;
  };
  const copy = (r) => {
    const flags = (r.chance(40) ? 1 : 0) | r.of(6, 4, 2);
    const [from, to, source, target, size] = [r.of(...ids), r.of(...ids), place(r), place(r), length(r)];
    const fields = {
      flags,
      dst_ioas_id: to,
      src_ioas_id: from,
      length: size,
      dst_iova: flags & 1 ? target : 0,
      src_iova: source,
    };
    return `COPY ${from} ${source.toString(16)}+${size.toString(16)} ${to} ${flags} ${target.toString(16)}: ${call(u.IOMMU_IOAS_COPY, u.iommu_ioas_copy, fields, 'dst_iova')}`;
  };
  const allow = (r) => {
    const ioas_id = r.of(...ids);
    const ranges = Array.from({ length: r.below(4) }, () => [
      0x1000 * r.below(64),
      0x1000 * (1 + r.below(64)) + r.of(-1, -1, 0),
    ]);
    const words = new DataView(list.bytes.buffer, list.bytes.byteOffset);
    for (const [i, value] of ranges.flat().entries()) words.setBigUint64(i * 8, BigInt(value), true);
    const done = call(
      u.IOMMU_IOAS_ALLOW_IOVAS,
      u.iommu_ioas_allow_iovas,
      { ioas_id, num_iovas: ranges.length, allowed_iovas: list.address },
      null,
    );
    return `ALLOW ${ioas_id} ${ranges.map(([start, last]) => `${start.toString(16)}-${last.toString(16)}`).join(',')}: ${done}`;
  };
  program(p, 'ioas', seed, count, (r) => (r.chance(6) ? allow(r) : r.of(map, map, map, unmap, copy)(r)));
  for (const ioas_id of ids)
    p.note(
      `UNMAP all of ${ioas_id}`,
      call(u.IOMMU_IOAS_UNMAP, u.iommu_ioas_unmap, { ioas_id, iova: 0, length: MAX }, 'length'),
    );
  p.kernel.close(fd);
  memory.free();
  list.free();
}
