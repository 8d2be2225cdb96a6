/** vIOMMU, vDEVICE, vEVENTQ, nested page tables and their invalidation: a stage 1 that user space owns. For `arm64-nesting`. */
import * as u from 'belfry/uapi';
import { s32 } from './container.mjs';
import { hexBytes, plain } from './probe.mjs';

const VSID = 0x42n;
const WINDOW = 0x800_0000n;
/** Where the owner's tables are, and where a buffer is, in the stage 2. */
const TABLES = 0x4000_0000n;
const BUFFER = 0x10_0000n;
const CONFIG = 7 * 2 ** 40;
/** STE: valid, and Config. */
const V = 1n;
const ABORT = 0n << 1n;
const BYPASS = 4n << 1n;
const STAGE1 = 5n << 1n;

export async function probeNesting(p, device) {
  const owner = new Owner(p, device);
  if (owner.viommu === null) return;
  await p.part('virtual devices', () => virtualDevices(owner));
  await p.part('stream table entries', () => entries(owner));
  await p.part('bypass and abort', () => bypassAndAbort(owner));
  await p.part('stage 1', () => stage1(owner));
  await p.part('invalidation', () => invalidation(owner));
  await p.part('end', () => end(owner));
}

/** The device, its stage 2, and what is asked of them. */
class Owner {
  constructor(p, { name }) {
    this.p = p;
    this.fd = p.kernel.open('/dev/iommu');
    const cdev = p.kernel.list(`/sys/bus/pci/devices/${name}/vfio-dev`)?.[0];
    this.device = p.kernel.open(`/dev/vfio/devices/${cdev}`);
    const bind = u.vfio_device_bind_iommufd.bytes({ argsz: u.vfio_device_bind_iommufd.size, iommufd: this.fd });
    p.ioctl('BIND', this.device, u.VFIO_DEVICE_BIND_IOMMUFD, bind);
    this.devid = u.vfio_device_bind_iommufd.read(bind).out_devid;
    this.ioas = this.make('IOAS_ALLOC', u.IOMMU_IOAS_ALLOC, u.iommu_ioas_alloc, {}, 'out_ioas_id');
    this.memory = p.kernel.allocate(0x4000);
    this.tables = p.kernel.allocate(0x1_0000);
    this.map('buffer', BUFFER, this.memory);
    this.map('tables', TABLES, this.tables);
    this.attach('IOAS', this.ioas);
    this.parent = this.hwpt('nest parent', this.ioas, { flags: u.IOMMU_HWPT_ALLOC_NEST_PARENT });
    const fields = { type: u.IOMMU_VIOMMU_TYPE_ARM_SMMUV3, dev_id: this.devid, hwpt_id: this.parent };
    this.viommu = this.make('VIOMMU_ALLOC', u.IOMMU_VIOMMU_ALLOC, u.iommu_viommu_alloc, fields, 'out_viommu_id');
    this.scratch = p.kernel.allocate(4096);
    p.kernel.pwrite(this.device, Uint8Array.of(6, 0), CONFIG + 4);
    this.eventfd = p.eventfd();
    const bytes = new Uint8Array(24);
    u.vfio_irq_set.patch(bytes, {
      argsz: 24,
      flags: u.VFIO_IRQ_SET_DATA_EVENTFD | u.VFIO_IRQ_SET_ACTION_TRIGGER,
      index: 1,
      start: 0,
      count: 1,
    });
    bytes.set(s32(this.eventfd.fd), 20);
    p.ioctl('MSI on', this.device, u.VFIO_DEVICE_SET_IRQS, bytes);
  }

  /** Makes an object; its id, or null. */
  make(name, request, struct, fields, out) {
    const bytes = struct.bytes({ size: struct.size, ...fields });
    const result = this.p.kernel.ioctl(this.fd, request, bytes);
    const id = struct.read(bytes)[out];
    this.p.note(name, result < 0 ? u.errnoName(result) : id);
    return result < 0 ? null : id;
  }

  map(name, iova, { address, length }) {
    const flags = u.IOMMU_IOAS_MAP_FIXED_IOVA | u.IOMMU_IOAS_MAP_READABLE | u.IOMMU_IOAS_MAP_WRITEABLE;
    const fields = { size: 40, flags, ioas_id: this.ioas, user_va: address, length, iova };
    this.p.ioctl(`MAP ${name}`, this.fd, u.IOMMU_IOAS_MAP, u.iommu_ioas_map.bytes(fields));
  }

  attach(name, pt_id) {
    const bytes = u.vfio_device_attach_iommufd_pt.bytes({ argsz: 12, pt_id: pt_id ?? 0 });
    this.p.ioctl(`ATTACH ${name}`, this.device, u.VFIO_DEVICE_ATTACH_IOMMUFD_PT, bytes);
  }

  hwpt(name, pt_id, fields = {}) {
    const whole = { dev_id: this.devid, pt_id, ...fields };
    return this.make(`HWPT_ALLOC ${name}`, u.IOMMU_HWPT_ALLOC, u.iommu_hwpt_alloc, whole, 'out_hwpt_id');
  }

  /** A nested page table from the first two words of a stream table entry. */
  nested(name, word0, word1 = 0n, rest = {}) {
    this.words([word0, word1]);
    const fields = { data_type: u.IOMMU_HWPT_DATA_ARM_SMMUV3, data_len: 16, data_uptr: this.scratch.address, ...rest };
    return this.hwpt(name, this.viommu, fields);
  }

  words(values) {
    const view = new DataView(this.scratch.bytes.buffer, this.scratch.bytes.byteOffset);
    for (const [i, value] of values.entries()) view.setBigUint64(i * 8, BigInt.asUintN(64, value), true);
  }

  destroy(name, id) {
    this.p.ioctl(`DESTROY ${name}`, this.fd, u.IOMMU_DESTROY, u.iommu_destroy.bytes({ size: 8, id: id ?? 0 }));
  }

  register(offset, value) {
    this.p.kernel.pwrite(this.device, new Uint8Array(Uint32Array.of(value).buffer), offset);
  }

  async msi(name) {
    this.register(0x60, 1);
    await this.p.arrived(`MSI ${name}`, this.eventfd, 300);
    this.register(0x64, 1);
  }

  /** edu's DMA without its interrupt, four bytes, waited for by its command register. `toDevice` reads memory. */
  async dma(iova, toDevice) {
    const buffer = 0x4_0000;
    const [source, destination] = toDevice ? [iova, buffer] : [buffer, iova];
    for (const [offset, value] of [
      [0x80, source],
      [0x88, destination],
      [0x90, 4],
      [0x98, toDevice ? 1 : 3],
    ]) {
      this.p.kernel.pwrite(this.device, new Uint8Array(BigUint64Array.of(BigInt(value)).buffer), offset);
    }
    const { kernel, advance } = this.p;
    const command = new Uint8Array(8);
    for (let waited = 0; waited < 1000; waited += 20) {
      advance();
      kernel.settle();
      kernel.pread(this.device, command, 0x98);
      if ((command[0] & 1) === 0) return;
      if (this.p.patience(1) > 0) await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Memory at `from` goes into the device, and out to `to`: what arrived at offset 0x1000 of the buffer. */
  async carry(name, from, to) {
    this.memory.bytes.fill(0, 0x1000, 0x1010);
    await this.dma(from, true);
    await this.dma(to, false);
    this.p.note(`DMA ${name}`, hexBytes(this.memory.bytes.subarray(0x1000, 0x1004)));
  }

  async events(name) {
    if (this.queue === undefined) return;
    const bytes = new Uint8Array(400);
    let result = 0;
    for (let waited = 0; waited <= this.p.patience(300) && result === 0; waited += 20) {
      this.p.kernel.settle();
      result = this.p.kernel.read(this.queue, bytes);
      if (result === 0 && waited < this.p.patience(300)) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.p.note(`events ${name}`, result < 0 ? u.errnoName(result) : plain(bytes.subarray(0, result)));
  }
}

function virtualDevices(o) {
  const { p } = o;
  const device = (name, fields) =>
    o.make(
      `VDEVICE_ALLOC ${name}`,
      u.IOMMU_VDEVICE_ALLOC,
      u.iommu_vdevice_alloc,
      { viommu_id: o.viommu, dev_id: o.devid, virt_id: VSID, ...fields },
      'out_vdevice_id',
    );
  device('on none', { viommu_id: 99 });
  device('of none', { dev_id: 99 });
  o.vdevice = device('it');
  device('again', {});
  device('again, another number', { virt_id: 0x43n });
  const queue = (name, fields) => {
    const whole = {
      size: u.iommu_veventq_alloc.size,
      viommu_id: o.viommu,
      type: u.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
      veventq_depth: 16,
      ...fields,
    };
    const bytes = u.iommu_veventq_alloc.bytes(whole);
    const result = p.kernel.ioctl(o.fd, u.IOMMU_VEVENTQ_ALLOC, bytes);
    p.note(`VEVENTQ_ALLOC ${name}`, result < 0 ? u.errnoName(result) : 'fd');
    return result < 0 ? undefined : u.iommu_veventq_alloc.read(bytes);
  };
  queue('flags', { flags: 1 });
  queue('type 0', { type: 0 });
  queue('type 7', { type: 7 });
  queue('depth 0', { veventq_depth: 0 });
  queue('depth 2^19 + 1', { veventq_depth: 2 ** 19 + 1 });
  queue('on none', { viommu_id: 99 });
  queue('reserved field', { __reserved: 1 });
  const made = queue('it', {});
  queue('again', {});
  o.queue = made?.out_veventq_fd;
  if (made === undefined) return;
  p.read('read, nothing there', o.queue, 64);
  p.read('read, 7 bytes', o.queue, 7);
  p.result('write', p.kernel.write(o.queue, new Uint8Array(8)));
  o.destroy('the queue while it is open', made.out_veventq_id);
}

function entries(o) {
  const made = [];
  const entry = (name, word0, word1, rest) => {
    const id = o.nested(name, word0, word1, rest);
    if (id !== null) made.push(id);
  };
  entry('not valid', 0n);
  entry('not valid, with other bits', STAGE1);
  entry('abort', V | ABORT);
  entry('bypass', V | BYPASS);
  entry('stage 1', V | STAGE1 | TABLES);
  entry('stage 2', V | (6n << 1n));
  entry('both', V | (7n << 1n));
  entry('Config 1', V | (1n << 1n));
  entry('S1Fmt 1', V | STAGE1 | TABLES | (1n << 4n));
  entry('S1CDMax 1', V | STAGE1 | TABLES | (1n << 59n));
  entry('a bit between', V | BYPASS | (1n << 52n));
  entry('EATS 1', V | BYPASS, 1n << 28n);
  entry('EATS 2', V | BYPASS, 2n << 28n);
  entry('EATS 3', V | BYPASS, 3n << 28n);
  entry('S1STALLD', V | BYPASS, 1n << 27n);
  entry('STRW', V | BYPASS, 1n << 30n);
  entry('a bit of word 1', V | BYPASS, 1n << 40n);
  entry('data of 8 bytes', V | BYPASS, 0n, { data_len: 8 });
  entry('data of 24 bytes, zeroes behind', V | BYPASS, 0n, { data_len: 24 });
  entry('bad pointer', V | BYPASS, 0n, { data_uptr: 8 });
  entry('type 1', V | BYPASS, 0n, { data_type: 1 });
  entry('flags', V | BYPASS, 0n, { flags: u.IOMMU_HWPT_ALLOC_NEST_PARENT });
  for (const id of made) o.destroy('one of them', id);
}

async function bypassAndAbort(o) {
  o.memory.bytes.set([1, 2, 3, 4]);
  o.attach('the parent', o.parent);
  await o.msi('through the parent');
  await o.carry('through the parent', BUFFER, BUFFER + 0x1000n);
  o.bypass = o.nested('bypass', V | BYPASS);
  o.attach('bypass', o.bypass);
  await o.msi('through bypass');
  await o.carry('through bypass', BUFFER, BUFFER + 0x1000n);
  const abort = o.nested('abort', V | ABORT);
  o.attach('abort', abort);
  await o.msi('through abort');
  await o.carry('through abort', BUFFER, BUFFER + 0x1000n);
  await o.events('of abort');
  o.destroy('abort while it is attached', abort);
  o.attach('bypass again', o.bypass);
  o.destroy('abort', abort);
}

/** A context descriptor and tables of 4 KiB, 39 bits: three levels, for one gigabyte around 0x0700_0000 and the window. */
function writeTables(o) {
  const view = new DataView(o.tables.bytes.buffer, o.tables.bytes.byteOffset);
  const put = (offset, value) => view.setBigUint64(offset, BigInt.asUintN(64, value), true);
  // T0SZ 25, 4 KiB, write-back, inner shareable, TTBR1 off; valid; 48 bits; AArch64; faults are recorded; ASID 1.
  const control = 25n | (1n << 8n) | (1n << 10n) | (3n << 12n) | (1n << 30n) | (1n << 31n) | (5n << 32n);
  put(0, control | (1n << 41n) | (1n << 45n) | (1n << 46n) | (1n << 47n) | (1n << 48n));
  put(8, TABLES + 0x1000n);
  put(24, 0xffn);
  put(0x1000, (TABLES + 0x2000n) | 3n);
  put(0x2000 + 8 * Number(0x700_0000n >> 21n), (TABLES + 0x3000n) | 3n);
  put(0x2000 + 8 * Number(WINDOW >> 21n), (TABLES + 0x4000n) | 3n);
  o.page = (iova, ipa, readOnly = false) => {
    const leaf = iova >= WINDOW ? 0x4000 : 0x3000;
    const entry =
      ipa === null ? 0n : ipa | 3n | (1n << 6n) | (readOnly ? 1n << 7n : 0n) | (3n << 8n) | (1n << 10n) | (3n << 53n);
    put(leaf + 8 * Number((iova >> 12n) & 511n), entry);
  };
}

async function stage1(o) {
  writeTables(o);
  o.page(0x700_0000n, BUFFER);
  o.page(0x700_1000n, BUFFER + 0x1000n);
  o.page(0x700_2000n, BUFFER + 0x2000n, true);
  o.page(0x700_3000n, 0x9000_0000n);
  const table = o.nested('stage 1', V | STAGE1 | TABLES, 0n);
  o.attach('stage 1', table);
  await o.carry('through stage 1', 0x700_0000, 0x700_1000);
  await o.events('of what is mapped');
  await o.msi('while the window is not mapped');
  await o.events('of the MSI');
  o.page(WINDOW, WINDOW);
  invalidate(o, 'all', [[0x10n, 0n]]);
  await o.msi('with the window mapped');
  await o.dma(0x710_0000, true);
  await o.events('of a read of nothing');
  await o.dma(0x710_0000, false);
  await o.events('of a write of nothing');
  await o.dma(0x700_2000, false);
  await o.events('of a write of what is read only');
  await o.dma(0x700_3000, true);
  await o.events('of a hole in stage 2');
  o.memory.bytes.set([9, 9, 9, 9], 0x2000);
  o.page(0x700_0000n, BUFFER + 0x2000n);
  invalidate(o, 'ASID 1', [[0x11n | (1n << 48n), 0n]]);
  await o.carry('after the page moved', 0x700_0000, 0x700_1000);
  o.table = table;
}

function invalidate(o, name, commands, rest = {}) {
  o.words(commands.flat());
  const bytes = u.iommu_hwpt_invalidate.bytes({
    size: u.iommu_hwpt_invalidate.size,
    hwpt_id: o.viommu,
    data_uptr: o.scratch.address,
    data_type: u.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
    entry_len: 16,
    entry_num: commands.length,
    ...rest,
  });
  const result = o.p.kernel.ioctl(o.fd, u.IOMMU_HWPT_INVALIDATE, bytes);
  const { entry_num } = u.iommu_hwpt_invalidate.read(bytes);
  o.p.note(`INVALIDATE ${name}`, [result < 0 ? u.errnoName(result) : result, entry_num]);
}

function invalidation(o) {
  const sid = VSID << 32n;
  const opcodes = {
    CFGI_STE: 0x03n | sid,
    CFGI_ALL: 0x04n,
    CFGI_CD: 0x05n | sid,
    CFGI_CD_ALL: 0x06n | sid,
    NH_ALL: 0x10n,
    NH_ASID: 0x11n | (1n << 48n),
    NH_VA: 0x12n | (1n << 48n),
    NH_VAA: 0x13n,
    EL2_ALL: 0x20n,
    S2_IPA: 0x2an,
    S12_VMALL: 0x28n,
    NSNH_ALL: 0x30n,
    ATC_INV: 0x40n | sid,
    SYNC: 0x46n,
    RESUME: 0x44n,
    PREFETCH: 0x01n,
  };
  for (const [name, word] of Object.entries(opcodes)) invalidate(o, name, [[word, 0x700_0000n]]);
  invalidate(o, 'CFGI_CD of another number', [[0x05n | (0x77n << 32n), 0n]]);
  invalidate(o, 'ATC_INV of another number', [[0x40n | (0x77n << 32n), 0n]]);
  invalidate(o, 'none', []);
  invalidate(o, 'two', [
    [0x10n, 0n],
    [0x11n, 0n],
  ]);
  invalidate(o, 'two, the second wrong', [
    [0x10n, 0n],
    [0x03n, 0n],
  ]);
  invalidate(o, 'type 0', [[0x10n, 0n]], { data_type: 0 });
  invalidate(o, 'entries of 8 bytes', [[0x10n, 0n]], { entry_len: 8 });
  invalidate(o, 'entries of 24 bytes', [[0x10n, 0n]], { entry_len: 24 });
  invalidate(o, 'entries of 0 bytes', [[0x10n, 0n]], { entry_len: 0 });
  invalidate(o, 'entries of 5,000 bytes', [[0x10n, 0n]], { entry_len: 5000 });
  invalidate(o, 'too many', [[0x10n, 0n]], { entry_num: 2 ** 20 });
  invalidate(o, 'no pointer', [[0x10n, 0n]], { data_uptr: 0 });
  invalidate(o, 'bad pointer', [[0x10n, 0n]], { data_uptr: 8 });
  invalidate(o, 'reserved field', [[0x10n, 0n]], { __reserved: 1 });
  invalidate(o, 'of none', [[0x10n, 0n]], { hwpt_id: 99 });
  invalidate(o, 'of the parent', [[0x10n, 0n]], { hwpt_id: o.parent });
  invalidate(o, 'of the stage 1', [[0x10n, 0n]], { hwpt_id: o.table });
}

function end(o) {
  o.destroy('the virtual device', o.vdevice);
  o.destroy('the virtual IOMMU', o.viommu);
  o.destroy('the stage 1 while it is attached', o.table);
  o.attach('the IOAS', o.ioas);
  o.destroy('the stage 1', o.table);
  o.destroy('bypass', o.bypass);
  o.attach('stage 1, gone', o.table);
  o.p.kernel.close(o.device);
  if (o.queue !== undefined) o.p.kernel.close(o.queue);
  o.p.kernel.close(o.fd);
}
