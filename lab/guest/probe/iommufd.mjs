/** iommufd and the vfio cdev: what each command checks, and in which order; needs the lab's own kernel. */
import * as u from 'belfry/uapi';
import { s32 } from './container.mjs';
import { hexBytes } from './probe.mjs';

const K = 0x1000;
const FIXED = u.IOMMU_IOAS_MAP_FIXED_IOVA;
const RW = u.IOMMU_IOAS_MAP_WRITEABLE | u.IOMMU_IOAS_MAP_READABLE;
const MAX = 2n ** 64n - 1n;

/** @param device `{ name, group }`, @param window the platform's MSI range, inclusive */
export async function probeIommufd(p, device, window) {
  const fd = p.descriptor('open /dev/iommu', p.kernel.open('/dev/iommu'));
  if (fd < 0) return;
  const f = new Iommufd(p, fd);
  const memory = p.kernel.allocate(0x40_0000, 0x20_0000);
  await p.part('dispatch', () => dispatch(p, f));
  await p.part('objects', () => objects(p, f));
  await p.part('maps without a device', () => mapsAlone(f, memory));
  await p.part('choice', () => choice(p, f, memory));
  await p.part('options', () => options(f));
  await p.part('cdev', () => cdev(p, f, device, memory, window));
  p.result('close', p.kernel.close(fd));
  memory.free();
}

class Iommufd {
  constructor(p, fd) {
    this.p = p;
    this.fd = fd;
  }

  /** A command with its struct; `show(bytes)` is what is recorded when it succeeds. */
  call(name, request, struct, fields, show = null) {
    const bytes = struct.bytes({ size: struct.size, ...fields });
    if (show === null) this.p.ioctl(name, this.fd, request, bytes);
    else this.p.ask(name, this.fd, request, bytes, (answer) => show(struct.read(answer)));
    return struct.read(bytes);
  }

  ioas(name = 'IOAS_ALLOC') {
    return this.call(name, u.IOMMU_IOAS_ALLOC, u.iommu_ioas_alloc, {}, ({ out_ioas_id }) => out_ioas_id).out_ioas_id;
  }

  map(name, ioas_id, user_va, length, iova = 0, flags = FIXED | RW, rest = {}) {
    const fields = { ioas_id, user_va, length, iova, flags, ...rest };
    return this.call(`MAP ${name}`, u.IOMMU_IOAS_MAP, u.iommu_ioas_map, fields, (answer) => ({ iova: answer.iova }))
      .iova;
  }

  unmap(name, ioas_id, iova, length) {
    this.call(`UNMAP ${name}`, u.IOMMU_IOAS_UNMAP, u.iommu_ioas_unmap, { ioas_id, iova, length }, (answer) => ({
      length: answer.length,
    }));
  }

  copy(name, dst_ioas_id, src_ioas_id, src_iova, length, dst_iova = 0, flags = RW) {
    const fields = { dst_ioas_id, src_ioas_id, src_iova, length, dst_iova, flags };
    this.call(`COPY ${name}`, u.IOMMU_IOAS_COPY, u.iommu_ioas_copy, fields, (answer) => ({ iova: answer.dst_iova }));
  }

  ranges(name, ioas_id, room = 8, rest = {}) {
    const { p } = this;
    const buffer = p.kernel.allocate(4096);
    const bytes = u.iommu_ioas_iova_ranges.bytes({
      size: 32,
      ioas_id,
      num_iovas: room,
      allowed_iovas: buffer.address,
      ...rest,
    });
    const result = p.kernel.ioctl(this.fd, u.IOMMU_IOAS_IOVA_RANGES, bytes);
    const { num_iovas, out_iova_alignment } = u.iommu_ioas_iova_ranges.read(bytes);
    const error = result < 0 ? u.errnoName(result) : 0;
    p.note(`IOVA_RANGES ${name}`, [
      error,
      num_iovas,
      `${out_iova_alignment}`,
      hexBytes(buffer.bytes.subarray(0, 16 * Math.min(num_iovas, room, 8))),
    ]);
    buffer.free();
  }

  allow(name, ioas_id, ranges, rest = {}) {
    const buffer = this.p.kernel.allocate(4096);
    new BigUint64Array(buffer.bytes.buffer, buffer.bytes.byteOffset, 2 * ranges.length).set(ranges.flat().map(BigInt));
    const fields = { ioas_id, num_iovas: ranges.length, allowed_iovas: buffer.address, ...rest };
    this.call(`ALLOW_IOVAS ${name}`, u.IOMMU_IOAS_ALLOW_IOVAS, u.iommu_ioas_allow_iovas, fields);
    buffer.free();
  }

  destroy(name, id) {
    this.call(`DESTROY ${name}`, u.IOMMU_DESTROY, u.iommu_destroy, { id });
  }
}

function dispatch(p, f) {
  const { fd } = f;
  p.ioctl('null', fd, u.IOMMU_IOAS_ALLOC, 0n);
  for (const size of [0, 4, 8, 11])
    p.ioctl(`IOAS_ALLOC size ${size}`, fd, u.IOMMU_IOAS_ALLOC, u.iommu_ioas_alloc.bytes({ size }));
  const long = new Uint8Array(32);
  new DataView(long.buffer).setUint32(0, 32, true);
  p.ioctl('IOAS_ALLOC, longer, zeroes behind', fd, u.IOMMU_IOAS_ALLOC, long);
  f.destroy('that', 1);
  long[20] = 1;
  p.ioctl('IOAS_ALLOC, longer, not zero', fd, u.IOMMU_IOAS_ALLOC, long);
  const huge = p.kernel.allocate(0x10_0000);
  new DataView(huge.bytes.buffer, huge.bytes.byteOffset).setUint32(0, huge.length, true);
  p.ioctl('IOAS_ALLOC, a megabyte of zeroes', fd, u.IOMMU_IOAS_ALLOC, BigInt(huge.address));
  f.destroy('that too', 1);
  huge.bytes[huge.length - 1] = 1;
  p.ioctl('IOAS_ALLOC, a megabyte', fd, u.IOMMU_IOAS_ALLOC, BigInt(huge.address));
  huge.free();
  p.ioctl('IOAS_ALLOC flags', fd, u.IOMMU_IOAS_ALLOC, u.iommu_ioas_alloc.bytes({ size: 12, flags: 1 }));
  p.ioctl('number 0x7f', fd, 0x3b7f, u.iommu_destroy.bytes({ size: 8 }));
  p.ioctl('number 0x95', fd, 0x3b95, u.iommu_destroy.bytes({ size: 8 }));
  p.ioctl('number 0xff', fd, 0x3bff, u.iommu_destroy.bytes({ size: 8 }));
  p.ioctl('another type', fd, 0x3a80, u.iommu_destroy.bytes({ size: 8 }));
  p.ioctl('with a direction', fd, 0xc00c3b81, u.iommu_ioas_alloc.bytes({ size: 12 }));
  p.ioctl('compat GET_API_VERSION', fd, u.VFIO_GET_API_VERSION, 0);
  for (const id of [1, 3, 8, 9]) p.ioctl(`compat CHECK_EXTENSION ${id}`, fd, u.VFIO_CHECK_EXTENSION, id);
  p.ioctl('compat SET_IOMMU 3', fd, u.VFIO_SET_IOMMU, 3);
  p.pread('read', fd, 0, 8);
}

function objects(p, f) {
  f.destroy('0', 0);
  f.destroy('77', 77);
  const [a, b, c] = [f.ioas(), f.ioas(), f.ioas()];
  f.destroy('the second', b);
  p.note('the freed number is used again', f.ioas() === b);
  f.destroy('a', a);
  f.destroy('a again', a);
  f.destroy('b', b);
  f.destroy('c', c);
}

function mapsAlone(f, memory) {
  const va = memory.address;
  const a = f.ioas();
  f.ranges('of a new one', a);
  f.ranges('without room', a, 0);
  f.ranges('of none', 99);
  f.ranges('reserved field', a, 8, { __reserved: 1 });
  f.ranges('bad pointer', a, 8, { allowed_iovas: 8 });
  f.map('fixed', a, va, K, 0x10_0000);
  f.map('over it', a, va, K, 0x10_0000);
  f.map('fixed at 0', a, va, K, 0);
  f.map('fixed, one byte', a, va, 1, 0x20_0000);
  f.map('fixed, at an odd place', a, va + 1, 1, 0x20_0001);
  f.map('fixed, in-page offsets differ', a, va + 8, 16, 0x20_1000);
  f.map('at the end', a, va, K, MAX - 0xfffn);
  f.map('up to the last byte', a, va, 0xfff, MAX - 0xfffn);
  f.map('wrapping', a, va, 2 * K, MAX - 0xfffn);
  f.map('iova the last', a, va, K, MAX);
  f.map('length the last', a, va, MAX, 0x30_0000);
  f.map('length 0', a, va, 0, 0x30_0000);
  f.map('no access', a, va, K, 0x30_0000, FIXED);
  f.map('write only', a, va, K, 0x30_0000, FIXED | u.IOMMU_IOAS_MAP_WRITEABLE);
  f.map('read only', a, va, K, 0x31_0000, FIXED | u.IOMMU_IOAS_MAP_READABLE);
  f.map('unknown flag', a, va, K, 0x32_0000, FIXED | RW | 8);
  f.map('reserved field', a, va, K, 0x32_0000, FIXED | RW, { __reserved: 1 });
  f.map('bad va', a, 0x1000, K, 0x32_0000);
  f.map('into no IOAS', 99, va, K, 0x32_0000);
  f.map('chosen, a page', a, va, K, 0, RW);
  f.map('chosen, a page again', a, va, K, 0, RW);
  f.map('chosen, 16 KiB', a, va + 4 * K, 4 * K, 0, RW);
  f.map('chosen, 16 KiB, less aligned', a, va + K, 4 * K, 0, RW);
  f.map('chosen, 2 MiB', a, va, 0x20_0000, 0, RW);
  f.map('chosen, in-page offset', a, va + 0x123, 0x10, 0, RW);
  f.map('chosen, huge', a, va, 2n ** 63n, 0, RW);
  f.copy('all of it', a, a, 0x10_0000, K, 0x80_0000, FIXED | RW);
  f.copy('chosen', a, a, 0x10_0000, K, 0, RW);
  f.copy('of nothing', a, a, 0x70_0000, K, 0x81_0000, FIXED | RW);
  f.copy('more than there is', a, a, 0x10_0000, 2 * K, 0x81_0000, FIXED | RW);
  f.copy('writable of read only', a, a, 0x31_0000, K, 0x81_0000, FIXED | RW);
  f.copy('onto another', a, a, 0x31_0000, K, 0x80_0000, FIXED | u.IOMMU_IOAS_MAP_READABLE);
  f.copy('from no IOAS', a, 99, 0x10_0000, K, 0x82_0000, FIXED | RW);
  f.copy('into no IOAS', 99, a, 0x10_0000, K, 0x82_0000, FIXED | RW);
  f.copy('unknown flag', a, a, 0x10_0000, K, 0x82_0000, FIXED | RW | 8);
  f.map('two pages', a, va, 2 * K, 0x90_0000);
  f.unmap('half of them', a, 0x90_0000, K);
  f.unmap('the other half', a, 0x90_1000, K);
  f.unmap('with room around', a, 0x8f_0000, 0x2_0000);
  f.unmap('nothing', a, 0x8f_0000, 0x2_0000);
  f.unmap('length 0', a, 0x10_0000, 0);
  f.unmap('wrapping', a, MAX - 0xfffn, 0x2000);
  f.unmap('in no IOAS', 99, 0x10_0000, K);
  f.unmap('all', a, 0, MAX);
  f.unmap('all of nothing', a, 0, MAX);
  f.allow('two ranges', a, [
    [0x10_0000, 0x1f_ffff],
    [0x40_0000, 0x4f_ffff],
  ]);
  f.map('chosen, in what is allowed', a, va, K, 0, RW);
  f.map('chosen, 1 MiB', a, va, 0x10_0000, 0, RW);
  f.map('chosen, too large', a, va, 0x20_0000, 0, RW);
  f.map('fixed outside of it', a, va, K, 0x80_0000);
  f.ranges('of what is allowed', a);
  f.allow('overlapping', a, [
    [0x10_0000, 0x1f_ffff],
    [0x1f_0000, 0x2f_ffff],
  ]);
  f.allow('backwards', a, [[0x20_0000, 0x10_0000]]);
  f.allow('one byte', a, [[0x20_0000, 0x20_0000]]);
  f.allow('reserved field', a, [[0, 1]], { __reserved: 1 });
  f.allow('bad pointer', a, [[0, 1]], { allowed_iovas: 8 });
  f.allow('of none', 99, [[0, 1]]);
  f.allow('none at all', a, []);
  f.map('chosen again', a, va + K, K, 0, RW);
  f.destroy('with maps', a);
}

/** Where a map is put behind one that ends inside of a page, for offsets in the page and lengths. */
function choice(p, f, memory) {
  for (const end of [1, 4, 0x10, 0x7f0, 0x801, 0x9f0, 0x9f1, 0xfff, 0x1000]) {
    const found = [];
    for (const offset of [0, 1, 4, 0x800, 0x9f0, 0xffe]) {
      for (const length of [1, 0x10, 0x800, K])
        found.push(`${offset.toString(16)}+${length.toString(16)}: ${chosen(p, f.fd, memory, end, offset, length)}`);
    }
    p.note(`behind ${end.toString(16)} bytes`, found);
  }
}

function chosen(p, fd, memory, end, offset, length) {
  const ask = (request, struct, fields) => {
    const bytes = struct.bytes({ size: struct.size, ...fields });
    const result = p.kernel.ioctl(fd, request, bytes);
    return result < 0 ? u.errnoName(result) : struct.read(bytes);
  };
  const ioas_id = ask(u.IOMMU_IOAS_ALLOC, u.iommu_ioas_alloc, {}).out_ioas_id;
  ask(u.IOMMU_IOAS_MAP, u.iommu_ioas_map, {
    flags: FIXED | RW,
    ioas_id,
    user_va: memory.address,
    length: K + end,
    iova: 0,
  });
  const answer = ask(u.IOMMU_IOAS_MAP, u.iommu_ioas_map, {
    flags: RW,
    ioas_id,
    user_va: memory.address + 0x1_0000 + offset,
    length,
  });
  ask(u.IOMMU_DESTROY, u.iommu_destroy, { id: ioas_id });
  return typeof answer === 'string' ? answer : answer.iova.toString(16);
}

function options(f) {
  const option = (name, fields) =>
    f.call(`OPTION ${name}`, u.IOMMU_OPTION, u.iommu_option, fields, ({ val64 }) => ({ val64 }));
  const {
    IOMMU_OPTION_OP_GET: GET,
    IOMMU_OPTION_OP_SET: SET,
    IOMMU_OPTION_HUGE_PAGES: HUGE,
    IOMMU_OPTION_RLIMIT_MODE: LIMIT,
  } = u;
  option('rlimit mode', { option_id: LIMIT, op: GET });
  option('rlimit mode of an object', { option_id: LIMIT, op: GET, object_id: 1 });
  option('rlimit mode = 1', { option_id: LIMIT, op: SET, val64: 1 });
  option('rlimit mode = 2', { option_id: LIMIT, op: SET, val64: 2 });
  option('rlimit mode = 0', { option_id: LIMIT, op: SET, val64: 0 });
  const a = f.ioas();
  option('rlimit mode = 1 with an object', { option_id: LIMIT, op: SET, val64: 1 });
  option('huge pages', { option_id: HUGE, op: GET, object_id: a });
  option('huge pages = 0', { option_id: HUGE, op: SET, object_id: a, val64: 0 });
  option('huge pages again', { option_id: HUGE, op: GET, object_id: a });
  f.ranges('without huge pages', a);
  option('huge pages = 2', { option_id: HUGE, op: SET, object_id: a, val64: 2 });
  option('huge pages of none', { option_id: HUGE, op: GET, object_id: 99 });
  option('unknown', { option_id: 7, op: GET, object_id: a });
  option('unknown operation', { option_id: HUGE, op: 7, object_id: a });
  option('reserved field', { option_id: HUGE, op: GET, object_id: a, __reserved: 1 });
  const ioas = (name, fields) =>
    f.call(`VFIO_IOAS ${name}`, u.IOMMU_VFIO_IOAS, u.iommu_vfio_ioas, fields, ({ ioas_id }) => ({ ioas_id }));
  ioas('get, none', { op: u.IOMMU_VFIO_IOAS_GET });
  ioas('set', { op: u.IOMMU_VFIO_IOAS_SET, ioas_id: a });
  ioas('get', { op: u.IOMMU_VFIO_IOAS_GET });
  ioas('set none', { op: u.IOMMU_VFIO_IOAS_SET, ioas_id: 99 });
  ioas('clear', { op: u.IOMMU_VFIO_IOAS_CLEAR });
  ioas('unknown', { op: 7 });
  ioas('reserved field', { op: u.IOMMU_VFIO_IOAS_GET, __reserved: 1 });
  f.call('CHANGE_PROCESS', u.IOMMU_IOAS_CHANGE_PROCESS, u.iommu_ioas_change_process, {});
  f.call('FAULT_QUEUE_ALLOC flags', u.IOMMU_FAULT_QUEUE_ALLOC, u.iommu_fault_alloc, { flags: 1 });
  f.destroy('a', a);
}

function cdev(p, f, { name, group }, memory, window) {
  const va = memory.address;
  const cdevOf = (device) => p.kernel.list(`/sys/bus/pci/devices/${device}/vfio-dev`)?.[0] ?? 'none';
  const path = `/dev/vfio/devices/${cdevOf(name)}`;
  const device = p.descriptor('open', p.kernel.open(path));
  const bind = (label, fields, fd = device) =>
    p.ask(
      `BIND ${label}`,
      fd,
      u.VFIO_DEVICE_BIND_IOMMUFD,
      u.vfio_device_bind_iommufd.bytes({ argsz: u.vfio_device_bind_iommufd.size, ...fields }),
      (bytes) => u.vfio_device_bind_iommufd.read(bytes).out_devid,
    );
  const attachBytes = (pt_id, argsz = 12) => u.vfio_device_attach_iommufd_pt.bytes({ argsz, pt_id });
  const attach = (label, pt_id, fd = device) =>
    p.ask(
      `ATTACH ${label}`,
      fd,
      u.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
      attachBytes(pt_id),
      (bytes) => u.vfio_device_attach_iommufd_pt.read(bytes).pt_id,
    );
  const detach = (label) =>
    p.ioctl(
      `DETACH ${label}`,
      device,
      u.VFIO_DEVICE_DETACH_IOMMUFD_PT,
      u.vfio_device_detach_iommufd_pt.bytes({ argsz: 8 }),
    );
  p.ioctl('GET_INFO before BIND', device, u.VFIO_DEVICE_GET_INFO, u.vfio_device_info.bytes({ argsz: 16 }));
  p.ioctl('RESET before BIND', device, u.VFIO_DEVICE_RESET, 0);
  p.pread('read before BIND', device, 7 * 2 ** 40, 4);
  attach('before BIND', 1);
  detach('before BIND');
  bind('-1', { iommufd: -1 });
  bind('flags', { iommufd: f.fd, flags: 2 });
  bind('argsz 15', { iommufd: f.fd, argsz: 15 });
  bind('a bad fd', { iommufd: 9999 });
  const eventfd = p.eventfd();
  bind('an eventfd', { iommufd: eventfd.fd });
  p.kernel.close(eventfd.fd);
  const groupFd = p.descriptor('open the group', p.kernel.open(`/dev/vfio/${group}`));
  bind('with the group open', { iommufd: f.fd });
  p.kernel.close(groupFd);
  bind('it', { iommufd: f.fd });
  bind('again', { iommufd: f.fd });
  const second = p.descriptor('open twice', p.kernel.open(path));
  bind('the second', { iommufd: f.fd }, second);
  p.kernel.close(second);
  p.descriptor('open the group after BIND', p.kernel.open(`/dev/vfio/${group}`));
  p.ioctl('GET_INFO after BIND', device, u.VFIO_DEVICE_GET_INFO, u.vfio_device_info.bytes({ argsz: 16 }));
  const DEVID = 1;
  f.destroy('the device', DEVID);
  hardware(p, f, DEVID);
  const a = f.ioas();
  attach('none', 99);
  attach('the device itself', DEVID);
  p.ioctl('ATTACH argsz 11', device, u.VFIO_DEVICE_ATTACH_IOMMUFD_PT, attachBytes(a, 11));
  p.ioctl(
    'ATTACH flags',
    device,
    u.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
    u.vfio_device_attach_iommufd_pt.bytes({ argsz: 12, flags: 2, pt_id: a }),
  );
  f.map('over the window before ATTACH', a, va, K, window.start);
  attach('with a map over the window', a);
  f.unmap('it', a, window.start, K);
  f.allow('over the window', a, [[0, 0xffff_ffff]]);
  attach('with the window allowed', a);
  f.allow('nothing', a, []);
  attach('it', a);
  attach('it again', a);
  f.ranges('after ATTACH', a);
  f.ranges('after ATTACH, without room', a, 1);
  f.destroy('the IOAS', a);
  f.map('in the window', a, va, K, window.start);
  f.map('straddling its start', a, va, 2 * K, window.start - K);
  f.map('last page of 48 bits', a, va, K, 2 ** 48 - K);
  f.map('beyond 48 bits', a, va, K, 2 ** 48);
  f.map('less than a page', a, va, 0x800, 0x10_0000);
  f.map('unaligned', a, va, K, 0x10_0800);
  f.map('unaligned va', a, va + 0x800, K, 0x10_0000);
  f.map('bad va', a, 0x1000, K, 0x10_0000);
  f.map('chosen', a, va, K, 0, RW);
  f.map('chosen, 2 MiB', a, va, 0x20_0000, 0, RW);
  f.allow('over the window, attached', a, [[0, 0xffff_ffff]]);
  f.allow('below the window, attached', a, [[0x10_0000, 0x1f_ffff]]);
  f.unmap('all', a, 0, MAX);
  pageTables(f, DEVID, a, { attach, detach });
  interrupts(p, f, device, a, attach);
  detach('it');
  detach('again');
  p.kernel.close(device);
  f.destroy('the device after close', DEVID);
  f.destroy('the IOAS after close', a);
}

function hardware(p, f, dev_id) {
  const buffer = p.kernel.allocate(4096);
  const ask = (name, fields = {}, room = 256) => {
    buffer.bytes.fill(0xaa);
    const bytes = u.iommu_hw_info.bytes({
      size: u.iommu_hw_info.size,
      dev_id,
      data_len: room,
      data_uptr: room > 0 ? buffer.address : 0,
      ...fields,
    });
    const result = p.kernel.ioctl(f.fd, u.IOMMU_GET_HW_INFO, bytes);
    const { __reserved, ...answer } = u.iommu_hw_info.read(bytes);
    delete answer.data_uptr;
    p.note(
      `GET_HW_INFO ${name}`,
      result < 0
        ? u.errnoName(result)
        : JSON.parse(
            JSON.stringify(answer, (_, value) =>
              typeof value === 'bigint' ? `${value}` : value instanceof Uint8Array ? hexBytes(value) : value,
            ),
          ),
    );
    return result;
  };
  if (ask('it') === 0) p.note('GET_HW_INFO data, first 8 bytes', hexBytes(buffer.bytes.subarray(0, 8)));
  p.note(
    'GET_HW_INFO zeroes the rest',
    buffer.bytes.subarray(64, 256).every((byte) => byte === 0),
  );
  ask('without room', {}, 0);
  ask('of none', { dev_id: 99 });
  ask('flags', { flags: 2 });
  ask('bad pointer', { data_uptr: 8 });
  buffer.free();
}

function pageTables(f, dev_id, ioas, { attach, detach }) {
  const alloc = (name, fields) =>
    f.call(
      `HWPT_ALLOC ${name}`,
      u.IOMMU_HWPT_ALLOC,
      u.iommu_hwpt_alloc,
      { dev_id, pt_id: ioas, ...fields },
      ({ out_hwpt_id }) => out_hwpt_id,
    ).out_hwpt_id;
  const plain = alloc('plain', {});
  alloc('of no device', { dev_id: 99 });
  alloc('of no IOAS', { pt_id: 99 });
  alloc('of the device as its parent', { pt_id: dev_id });
  alloc('of a page table that is no parent', { pt_id: plain });
  alloc('unknown flag', { flags: 0x100 });
  alloc('reserved field', { __reserved: 1 });
  alloc('data without a type', { data_len: 16, data_uptr: 0x1000 });
  alloc('a type without data', { data_type: 2 });
  alloc('dirty tracking', { flags: u.IOMMU_HWPT_ALLOC_DIRTY_TRACKING });
  alloc('a fault queue that is none', { flags: u.IOMMU_HWPT_FAULT_ID_VALID, fault_id: 99 });
  const parent = alloc('nest parent', { flags: u.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const viommu = (name, fields) =>
    f.call(
      `VIOMMU_ALLOC ${name}`,
      u.IOMMU_VIOMMU_ALLOC,
      u.iommu_viommu_alloc,
      { dev_id, hwpt_id: parent, ...fields },
      ({ out_viommu_id }) => out_viommu_id,
    ).out_viommu_id;
  viommu('default', { type: 0 });
  viommu('SMMUv3 on a plain one', { type: 1, hwpt_id: plain });
  viommu('SMMUv3 on none', { type: 1, hwpt_id: 99 });
  viommu('SMMUv3 of no device', { type: 1, dev_id: 99 });
  viommu('flags', { type: 1, flags: 1 });
  viommu('SMMUv3', { type: 1 });
  const dirty = (name, fields) =>
    f.call(`HWPT_SET_DIRTY_TRACKING ${name}`, u.IOMMU_HWPT_SET_DIRTY_TRACKING, u.iommu_hwpt_set_dirty_tracking, {
      hwpt_id: plain,
      ...fields,
    });
  dirty('on', { flags: 1 });
  dirty('flags', { flags: 2 });
  dirty('of none', { hwpt_id: 99 });
  attach('a page table', plain);
  attach('the nest parent', parent);
  f.destroy('the one that is attached', parent);
  attach('the IOAS again', ioas);
  detach('for a while');
  f.destroy('plain', plain);
  if (parent !== 0) f.destroy('parent', parent);
  attach('the IOAS at last', ioas);
}

function interrupts(p, f, device, ioas, attach) {
  const eventfd = p.eventfd();
  const set = (name, fd) => {
    const bytes = new Uint8Array(24);
    const flags = u.VFIO_IRQ_SET_DATA_EVENTFD | u.VFIO_IRQ_SET_ACTION_TRIGGER;
    u.vfio_irq_set.patch(bytes, { argsz: 24, flags, index: 1, start: 0, count: 1 });
    bytes.set(s32(fd), 20);
    p.ioctl(name, device, u.VFIO_DEVICE_SET_IRQS, bytes);
  };
  set('MSI on', eventfd.fd);
  const b = f.ioas();
  attach('another IOAS with MSI on', b);
  attach('the first again', ioas);
  set('MSI to -1', -1);
  p.ioctl(
    'MSI off',
    device,
    u.VFIO_DEVICE_SET_IRQS,
    u.vfio_irq_set.bytes({ argsz: 20, flags: u.VFIO_IRQ_SET_DATA_NONE | u.VFIO_IRQ_SET_ACTION_TRIGGER, index: 1 }),
  );
  f.destroy('the other IOAS', b);
  p.kernel.close(eventfd.fd);
}
