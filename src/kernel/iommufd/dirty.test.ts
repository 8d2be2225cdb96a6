/** Dirty tracking on a machine: iommufd/hw_pagetable.c, io_pagetable.c, iova_bitmap.c, arm-smmu-v3.c and io-pgtable-arm.c of Linux 7.2. */
import { describe, expect, it } from 'vitest';
import { BellDma, BellRegister } from '../../devices/index.ts';
import type { MachineInput } from '../../machine/define.ts';
import type { UserBuffer } from '../../ports/kernel.ts';
import * as uapi from '../../uapi/iommufd.ts';
import { allocate, READ, WRITE } from './testing.ts';
import { CdevLab } from './testing-machine.ts';
import { IOVA, PasidLab } from './testing-pasid.ts';

const K = 1024;
const M = K * K;
const PAGE = 4096;
const { IOMMU_HWPT_ALLOC_DIRTY_TRACKING: TRACKED, IOMMU_HWPT_ALLOC_PASID: PASID } = uapi;
const { IOMMU_HWPT_ALLOC_NEST_PARENT: PARENT, IOMMU_HWPT_FAULT_ID_VALID: FAULT } = uapi;
const NO_CLEAR = uapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
type SmmuInput = Extract<MachineInput['iommu'], { type: 'smmuv3' }>;
const SMMU: SmmuInput = { type: 'smmuv3', base: 0x5200_0000, httu: 'dirty' };

/** A device that translates through a page table that tracks, over an IOAS: ids 1, 2 and 3. */
function tracked(smmu: Partial<SmmuInput> = {}, flags = TRACKED) {
  const lab = new CdevLab('arm-its', { machine: { iommu: { ...SMMU, ...smmu } } });
  const { iommufd, client } = lab;
  const dev = lab.bind(0) as number;
  const ioas = iommufd.ioas();
  const hwpt = iommufd.hwpt(dev, ioas, flags);
  expect([dev, ioas, hwpt, iommufd.attach(lab.devices[0]!, Number(hwpt))]).toEqual([1, 2, 3, 3]);
  const set = (fields: object): number | string =>
    iommufd.call(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, uapi.iommu_hwpt_set_dirty_tracking, { hwpt_id: 3, ...fields })
      .result;
  const bitmap = allocate(client, 16 * PAGE);
  const get = (iova: number | bigint, length: number | bigint, fields: object = {}): number | string =>
    iommufd.call(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, uapi.iommu_hwpt_get_dirty_bitmap, {
      hwpt_id: 3,
      iova,
      length,
      page_size: PAGE,
      data: bitmap.address,
      ...fields,
    }).result;
  /** The dirty pages of a range, counted from its beginning, and made clean. */
  const read = (iova: number, length: number, fields: { page_size?: number; flags?: number } = {}): number[] => {
    bitmap.bytes.fill(0);
    expect(get(iova, length, fields)).toBe(0);
    return bits(bitmap.bytes);
  };
  return { lab, iommufd, client, set, get, read, bitmap, dma: (iova: number) => lab.dma(0, iova, 0x1234_5678) };
}

const bits = (bytes: Uint8Array): number[] =>
  [...bytes].flatMap((byte, at) =>
    [0, 1, 2, 3, 4, 5, 6, 7].flatMap((bit) => ((byte >>> bit) & 1 ? [at * 8 + bit] : [])),
  );

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

function mapped(length: number, iova = 16 * M, smmu: Partial<SmmuInput> = {}) {
  const host = tracked(smmu);
  const memory: UserBuffer = allocate(host.client, length);
  expect(host.iommufd.mapAt(2, iova, memory.address, length)).toBe(0);
  return { ...host, memory, iova };
}

describe('IOMMU_CAP_DIRTY_TRACKING', () => {
  const capable = (machine: 'arm-its' | 'x86', iommu?: SmmuInput): [number, number | string] => {
    const lab = new CdevLab(machine, iommu === undefined ? {} : { machine: { iommu } });
    const dev = Number(lab.bind(0));
    const { out_capabilities } = lab.iommufd.call(uapi.IOMMU_GET_HW_INFO, uapi.iommu_hw_info, { dev_id: dev });
    const has = Number(out_capabilities) & uapi.IOMMU_HW_CAP_DIRTY_TRACKING;
    return [has, lab.iommufd.hwpt(dev, lab.iommufd.ioas(), TRACKED)];
  };

  it('an SMMU with the dirty state has it; with access flags alone it has not', () => {
    expect(capable('arm-its')).toEqual([1, 3]);
    expect(capable('arm-its', { ...SMMU, httu: 'access' })).toEqual([0, 'EOPNOTSUPP']);
    expect(capable('arm-its', { ...SMMU, httu: 'none' })).toEqual([0, 'EOPNOTSUPP']);
  });

  it('VT-d in legacy mode has no second-stage access and dirty bits (ssads_supported)', () => {
    expect(capable('x86')).toEqual([0, 'EOPNOTSUPP']);
  });
});

describe('IOMMU_HWPT_ALLOC with DIRTY_TRACKING', () => {
  it('goes with PASID and FAULT_ID, not with NEST_PARENT, and takes a stage 1', () => {
    const { iommufd } = tracked();
    expect(iommufd.hwpt(1, 2, TRACKED | PASID)).toBe(4);
    expect(iommufd.hwpt(1, 2, TRACKED | PARENT)).toBe('EOPNOTSUPP');
    expect(iommufd.hwpt(1, 2, TRACKED | PASID | PARENT)).toBe('EOPNOTSUPP');
    expect(iommufd.hwpt(1, 2, TRACKED | 0x10)).toBe('EOPNOTSUPP');
    const fault = iommufd.call(uapi.IOMMU_FAULT_QUEUE_ALLOC, uapi.iommu_fault_alloc, {});
    const fields = { dev_id: 1, pt_id: 2, flags: TRACKED | FAULT, fault_id: fault.out_fault_id };
    expect(iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, fields).result).toBe(0);
    const stage2 = new CdevLab('arm-its', { machine: { iommu: { ...SMMU, stage1: false } } });
    expect([stage2.bind(0), stage2.iommufd.ioas(), stage2.iommufd.hwpt(1, 2, TRACKED)]).toEqual([1, 2, 'EOPNOTSUPP']);
  });

  it('writes CD.HA and HD, and a descriptor with DBM that is dirty from the beginning; read-only stays read-only', () => {
    const { lab, iommufd, client, iova } = mapped(PAGE);
    const fixed = allocate(client, PAGE);
    expect(iommufd.mapAt(2, iova + PAGE, fixed.address, PAGE, READ)).toBe(0);
    const { domain } = lab.group(0);
    expect(domain.dirtyOps).toBeDefined();
    const seen: [number, number][] = [];
    domain.dirtyOps?.readAndClearDirty(iova, 2 * PAGE, true, (at, length) => seen.push([at, length]));
    expect(seen).toEqual([[iova, PAGE]]);
  });
});

describe('IOMMU_HWPT_SET_DIRTY_TRACKING', () => {
  const rows: readonly [string, object, number | string][] = [
    ['an unknown flag, before an id that is none', { flags: 2, hwpt_id: 99 }, 'EOPNOTSUPP'],
    ['an id that is none', { flags: 1, hwpt_id: 99 }, 'ENOENT'],
    ['an id of a device', { flags: 1, hwpt_id: 1 }, 'ENOENT'],
    ['an id of an IOAS', { flags: 1, hwpt_id: 2 }, 'ENOENT'],
    ['__reserved is not looked at', { flags: 1, __reserved: 7 }, 0],
    ['on', { flags: 1 }, 0],
    ['off', { flags: 0 }, 0],
  ];
  const { set, iommufd } = tracked();
  it.each(rows)('%s: %o is %s', (_, fields, answer) => {
    expect(set(fields)).toBe(answer);
  });

  it('a page table that was made without the flag: EOPNOTSUPP, to switch it off too', () => {
    const plain = iommufd.hwpt(1, 2);
    expect([set({ flags: 1, hwpt_id: plain }), set({ flags: 0, hwpt_id: plain })]).toEqual([
      'EOPNOTSUPP',
      'EOPNOTSUPP',
    ]);
  });

  it('a nest parent is one of those, a stage 2', () => {
    expect(set({ flags: 1, hwpt_id: iommufd.hwpt(1, 2, PARENT) })).toBe('EOPNOTSUPP');
  });

  it('on makes everything clean, also when it was on; off changes nothing, and the SMMU goes on', () => {
    const { set, read, dma, iova } = mapped(8 * PAGE);
    expect(read(iova, 8 * PAGE, { flags: NO_CLEAR })).toEqual(range(0, 8));
    expect(set({ flags: 1 })).toBe(0);
    expect(read(iova, 8 * PAGE)).toEqual([]);
    dma(iova + 3 * PAGE);
    expect(set({ flags: 1 })).toBe(0);
    expect(read(iova, 8 * PAGE)).toEqual([]);
    expect(set({ flags: 0 })).toBe(0);
    dma(iova + 5 * PAGE);
    expect(read(iova, 8 * PAGE)).toEqual([5]);
  });
});

describe('IOMMU_HWPT_GET_DIRTY_BITMAP', () => {
  const host = mapped(8 * PAGE, 0x10_0000);
  const { iommufd, get } = host;
  const at = 0x10_0000;
  const U64 = 2n ** 64n;

  const rows: readonly [string, () => number | string, number | string][] = [
    ['an unknown flag', () => get(1, 0, { flags: 2, hwpt_id: 99 }), 'EOPNOTSUPP'],
    ['__reserved', () => get(1, 0, { __reserved: 1, hwpt_id: 99 }), 'EOPNOTSUPP'],
    ['an id that is none, before the range', () => get(U64 - 1n, PAGE, { hwpt_id: 99 }), 'ENOENT'],
    ['an id of an IOAS', () => get(U64 - 1n, PAGE, { hwpt_id: 2 }), 'ENOENT'],
    ['a range that wraps, before its alignment', () => get(U64 - 1n, PAGE, { page_size: 0 }), 'EOVERFLOW'],
    ['length 0 away from iova 0 wraps', () => get(at, 0), 'EOVERFLOW'],
    ['iova within a page, before page_size 0', () => get(at + 1, PAGE - 1, { page_size: 0 }), 'EINVAL'],
    ['an end within a page', () => get(at, PAGE + 1), 'EINVAL'],
    ['page_size 0', () => get(at, PAGE, { page_size: 0 }), 'EINVAL'],
    ['iova that is no multiple of page_size', () => get(at + PAGE, 2 * PAGE, { page_size: 2 * PAGE }), 'EINVAL'],
    ['an end that is no multiple of page_size', () => get(at, 3 * PAGE, { page_size: 2 * PAGE }), 'EINVAL'],
    ['length 0 at iova 0 is everything, and nothing is there', () => get(0, 0), 0],
    ['a hole', () => get(2 * M, PAGE), 0],
    ['a bitmap that is not mapped is no error', () => get(at, PAGE, { data: 0x10 }), 0],
    ['a page_size below the page', () => get(at, PAGE, { page_size: 512 }), 0],
  ];
  it.each(rows)('%s', (_, act, answer) => {
    expect(act()).toBe(answer);
  });

  it('a page table that does not track, after the range: EINVAL, then EOPNOTSUPP', () => {
    const plain = iommufd.hwpt(1, 2);
    expect(get(at, PAGE, { hwpt_id: plain, page_size: 0 })).toBe('EINVAL');
    expect(get(at, PAGE, { hwpt_id: plain })).toBe('EOPNOTSUPP');
  });
});

describe('what the bitmap says', () => {
  it('the pages that a device wrote, once each; NO_CLEAR leaves them', () => {
    const { set, read, dma, iova } = mapped(64 * PAGE);
    set({ flags: 1 });
    for (const page of [0, 1, 7, 8, 33, 63]) dma(iova + page * PAGE + 0x44);
    expect(read(iova, 64 * PAGE, { flags: NO_CLEAR })).toEqual([0, 1, 7, 8, 33, 63]);
    expect(read(iova, 64 * PAGE)).toEqual([0, 1, 7, 8, 33, 63]);
    expect(read(iova, 64 * PAGE)).toEqual([]);
    dma(iova + 7 * PAGE);
    expect(read(iova + 4 * PAGE, 4 * PAGE)).toEqual([3]);
  });

  it('reads of a device make nothing dirty, and what they leave in the TLB hides no write', () => {
    const { lab, client, set, read, memory, dma, iova } = mapped(4 * PAGE);
    const register = (at: number, value: number): unknown =>
      client.pwrite(lab.devices[0]!, new Uint8Array(Int32Array.of(value).buffer), at);
    set({ flags: 1 });
    memory.bytes.set([1, 2, 3, 4], PAGE);
    register(BellRegister.DMA_IOVA_LO, iova + PAGE);
    register(BellRegister.DMA_IOVA_HI, 0);
    register(BellRegister.DMA_LOCAL, 8);
    register(BellRegister.DMA_LENGTH, 4);
    for (let i = 0; i < 3; i++) register(BellRegister.DMA_COMMAND, BellDma.START);
    client.settle();
    const got = new Uint8Array(4);
    client.pread(lab.devices[0]!, got, 4 * 2 ** 40 + 8);
    expect([...got]).toEqual([1, 2, 3, 4]);
    expect(read(iova, 4 * PAGE)).toEqual([]);
    dma(iova + PAGE);
    expect(read(iova, 4 * PAGE)).toEqual([1]);
  });

  it('only adds to what the bitmap holds, from whatever byte it begins at', () => {
    const { set, get, dma, iova, bitmap } = mapped(16 * PAGE);
    set({ flags: 1 });
    dma(iova + 9 * PAGE);
    bitmap.bytes.fill(0);
    bitmap.bytes[0xffe] = 0x80;
    expect(get(iova, 16 * PAGE, { data: bitmap.address + 0xfff })).toBe(0);
    expect(bits(bitmap.bytes)).toEqual([0xffe * 8 + 7, 0x1000 * 8 + 1]);
  });

  it('a larger page_size gathers, a smaller one spreads', () => {
    const { set, read, dma, iova } = mapped(16 * PAGE);
    set({ flags: 1 });
    dma(iova + 5 * PAGE);
    expect(read(iova, 16 * PAGE, { page_size: 4 * PAGE, flags: NO_CLEAR })).toEqual([1]);
    expect(read(iova, 16 * PAGE, { page_size: 1024 })).toEqual([20, 21, 22, 23]);
  });

  it('areas that touch are read through, and nothing behind a hole', () => {
    const { iommufd, client, set, read, dma, iova } = mapped(2 * PAGE);
    const more = allocate(client, 4 * PAGE);
    expect(iommufd.mapAt(2, iova + 2 * PAGE, more.address, PAGE)).toBe(0);
    expect(iommufd.mapAt(2, iova + 4 * PAGE, more.address + PAGE, PAGE)).toBe(0);
    set({ flags: 1 });
    for (const page of [1, 2, 4]) dma(iova + page * PAGE);
    expect(read(iova, 8 * PAGE)).toEqual([1, 2]);
    expect(read(iova + 3 * PAGE, 2 * PAGE)).toEqual([]);
    expect(read(iova + 4 * PAGE, PAGE)).toEqual([0]);
  });

  it('what is mapped while tracking is on is dirty, and what is unmapped takes its dirty state along', () => {
    const { iommufd, set, read, dma, memory, iova } = mapped(4 * PAGE);
    set({ flags: 1 });
    dma(iova);
    expect(iommufd.unmap(2, iova, 4 * PAGE)).toBe(BigInt(4 * PAGE));
    expect(read(iova, 4 * PAGE)).toEqual([]);
    expect(iommufd.mapAt(2, iova, memory.address, 4 * PAGE)).toBe(0);
    expect(read(iova, 4 * PAGE)).toEqual([0, 1, 2, 3]);
    expect(iommufd.unmap(2, iova, 4 * PAGE)).toBe(BigInt(4 * PAGE));
    expect(iommufd.mapAt(2, iova, memory.address, 4 * PAGE, READ)).toBe(0);
    expect(read(iova, 4 * PAGE)).toEqual([]);
    expect(iommufd.unmap(2, iova, 4 * PAGE)).toBe(BigInt(4 * PAGE));
    expect(iommufd.mapAt(2, iova, memory.address, 4 * PAGE, WRITE)).toBe(0);
    expect(read(iova, 4 * PAGE)).toEqual([0, 1, 2, 3]);
  });

  it('each page table of an IOAS has a dirty state of its own', () => {
    const { lab, iommufd, set, get, read, dma, iova, bitmap } = mapped(4 * PAGE);
    expect(iommufd.hwpt(1, 2, TRACKED)).toBe(4);
    expect([set({ flags: 1 }), set({ flags: 1, hwpt_id: 4 })]).toEqual([0, 0]);
    dma(iova);
    expect(iommufd.attach(lab.devices[0]!, 4)).toBe(4);
    dma(iova + PAGE);
    expect(read(iova, 4 * PAGE)).toEqual([0]);
    bitmap.bytes.fill(0);
    expect(get(iova, 4 * PAGE, { hwpt_id: 4 })).toBe(0);
    expect(bits(bitmap.bytes)).toEqual([1]);
  });

  it('writes go to pages of user space that it can write, and are lost elsewhere', () => {
    const { client, set, get, dma, iova } = mapped(16 * PAGE);
    set({ flags: 1 });
    dma(iova + 2 * PAGE);
    // Bit 2 lies in the last byte of a page that is not mapped, bit 9 behind it.
    const page = allocate(client, PAGE);
    expect(client.process.memory.copyIn(page.address - 1, new Uint8Array(1))).toBe(false);
    expect(get(iova, 16 * PAGE, { data: page.address - 1 })).toBe(0);
    expect(bits(page.bytes)).toEqual([]);
    dma(iova + 9 * PAGE);
    expect(get(iova, 16 * PAGE, { data: page.address - 1 })).toBe(0);
    expect(bits(page.bytes)).toEqual([1]);
  });

  it('an interrupt’s doorbell is written and is none of the IOAS’s pages', () => {
    const { lab, set, read, iova } = mapped(4 * PAGE);
    const { result, rung } = lab.enable(0, 1);
    expect(result).toBe(0);
    expect(set({ flags: 1 })).toBe(0);
    for (let i = 0; i < 3; i++) lab.ring(0, 0);
    expect(rung()).toEqual([3]);
    expect(read(iova, 4 * PAGE)).toEqual([]);
    expect(read(0x800_0000, PAGE)).toEqual([]);
    expect(lab.message(0, 0)).toEqual([0x800_0040, 0]);
  });
});

describe('blocks', () => {
  it('a block is dirty as a whole', () => {
    const { set, read, dma, iova } = mapped(6 * M);
    set({ flags: 1 });
    dma(iova + 2 * M + 5 * PAGE);
    expect(read(iova, 6 * M, { page_size: 2 * M })).toEqual([1]);
    dma(iova + 4 * M);
    expect(read(iova, 6 * M)).toEqual(range(1024, 1536));
  });

  it('read from its middle on, a block is told of as if it began there: also behind the range (io-pgtable-arm.c)', () => {
    const { set, get, dma, iova, bitmap } = mapped(4 * M);
    set({ flags: 1 });
    dma(iova);
    bitmap.bytes.fill(0);
    expect(get(iova + M, M)).toBe(0);
    // 256 pages are asked for; 512 are set, in a page of the bitmap that is pinned as a whole.
    expect(bits(bitmap.bytes)).toEqual(range(0, 512));
  });

  it('with page_size 64 K on tables of 4 K, and a bitmap at the end of its page', () => {
    const { set, get, dma, iova, bitmap } = mapped(4 * M);
    set({ flags: 1 });
    dma(iova + 2 * M);
    bitmap.bytes.fill(0);
    expect(get(iova, 4 * M, { page_size: 64 * K, data: bitmap.address + PAGE - 4 })).toBe(0);
    expect(bits(bitmap.bytes)).toEqual(range((PAGE - 4) * 8 + 32, (PAGE - 4) * 8 + 64));
  });
});

describe('PASIDs', () => {
  it('DMA dirties the page table of the PASID that it names', () => {
    const lab = new PasidLab({ machine: { iommu: { ...SMMU, ssidBits: 8 } } });
    const { iommufd, client } = lab;
    expect(lab.bind(0)).toBe(1);
    const [own, other] = [lab.space(TRACKED | PASID), lab.space(TRACKED | PASID)];
    expect(iommufd.attach(lab.devices[0]!, Number(own.hwpt))).toBe(own.hwpt);
    expect(iommufd.attachPasid(lab.devices[0]!, 3, Number(other.hwpt))).toBe(other.hwpt);
    const bitmap = allocate(client, PAGE);
    const dirty = (): number[] =>
      [own, other].map(({ hwpt: hwpt_id }) => {
        bitmap.bytes.fill(0);
        const fields = { hwpt_id: Number(hwpt_id), iova: IOVA, length: PAGE, page_size: PAGE, data: bitmap.address };
        const { result } = iommufd.call(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, uapi.iommu_hwpt_get_dirty_bitmap, fields);
        expect(result).toBe(0);
        return bitmap.bytes[0]!;
      });
    expect([dirty(), dirty()]).toEqual([
      [1, 1],
      [0, 0],
    ]);
    lab.dma(0, IOVA, 1, 3);
    expect(dirty()).toEqual([0, 1]);
    lab.dma(0, IOVA, 2);
    expect(dirty()).toEqual([1, 0]);
    expect(iommufd.attachPasid(lab.devices[0]!, 3, Number(own.hwpt))).toBe(own.hwpt);
    lab.dma(0, IOVA, 3, 3);
    expect(dirty()).toEqual([1, 0]);
  });
});

describe('an SMMU whose TLB keeps that a page is dirty', () => {
  it('misses the second write: Linux 7.2 does not invalidate what it made clean (arm_smmu_iotlb_sync)', () => {
    const { iommufd, set, read, dma, iova, memory } = mapped(4 * PAGE, 16 * M, { tlbKeepsDirty: true });
    set({ flags: 1 });
    dma(iova);
    expect(read(iova, 4 * PAGE)).toEqual([0]);
    dma(iova);
    expect(read(iova, 4 * PAGE)).toEqual([]);
    iommufd.unmap(2, iova, 4 * PAGE);
    iommufd.mapAt(2, iova, memory.address, 4 * PAGE);
    set({ flags: 1 });
    dma(iova);
    expect(read(iova, 4 * PAGE)).toEqual([0]);
  });
});
