/** A stage 1 that user space owns: a device under a nest parent, with a virtual IOMMU; its tables and a buffer in the stage 2. */
import * as u from 'belfry/uapi';
import { attach, bound, destroy, enable, K, trigger, u32 } from './fixtures.mjs';

export const VSID = 0x42n;
export const WINDOW = 0x800_0000n;
export const TABLES = 0x4000_0000n;
export const BUFFER = 0x10_0000n;
/** Where the stage 1 has the buffer. */
export const VIRTUAL = 0x700_0000n;
export const STE = { V: 1n, ABORT: 0n, BYPASS: 4n << 1n, STAGE1: 5n << 1n };

export function nested(t) {
  const host = bound('edu')(t);
  const owner = new Owner(t, host);
  enable(t, host.device);
  return owner;
}

class Owner {
  constructor(t, host) {
    Object.assign(this, { t, ...host });
    this.memory = t.memory(0x4000);
    this.tables = t.memory(0x1_0000);
    this.scratch = t.memory(K);
    this.map(BUFFER, this.memory);
    this.map(TABLES, this.tables);
    this.parent = this.must(u.IOMMU_HWPT_ALLOC, u.iommu_hwpt_alloc, {
      dev_id: host.devid,
      pt_id: host.ioas,
      flags: u.IOMMU_HWPT_ALLOC_NEST_PARENT,
    }).out_hwpt_id;
    const fields = { type: u.IOMMU_VIOMMU_TYPE_ARM_SMMUV3, dev_id: host.devid, hwpt_id: this.parent };
    this.viommu = this.must(u.IOMMU_VIOMMU_ALLOC, u.iommu_viommu_alloc, fields).out_viommu_id;
  }

  /** A request that must succeed, and what was written back. */
  must(number, struct, fields) {
    const bytes = struct.bytes({ size: struct.size, ...fields });
    this.t.must(struct.name ?? 'request', this.t.kernel.ioctl(this.iommufd, number, bytes));
    return struct.read(bytes);
  }

  map(iova, { address, length }) {
    const flags = u.IOMMU_IOAS_MAP_FIXED_IOVA | u.IOMMU_IOAS_MAP_READABLE | u.IOMMU_IOAS_MAP_WRITEABLE;
    this.must(u.IOMMU_IOAS_MAP, u.iommu_ioas_map, { flags, ioas_id: this.ioas, user_va: address, length, iova });
  }

  words(values) {
    const view = new DataView(this.scratch.bytes.buffer, this.scratch.bytes.byteOffset);
    for (const [i, value] of values.entries()) view.setBigUint64(i * 8, BigInt.asUintN(64, value), true);
    return this.scratch.address;
  }

  /** A nested page table from the first two words of a stream table entry, and what is expected of it. @returns its id */
  entry(what, word0, word1, expected, rest = {}) {
    const data_uptr = this.words([word0, word1]);
    const fields = {
      size: 48,
      dev_id: this.devid,
      pt_id: this.viommu,
      data_type: u.IOMMU_HWPT_DATA_ARM_SMMUV3,
      data_len: 16,
      data_uptr,
      ...rest,
    };
    return this.t.request(what, this.iommufd, u.IOMMU_HWPT_ALLOC, u.iommu_hwpt_alloc, fields, expected).out_hwpt_id;
  }

  attach(pt_id) {
    return attach(this.t, this.device, pt_id);
  }

  destroy(id) {
    return destroy(this.t, this.iommufd, id);
  }

  vdevice(what, fields, expected) {
    const all = {
      size: u.iommu_vdevice_alloc.size,
      viommu_id: this.viommu,
      dev_id: this.devid,
      virt_id: VSID,
      ...fields,
    };
    return this.t.request(what, this.iommufd, u.IOMMU_VDEVICE_ALLOC, u.iommu_vdevice_alloc, all, expected)
      .out_vdevice_id;
  }

  queueRequest(what, fields, expected) {
    const all = {
      size: u.iommu_veventq_alloc.size,
      viommu_id: this.viommu,
      type: u.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
      veventq_depth: 16,
      ...fields,
    };
    const answer = this.t.request(what, this.iommufd, u.IOMMU_VEVENTQ_ALLOC, u.iommu_veventq_alloc, all, expected);
    if (expected === 0) this.t.descriptor('its file', answer.out_veventq_fd);
    return answer;
  }

  /** Commands of 16 bytes: `[errno or 0, how many were done]` is expected. */
  invalidate(what, commands, expected, rest = {}) {
    const data_uptr = this.words(commands.flat());
    const fields = {
      size: 32,
      hwpt_id: this.viommu,
      data_uptr,
      data_type: u.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
      entry_len: 16,
      entry_num: commands.length,
      ...rest,
    };
    const bytes = u.iommu_hwpt_invalidate.bytes(fields);
    const result = this.t.kernel.ioctl(this.iommufd, u.IOMMU_HWPT_INVALIDATE, bytes);
    const { entry_num } = u.iommu_hwpt_invalidate.read(bytes);
    this.t.same(what, [result < 0 ? u.errnoName(result) : result, entry_num], expected);
  }

  /** A context descriptor and tables of 4 KiB pages for 39 bits: around the buffer's virtual place, and the window. */
  writeTables() {
    const view = new DataView(this.tables.bytes.buffer, this.tables.bytes.byteOffset);
    const put = (offset, value) => view.setBigUint64(offset, BigInt.asUintN(64, value), true);
    // IHI 0070 5.4: T0SZ 25, write-back, inner shareable, EPD1, V, IPS 48 bits; AA64, R, A, ASET; ASID 1.
    const control = 25n | (1n << 8n) | (1n << 10n) | (3n << 12n) | (1n << 30n) | (1n << 31n) | (5n << 32n);
    put(0, control | (1n << 41n) | (1n << 45n) | (1n << 46n) | (1n << 47n) | (1n << 48n));
    put(8, TABLES + 0x1000n);
    put(24, 0xffn);
    put(0x1000, (TABLES + 0x2000n) | 3n);
    put(0x2000 + 8 * Number(VIRTUAL >> 21n), (TABLES + 0x3000n) | 3n);
    put(0x2000 + 8 * Number(WINDOW >> 21n), (TABLES + 0x4000n) | 3n);
    this.page = (iova, ipa, readOnly = false) => {
      const leaf = iova >= WINDOW ? 0x4000 : 0x3000;
      // nG: an invalidation by ASID does not touch what is global.
      const attributes = 3n | (1n << 6n) | (readOnly ? 1n << 7n : 0n) | (3n << 8n) | (3n << 10n) | (3n << 53n);
      put(leaf + 8 * Number((iova >> 12n) & 511n), ipa === null ? 0n : ipa | attributes);
    };
  }

  /** The stage 1, attached; the device has its virtual number. @param window whether the window is mapped in it */
  stage1({ window }) {
    this.writeTables();
    this.page(VIRTUAL, BUFFER);
    this.page(VIRTUAL + 0x1000n, BUFFER + 0x1000n);
    if (window) this.page(WINDOW, WINDOW);
    this.vdevice('vDEVICE', {}, 0);
    this.queue = this.queueRequest('vEVENTQ', {}, 0).out_veventq_fd;
    const table = this.entry('stage 1', STE.V | STE.STAGE1 | TABLES, 0n, 0);
    this.t.result('attach', this.attach(table), table);
    return table;
  }

  msiOn() {
    [this.eventfd] = trigger(this.t, this.device, 1, 1);
  }

  async msi(what, expected) {
    this.t.must('raise', this.t.kernel.pwrite(this.device, u32(1), 0x60));
    await this.t.events(what, this.eventfd, expected);
    this.t.must('acknowledge', this.t.kernel.pwrite(this.device, u32(1), 0x64));
  }

  /** edu's DMA of four bytes; `toDevice` reads memory. */
  async dma(iova, toDevice) {
    const { t } = this;
    const [source, destination] = toDevice ? [iova, 0x4_0000n] : [0x4_0000n, iova];
    const registers = [
      [0x80, source],
      [0x88, destination],
      [0x90, 4n],
      [0x98, toDevice ? 1n : 3n],
    ];
    for (const [offset, value] of registers)
      t.must('register', t.kernel.pwrite(this.device, new Uint8Array(BigUint64Array.of(value).buffer), offset));
    const command = new Uint8Array(8);
    for (let i = 0; i < 200; i++) {
      await t.step();
      t.must('command', t.kernel.pread(this.device, command, 0x98));
      if ((command[0] & 1) === 0) return;
    }
    throw new Error('edu did not end its DMA');
  }

  /** What stands behind `from` goes through the device to `to`: the four bytes at 0x1000 of the buffer are expected. */
  async carry(what, from, to, expected) {
    this.memory.bytes.fill(0, 0x1000, 0x1010);
    await this.dma(from, true);
    await this.dma(to, false);
    this.t.same(what, this.memory.bytes.slice(0x1000, 0x1004), Uint8Array.from(expected));
  }

  /** The next record of the event queue: `{ sequence, event, sid, address }`, or null. */
  async record(what, expected) {
    const { t } = this;
    const bytes = new Uint8Array(40);
    let got = 0;
    for (let i = 0; i < 30 && got === 0; i++) {
      await t.step();
      got = t.must('read', t.kernel.read(this.queue, bytes));
      if (expected === null && i > 5) break;
    }
    const view = new DataView(bytes.buffer);
    const record = {
      sequence: view.getUint32(4, true),
      event: bytes[8],
      sid: view.getUint32(12, true),
      address: view.getBigUint64(24, true),
    };
    t.same(what, got === 0 ? null : record, expected);
  }
}
