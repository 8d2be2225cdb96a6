/** VIOMMU_ALLOC, VDEVICE_ALLOC, VEVENTQ_ALLOC, nested page tables and invalidation of the SMMU: each errno by name (iommufd/viommu.c, eventq.c; arm-smmu-v3-iommufd.c). */
import { describe, expect, it } from 'vitest';
import { pack } from '../../arch/bits.ts';
import { TLBI } from '../../arch/smmuv3/commands.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { dmaAliases } from '../iommu/pci-topology.ts';
import { allocate } from './testing.ts';
import { blamed, ioctlAt, PAGE, readOnlyPage } from './testing-errno.ts';
import { ABORT, ASID, BYPASS, Guest, IPA, STAGE1, VSID } from './testing-guest.ts';
import { CdevLab } from './testing-machine.ts';

const NEST = uapi.IOMMU_HWPT_ALLOC_NEST_PARENT;
const named = (guest: Guest, result: number | string) => blamed(guest.lab.client, result);
/** A guest whose device seems to be behind another SMMU than its objects. */
function elsewhere(guest: Guest): Guest {
  const group = guest.lab.group(0);
  Object.defineProperty(group, 'driver', { value: Object.create(group.driver!) });
  group.canShare = () => false;
  return guest;
}

describe('errno of VIOMMU_ALLOC', () => {
  const guest = new Guest();
  const plain = Number(guest.iommufd.hwpt(1, guest.ioas));
  const alloc = (fields: Init<typeof uapi.iommu_viommu_alloc>, of = guest) => {
    const request = { type: 1, dev_id: 1, hwpt_id: of.parent, ...fields };
    return named(of, of.iommufd.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, request).result);
  };

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_viommu_alloc>]>([
    ['IOMMU_VIOMMU_ALLOC: EOPNOTSUPP flags', 'EOPNOTSUPP type', { flags: 1, dev_id: 99 }],
    ['IOMMU_VIOMMU_ALLOC: EOPNOTSUPP type 0', 'EOPNOTSUPP type', { type: 0, dev_id: 99 }],
    ['IOMMU_VIOMMU_ALLOC: ENOENT dev_id is no device', 'ENOENT dev_id', { dev_id: 99, type: 2 }],
    ['IOMMU_VIOMMU_ALLOC: EOPNOTSUPP a type that the IOMMU has not', 'EOPNOTSUPP type', { type: 2, hwpt_id: 99 }],
    ['IOMMU_VIOMMU_ALLOC: ENOENT hwpt_id is no page table of the kernel', 'ENOENT hwpt_id', { hwpt_id: guest.viommu }],
    ['IOMMU_VIOMMU_ALLOC: EINVAL hwpt_id is no nest parent', 'EINVAL hwpt_id', { hwpt_id: plain }],
  ])('%s', (_name, expected, fields) => {
    expect(alloc(fields)).toBe(expected);
  });

  it('IOMMU_VIOMMU_ALLOC: EOPNOTSUPP an SMMU with neither S2FWB nor CANWBS, before ENOENT of hwpt_id', () => {
    const iommu = { type: 'smmuv3' as const, base: 0x5200_0000, s2fwb: false, canwbs: false };
    const { iommufd, client, ...lab } = new CdevLab('arm-its', { machine: { iommu } });
    expect(iommufd.bind(lab.devices[0]!)).toBe(1);
    const request = { type: 1, dev_id: 1, hwpt_id: 99 };
    const { result } = iommufd.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, request);
    expect(blamed(client, result)).toBe('EOPNOTSUPP type');
  });

  it('IOMMU_VIOMMU_ALLOC: EOPNOTSUPP VT-d in legacy mode, before ENOENT of hwpt_id', () => {
    const lab = new CdevLab('x86');
    lab.bind(0);
    const request = { type: 1, dev_id: 1, hwpt_id: 99 };
    const { result } = lab.iommufd.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, request);
    expect(blamed(lab.client, result)).toBe('EOPNOTSUPP type');
  });

  it('IOMMU_VIOMMU_ALLOC: EINVAL the nest parent belongs to another SMMU', () => {
    expect(alloc({}, elsewhere(new Guest()))).toBe('EINVAL hwpt_id');
  });

  it('IOMMU_VIOMMU_ALLOC: EFAULT the struct cannot be written, and no object stays', () => {
    const { iommufd, lab, parent, viommu } = new Guest();
    const bytes = uapi.iommu_viommu_alloc.bytes({ size: 40, type: 1, dev_id: 1, hwpt_id: parent });
    expect(ioctlAt(lab.client, iommufd.fd, uapi.IOMMU_VIOMMU_ALLOC, readOnlyPage(lab.client, bytes))).toBe(
      'EFAULT argument',
    );
    expect([iommufd.destroy(viommu), iommufd.destroy(parent)]).toEqual([0, 0]);
  });
});

describe('errno of VDEVICE_ALLOC', () => {
  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_vdevice_alloc>]>([
    ['IOMMU_VDEVICE_ALLOC: ENOENT viommu_id is no vIOMMU', 'ENOENT viommu_id', { viommu_id: 3, dev_id: 99 }],
    ['IOMMU_VDEVICE_ALLOC: ENOENT dev_id is no device', 'ENOENT dev_id', { dev_id: 99 }],
    ['IOMMU_VDEVICE_ALLOC: EEXIST the device is a vDEVICE already', 'EEXIST dev_id', { dev_id: 1 }],
    ['IOMMU_VDEVICE_ALLOC: EEXIST virt_id is another device’s', 'EEXIST virt_id', { dev_id: 5 }],
  ])('%s', (_name, expected, fields) => {
    const guest = new Guest();
    expect([guest.lab.bind(1), guest.vdevice()]).toEqual([5, 6]);
    expect(named(guest, guest.vdevice(fields))).toBe(expected);
  });

  it('IOMMU_VDEVICE_ALLOC: EINVAL the device is behind another IOMMU, before EEXIST', () => {
    const guest = new Guest();
    guest.vdevice();
    expect(named(elsewhere(guest), guest.vdevice())).toBe('EINVAL dev_id');
  });

  it('IOMMU_VDEVICE_ALLOC: EOPNOTSUPP a device of more than one stream id, behind EEXIST', () => {
    const guest = new Guest();
    guest.lab.bind(1);
    guest.vdevice({ dev_id: 5 });
    // Below a bridge that speaks in its own name.
    const [bell] = guest.lab.bells;
    Object.defineProperty(bell!.parent!, 'capability', { value: () => 0 });
    expect(dmaAliases(bell!).length).toBeGreaterThan(0);
    expect(named(guest, guest.vdevice())).toBe('EEXIST virt_id');
    expect(named(guest, guest.vdevice({ virt_id: 7 }))).toBe('EOPNOTSUPP dev_id');
  });

  it('IOMMU_VDEVICE_ALLOC: virt_id may have 64 bits', () => {
    expect(new Guest().vdevice({ virt_id: 2n ** 40n })).toBe(5);
  });

  it('IOMMU_VDEVICE_ALLOC: EFAULT the struct cannot be written, and no object stays', () => {
    const guest = new Guest();
    const { client } = guest.lab;
    const bytes = uapi.iommu_vdevice_alloc.bytes({ size: 24, viommu_id: guest.viommu, dev_id: 1, virt_id: VSID });
    const address = readOnlyPage(client, bytes);
    expect(ioctlAt(client, guest.iommufd.fd, uapi.IOMMU_VDEVICE_ALLOC, address)).toBe('EFAULT argument');
    expect(guest.vdevice()).toBe(5);
  });
});

describe('errno of VEVENTQ_ALLOC', () => {
  const guest = new Guest();
  guest.queue({ type: 7 });

  it.each<[name: string, expected: string, fields: Init<typeof uapi.iommu_veventq_alloc>]>([
    ['IOMMU_VEVENTQ_ALLOC: EOPNOTSUPP flags', 'EOPNOTSUPP type', { flags: 1, veventq_depth: 0 }],
    ['IOMMU_VEVENTQ_ALLOC: EOPNOTSUPP __reserved', 'EOPNOTSUPP type', { __reserved: 1, veventq_depth: 0 }],
    ['IOMMU_VEVENTQ_ALLOC: EOPNOTSUPP type 0', 'EOPNOTSUPP type', { type: 0, veventq_depth: 0 }],
    ['IOMMU_VEVENTQ_ALLOC: EINVAL veventq_depth 0', 'EINVAL veventq_depth', { veventq_depth: 0, viommu_id: 99 }],
    [
      'IOMMU_VEVENTQ_ALLOC: EINVAL veventq_depth is more than 2^19',
      'EINVAL veventq_depth',
      { veventq_depth: 2 ** 19 + 1, viommu_id: 99 },
    ],
    ['IOMMU_VEVENTQ_ALLOC: ENOENT viommu_id is no vIOMMU', 'ENOENT viommu_id', { viommu_id: 3, type: 7 }],
    ['IOMMU_VEVENTQ_ALLOC: EEXIST a second queue of the type', 'EEXIST type', { type: 7, veventq_depth: 2 ** 19 }],
  ])('%s', (_name, expected, fields) => {
    expect(named(guest, guest.queue(fields).result)).toBe(expected);
  });

  it('IOMMU_VEVENTQ_ALLOC: EMFILE no descriptor is free, then EFAULT the struct cannot be written; neither leaves a queue', () => {
    const { client } = guest.lab;
    const bytes = uapi.iommu_veventq_alloc.bytes({ size: 32, viommu_id: guest.viommu, type: 8, veventq_depth: 1 });
    const address = readOnlyPage(client, bytes);
    const alloc = () => ioctlAt(client, guest.iommufd.fd, uapi.IOMMU_VEVENTQ_ALLOC, address);
    const { nofile } = client.process.limits;
    client.process.limits.nofile = 1;
    expect(alloc()).toMatch(/^EMFILE/);
    client.process.limits.nofile = nofile;
    expect(alloc()).toBe('EFAULT argument');
    const { result, out_veventq_fd } = guest.queue({ type: 8 });
    expect([result, client.close(out_veventq_fd)]).toEqual([0, 0]);
  });
});

describe('errno of a nested HWPT_ALLOC under a vIOMMU', () => {
  const EATS = (value: bigint): [bigint, bigint] => [STAGE1[0], value << 28n];
  const LONG = { data_len: 24, data_uptr: 8 };

  it.each<[name: string, expected: string, entry: [bigint, bigint], fields: Init<typeof uapi.iommu_hwpt_alloc>]>([
    ['IOMMU_HWPT_ALLOC: vIOMMU: EOPNOTSUPP an unknown flag', 'EOPNOTSUPP', STAGE1, { flags: NEST, data_type: 3 }],
    ['IOMMU_HWPT_ALLOC: vIOMMU: EOPNOTSUPP without data', 'EOPNOTSUPP', STAGE1, { data_type: 0, data_len: 0 }],
    ['IOMMU_HWPT_ALLOC: vIOMMU: EOPNOTSUPP PASID', 'EOPNOTSUPP', STAGE1, { flags: 8, data_type: 3 }],
    ['IOMMU_HWPT_ALLOC: vIOMMU: EINVAL another data_type', 'EINVAL data_type', STAGE1, { data_type: 3, data_len: 8 }],
    [
      'IOMMU_HWPT_ALLOC: vIOMMU: EINVAL data_len is less than an entry',
      'EINVAL data_len',
      STAGE1,
      { data_len: 15, data_uptr: 8 },
    ],
    ['IOMMU_HWPT_ALLOC: vIOMMU: EINVAL data_len is more than an entry', 'EINVAL data_len', STAGE1, LONG],
    ['IOMMU_HWPT_ALLOC: vIOMMU: EFAULT the entry', 'EFAULT data_uptr', STAGE1, { data_uptr: 8 }],
    [
      'IOMMU_HWPT_ALLOC: vIOMMU: EIO a field of word 0 that is not the guest’s',
      'EIO ste',
      [STAGE1[0] | (1n << 52n), 0n],
      {},
    ],
    ['IOMMU_HWPT_ALLOC: vIOMMU: EIO a field of word 1 that is not the guest’s', 'EIO ste', [STAGE1[0], 1n << 31n], {}],
    ['IOMMU_HWPT_ALLOC: vIOMMU: EIO a Config that asks for stage 2', 'EIO ste', [(6n << 1n) | 1n, 0n], {}],
    ['IOMMU_HWPT_ALLOC: vIOMMU: EIO EATS 2', 'EIO ste', EATS(2n), {}],
    [
      'IOMMU_HWPT_ALLOC: vIOMMU: ENOENT fault_id is no fault queue, behind EIO',
      'ENOENT fault_id',
      STAGE1,
      { flags: 4, fault_id: 99 },
    ],
  ])('%s', (_name, expected, entry, fields) => {
    const guest = new Guest();
    expect(named(guest, guest.nested(entry, fields))).toMatch(new RegExp(`^${expected}`));
    expect(guest.iommufd.destroy(guest.viommu)).toBe(0);
  });

  it('IOMMU_HWPT_ALLOC: vIOMMU: EINVAL the device is behind another IOMMU, before EOPNOTSUPP', () => {
    const guest = elsewhere(new Guest());
    expect(named(guest, guest.nested(STAGE1, { flags: NEST }))).toBe('EINVAL dev_id');
  });

  it('IOMMU_HWPT_ALLOC: vIOMMU: an entry without V may hold anything, and aborts', () => {
    const guest = new Guest();
    expect(guest.nested([~1n & 0xffff_ffff_ffff_ffffn, ~0n & 0xffff_ffff_ffff_ffffn])).toBe(5);
    expect(guest.attach(5)).toBe(5);
    guest.lab.dma(0, 0x700_0000, 1);
    expect(guest.lab.faults).toBe(0);
  });

  it('IOMMU_HWPT_ALLOC: nested: EOPNOTSUPP over the nest parent itself: the SMMU nests under a vIOMMU', () => {
    const guest = new Guest();
    expect(named(guest, guest.nested(STAGE1, { pt_id: guest.parent }))).toBe('EOPNOTSUPP pt_id');
  });

  it('attach: ENOENT a stage 1 of the guest’s, of a device that is no vDEVICE; abort and bypass need none', () => {
    const guest = new Guest();
    const [translating, bypass, abort] = [STAGE1, BYPASS, ABORT].map((entry) => guest.nested(entry));
    expect(named(guest, guest.attach(translating!))).toBe('ENOENT pt_id');
    expect([guest.attach(bypass!), guest.attach(abort!)]).toEqual([bypass, abort]);
    expect(named(guest, guest.attach(translating!))).toBe('ENOENT pt_id');
    guest.vdevice();
    expect(guest.attach(translating!)).toBe(translating);
  });
});

describe('errno of HWPT_INVALIDATE of a vIOMMU', () => {
  const NH_ALL = pack(TLBI, 2, { Opcode: 0x10 });
  const call = (
    guest: Guest,
    commands: readonly (readonly bigint[])[],
    fields: Init<typeof uapi.iommu_hwpt_invalidate> = {},
  ) => {
    const [result, done] = guest.invalidate(commands, fields);
    return [named(guest, result!), done];
  };

  it('IOMMU_HWPT_INVALIDATE: vIOMMU: EINVAL another data_type, before EINVAL of no entries', () => {
    expect(call(new Guest(), [], { data_type: 0, data_uptr: 8 })).toEqual(['EINVAL data_type', 0]);
  });

  it('IOMMU_HWPT_INVALIDATE: vIOMMU: EINVAL no entries', () => {
    expect(call(new Guest(), [], { data_uptr: 8 })).toEqual(['EINVAL entry_num', 0]);
  });

  it('IOMMU_HWPT_INVALIDATE: vIOMMU: EFAULT any entry, before EIO of those before it', () => {
    const guest = new Guest();
    const page = allocate(guest.lab.client, PAGE);
    page.bytes.fill(0xff);
    expect(call(guest, [], { entry_num: 2, data_uptr: page.address + PAGE - 16 })).toEqual(['EFAULT data_uptr', 0]);
  });

  it('IOMMU_HWPT_INVALIDATE: vIOMMU: E2BIG something behind an entry, before EIO', () => {
    const guest = new Guest();
    const page = allocate(guest.lab.client, PAGE);
    page.bytes.fill(0xff);
    const fields = { entry_num: 1, entry_len: 24, data_uptr: page.address };
    expect(call(guest, [], fields)).toEqual(['E2BIG data_uptr', 0]);
    page.bytes.fill(0, 16);
    expect(call(guest, [], fields)).toEqual(['EIO cmd', 0]);
  });

  it('IOMMU_HWPT_INVALIDATE: vIOMMU: EIO a command that is none of a guest’s, CFGI_STE among them', () => {
    const guest = new Guest();
    guest.vdevice();
    const sid = BigInt(VSID) << 32n;
    for (const opcode of [0x03n, 0x04n, 0x20n, 0x28n, 0x2an, 0x44n, 0x46n, 0xffn]) {
      expect(call(guest, [[opcode | sid, 0n]])).toEqual(['EIO cmd', 0]);
    }
    for (const opcode of [0x05n, 0x06n, 0x10n, 0x11n, 0x12n, 0x13n, 0x30n, 0x40n]) {
      expect(call(guest, [[opcode | sid, 0n]])).toEqual([0, 1]);
    }
  });

  it('IOMMU_HWPT_INVALIDATE: vIOMMU: EIO a virtual stream id that no device has', () => {
    const guest = new Guest();
    for (const opcode of [0x05n, 0x06n, 0x40n]) expect(call(guest, [[opcode, 0n]])).toEqual(['EIO cmd', 0]);
  });

  it('IOMMU_HWPT_INVALIDATE: vIOMMU: entry_num counts what stands before an EIO, issued in batches of 63', () => {
    const guest = new Guest();
    guest.vdevice();
    guest.map(0x700_0000, IPA + 0x1_0000);
    guest.attach(guest.nested(STAGE1));
    guest.lab.dma(0, 0x700_0000, 1);
    guest.map(0x700_0000, IPA + 0x2_0000);
    const mine = pack(TLBI, 2, { Opcode: 0x11, ASID });
    const seen = (value: number) => {
      guest.lab.dma(0, 0x700_0000, value);
      return [guest.peek(0x1_0000), guest.peek(0x2_0000)];
    };
    // One in an unfinished batch is told as done, and was not issued.
    expect([call(guest, [mine, [0x20n, 0n]]), seen(2)]).toEqual([
      ['EIO cmd', 1],
      [2, 0],
    ]);
    const batch = Array.from({ length: 63 }, () => mine);
    expect([call(guest, [...batch, [0x20n, 0n]]), seen(3)]).toEqual([
      ['EIO cmd', 63],
      [2, 3],
    ]);
    expect(call(guest, [...batch, NH_ALL])).toEqual([0, 64]);
  });

  it('IOMMU_HWPT_INVALIDATE: EOPNOTSUPP hwpt_id is a nested page table of the SMMU', () => {
    const guest = new Guest();
    expect(call(guest, [NH_ALL], { hwpt_id: Number(guest.nested(BYPASS)) })).toEqual(['EOPNOTSUPP hwpt_id', 0]);
  });
});
