import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { msiCookie } from '../irq/msi-cookie.ts';
import { Iommufd } from './testing.ts';
import { CdevLab, VECTORS } from './testing-machine.ts';

/** The ITS of the preset; GITS_TRANSLATER lies 0x40 into its second frame. */
const ITS = 0x5081_0000;
const WINDOW = 0x800_0000;
const PAGE = 4096;
/** The preset's; both stages are its default. */
const SMMU = { type: 'smmuv3' as const, base: 0x5200_0000 };

/** As the lab did it: bind, IOAS, attach. */
function attached(lab = new CdevLab()) {
  const { iommufd, devices, client } = lab;
  expect(lab.bind(0)).toBe(1);
  const ioas = iommufd.ioas();
  expect(iommufd.attach(devices[0]!, ioas)).toBe(3);
  const memory = client.allocate(0x10_0000);
  if (typeof memory === 'number') throw new Error('no memory');
  return { lab, iommufd, client, device: devices[0]!, memory, ioas };
}

describe('the path of the lab, step 4', () => {
  it('ranges before and after, the first IOVA, the message, the interrupt, DMA', () => {
    const lab = new CdevLab();
    const { iommufd } = lab;
    expect(lab.bind(0)).toBe(1);
    const ioas = iommufd.ioas();
    expect(iommufd.ranges(ioas)).toMatchObject({ alignment: 1n, list: [[0n, 0xffff_ffff_ffff_ffffn]] });
    expect(iommufd.attach(lab.devices[0]!, ioas)).toBe(3);
    expect(iommufd.ranges(ioas)).toMatchObject({
      alignment: 4096n,
      list: [
        [0n, 0x7ff_ffffn],
        [0x810_0000n, 0xffff_ffff_ffffn],
      ],
    });
    const memory = lab.client.allocate(PAGE);
    if (typeof memory === 'number') throw new Error('no memory');
    expect(iommufd.map(ioas, memory.address, PAGE)).toBe(0x1000n);
    const { result, rung } = lab.enable(0);
    expect(result).toBe(0);
    expect([0, 1, 2, 3].map((vector) => lab.message(0, vector))).toEqual([
      [0x800_0040, 0],
      [0x800_0040, 1],
      [0x800_0040, 2],
      [0x800_0040, 3],
    ]);
    expect(lab.lookup(0, 0x800_0040)).toBe(ITS + 0x40);
    lab.ring(0, 2);
    expect(rung()).toEqual([0, 0, 1, 0]);
    lab.dma(0, 0x1008, 0x1234);
    expect(new DataView(memory.bytes.buffer, memory.bytes.byteOffset).getUint32(8, true)).toBe(0x1234);
    expect(lab.faults).toBe(0);
    lab.dma(0, 0x30_0000, 1);
    expect(lab.faults).toBe(1);
  });

  it('GET_HW_INFO: type 2, 40 bytes, no PASIDs, no ATS; the words of the lab’s SMMU', () => {
    const { iommufd, client } = attached(new CdevLab('arm-its', { machine: { iommu: { ...SMMU, oas: 44 } } }));
    const ask = (fields: Init<typeof uapi.iommu_hw_info>) =>
      iommufd.call(uapi.IOMMU_GET_HW_INFO, uapi.iommu_hw_info, { dev_id: 1, ...fields });
    const memory = client.allocate(PAGE);
    if (typeof memory === 'number') throw new Error('no memory');
    memory.bytes.fill(0xff);
    const answer = ask({ data_len: 64, data_uptr: memory.address });
    expect(answer).toMatchObject({
      result: 0,
      data_len: 40,
      out_data_type: 2,
      out_max_pasid_log2: 0,
      out_capabilities: 8n,
    });
    const info = uapi.iommu_hw_info_arm_smmuv3.read(memory.bytes);
    expect([info.flags, info.iidr, info.aidr]).toEqual([0, 0, 1]);
    expect(info.idr[0]).toBe(0x0d44_101b);
    expect(info.idr.slice(2)).toEqual([0, 0x1414, 0, 0x74]);
    expect([...memory.bytes.subarray(40, 65)]).toEqual([...new Array(24).fill(0), 0xff]);
    memory.bytes.fill(0xff);
    expect(ask({ data_len: 12, data_uptr: memory.address })).toMatchObject({ result: 0, data_len: 40 });
    expect(memory.bytes[12]).toBe(0xff);
    expect(ask({ dev_id: 99, flags: 2 }).result).toBe('EOPNOTSUPP');
    expect(ask({ dev_id: 99, __reserved: [0, 0, 1] }).result).toBe('EOPNOTSUPP');
    expect(ask({ dev_id: 99, flags: 1, in_data_type: 1 }).result).toBe('ENOENT');
    expect(ask({ flags: 1, in_data_type: 1, data_len: 8 }).result).toBe('EOPNOTSUPP');
    expect(ask({ flags: 1, in_data_type: 2, data_len: 8 }).result).toBe('EFAULT');
    expect(ask({ flags: 0, in_data_type: 9 }).result).toBe(0);
  });

  it('GET_HW_INFO of VT-d: type 1, the erratum’s flag that Linux always sets, CAP and ECAP', () => {
    const { iommufd, client } = attached(new CdevLab('x86'));
    const memory = client.allocate(PAGE);
    if (typeof memory === 'number') throw new Error('no memory');
    const fields = { dev_id: 1, data_len: 24, data_uptr: memory.address };
    const answer = iommufd.call(uapi.IOMMU_GET_HW_INFO, uapi.iommu_hw_info, fields);
    expect(answer).toMatchObject({ result: 0, data_len: 24, out_data_type: 1 });
    const { flags, cap_reg, ecap_reg } = uapi.iommu_hw_info_vtd.read(memory.bytes);
    const unit = 0xfed9_0000;
    const word = (at: number) =>
      (BigInt(client.kernel.context.bus.read32(unit + at + 4) >>> 0) << 32n) |
      BigInt(client.kernel.context.bus.read32(unit + at) >>> 0);
    expect([flags, cap_reg, ecap_reg]).toEqual([1, word(0x8), word(0x10)]);
  });

  it('HWPT_ALLOC: plain, PASID and NEST_PARENT', () => {
    const { iommufd, lab, ioas } = attached();
    const id = iommufd.hwpt(1, ioas);
    expect(id).toBe(4);
    expect(iommufd.hwpt(1, ioas, uapi.IOMMU_HWPT_ALLOC_PASID)).toBe(5);
    expect(iommufd.hwpt(1, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT)).toBe(6);
    expect(iommufd.attach(lab.devices[0]!, 6)).toBe(6);
    const { rung } = lab.enable(0, 1);
    expect(lab.message(0, 0)).toEqual([0x800_0040, 0]);
    lab.ring(0, 0);
    expect(rung()).toEqual([1]);
  });

  it('stage 2 alone: neither nesting nor PASIDs, and an aperture of the output’s 44 bits', () => {
    const smmu = { ...SMMU, stage1: false, oas: 44 };
    const { iommufd, ioas } = attached(new CdevLab('arm-its', { machine: { iommu: smmu } }));
    expect(iommufd.hwpt(1, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT)).toBe('EOPNOTSUPP');
    expect(iommufd.hwpt(1, ioas, uapi.IOMMU_HWPT_ALLOC_PASID)).toBe('EOPNOTSUPP');
    expect(iommufd.ranges(ioas).list.at(-1)).toEqual([0x810_0000n, 0xfff_ffff_ffffn]);
  });

  it('stage 1 alone: no nesting', () => {
    const smmu = { ...SMMU, stage2: false };
    const { iommufd, ioas } = attached(new CdevLab('arm-its', { machine: { iommu: smmu } }));
    expect(iommufd.hwpt(1, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT)).toBe('EOPNOTSUPP');
    expect(iommufd.hwpt(1, ioas, uapi.IOMMU_HWPT_ALLOC_PASID)).toBe(4);
  });

  it('MSIs that are not isolated: BIND is EPERM, with its own parameter', () => {
    const lab = new CdevLab('arm-v2m');
    expect(lab.bind(0)).toBe('EPERM');
    lab.host.context.modules.vfio_iommu_type1.allow_unsafe_interrupts = true;
    expect(lab.bind(0)).toBe('EPERM');
    lab.host.context.modules.iommufd.allow_unsafe_interrupts = true;
    expect(lab.bind(0)).toBe(1);
    lab.iommufd.attach(lab.devices[0]!, lab.iommufd.ioas());
    const { rung } = lab.enable(0, 1);
    expect(lab.message(0, 0)[0]).toBe(0x800_0040);
    lab.ring(0, 0);
    expect(rung()).toEqual([1]);
  });
});

describe('golden vectors', () => {
  it('G9: interrupts before the attach are ENOSPC; after it the ITS events begin at 1, as Linux never frees the first', () => {
    const lab = new CdevLab();
    lab.bind(0);
    expect(lab.enable(0).result).toBe('ENOSPC');
    expect(lab.client.refusal()?.why).toContain('attached to nothing');
    const ioas = lab.iommufd.ioas();
    lab.iommufd.attach(lab.devices[0]!, ioas);
    const { result, rung } = lab.enable(0, 2);
    expect(result).toBe(0);
    expect([lab.message(0, 0), lab.message(0, 1)]).toEqual([
      [0x800_0040, 1],
      [0x800_0040, 2],
    ]);
    lab.ring(0, 1);
    expect(rung()).toEqual([0, 1]);
  });

  it('G10: after a replace the message is what it was, and the page stood in the new table before the switch', () => {
    const { lab, iommufd, device } = attached();
    const { rung } = lab.enable(0);
    const before = lab.message(0, 1);
    const group = lab.group(0);
    const replace = group.replace.bind(group);
    let atSwitch = -1;
    group.replace = (domain) => {
      atSwitch = domain.lookup(0x800_0040);
      return replace(domain);
    };
    const other = iommufd.ioas();
    expect(iommufd.attach(device, other)).toBe(5);
    expect(atSwitch).toBe(ITS + 0x40);
    expect(lab.message(0, 1)).toEqual(before);
    lab.ring(0, 1);
    expect(rung()).toEqual([0, 1, 0, 0]);
  });

  it('G11: a mapping over the window, then the attach', () => {
    const lab = new CdevLab();
    const { iommufd } = lab;
    lab.bind(0);
    const ioas = iommufd.ioas();
    const memory = lab.client.allocate(PAGE);
    if (typeof memory === 'number') throw new Error('no memory');
    expect(iommufd.mapAt(ioas, WINDOW, memory.address, PAGE)).toBe(0);
    expect(iommufd.attach(lab.devices[0]!, ioas)).toBe('EADDRINUSE');
    expect(lab.client.refusal()?.why).toContain('sw-msi');
  });

  it('G14: detached, the device’s messages are aborted without an event', () => {
    const { lab, iommufd, device, ioas } = attached();
    const { rung } = lab.enable(0);
    iommufd.detach(device);
    lab.ring(0, 0);
    expect([rung()[0], lab.faults]).toEqual([0, 0]);
    // The same message works again behind the next table: its page is required by the group.
    iommufd.attach(device, ioas);
    lab.ring(0, 0);
    expect(rung()[0]).toBe(1);
  });

  it('G15: x86 passes MSIs untranslated, before and after the attach', () => {
    const lab = new CdevLab('x86');
    expect(lab.bind(0)).toBe(1);
    const { result, rung } = lab.enable(0, 1);
    expect(result).toBe(0);
    expect(lab.message(0, 0)[0]).toBeGreaterThanOrEqual(0xfee0_0000);
    const ioas = lab.iommufd.ioas();
    expect(lab.iommufd.attach(lab.devices[0]!, ioas)).toBe(3);
    expect(lab.iommufd.ranges(ioas).list).toContainEqual([0n, 0xfedf_ffffn]);
    lab.ring(0, 0);
    expect(rung()).toEqual([1]);
    expect(lab.iommufd.ctx.swMsi.all).toEqual([]);
  });
});

describe('the kernel’s doorbell pages', () => {
  it('have one IOVA for each page and file, whatever IOAS a device is in', () => {
    const { lab, iommufd } = attached();
    lab.enable(0, 1);
    expect(lab.bind(1)).toBe(4);
    const other = iommufd.ioas();
    iommufd.attach(lab.devices[1]!, other);
    expect(lab.lookup(1, 0x800_0040)).toBe(-1);
    const { rung } = lab.enable(1, 1);
    expect([lab.message(0, 0)[0], lab.message(1, 0)[0]]).toEqual([0x800_0040, 0x800_0040]);
    expect(iommufd.ctx.swMsi.all).toHaveLength(1);
    lab.client.close(lab.devices[0]!);
    lab.ring(1, 0);
    expect(rung()).toEqual([1]);
  });

  it('of a second iommufd begin at the window’s start again', () => {
    const { lab } = attached();
    lab.enable(0, 1);
    const second = new Iommufd(lab.client);
    expect(lab.bind(1, second)).toBe(1);
    second.attach(lab.devices[1]!, second.ioas());
    lab.enable(1, 1);
    expect(lab.message(1, 0)[0]).toBe(0x800_0040);
  });

  it('stay mapped until the page table goes', () => {
    const { lab, iommufd, ioas } = attached();
    lab.enable(0, 1);
    const hwpt = iommufd.hwpt(1, ioas);
    iommufd.attach(lab.devices[0]!, hwpt as number);
    const { domain } = lab.group(0);
    const page = msiCookie(domain)!.pages;
    expect(page).toMatchObject([{ iova: WINDOW, pa: ITS }]);
    lab.client.close(lab.devices[0]!);
    expect(domain.lookup(WINDOW)).toBe(ITS);
    expect(iommufd.destroy(hwpt as number)).toBe(0);
    expect(msiCookie(domain)).toBe(null);
  });

  it('survive close and kill in no way', () => {
    const { lab, iommufd, ioas, memory } = attached();
    lab.bind(1);
    iommufd.attach(lab.devices[1]!, ioas);
    iommufd.mapAt(ioas, 0x1000, memory.address, 0x10_0000);
    const { ctx } = iommufd;
    for (const n of [0, 1]) lab.enable(n, VECTORS);
    lab.host.kernel.exit(lab.client.process);
    expect([ctx.objects.size, ctx.groupCount]).toEqual([0, 0]);
    for (const n of [0, 1]) {
      const group = lab.group(n);
      expect([group.dmaOwner, group.domain]).toEqual([null, group.defaultDomain]);
      expect(lab.host.msi.vectors(lab.bells[n]!)).toEqual([]);
    }
  });
});

describe('a doorbell of the user’s choice on the cdev path', () => {
  it('given after the attach it is in the vector and in the table', () => {
    const { lab } = attached();
    expect(lab.doorbell(0, 0x1234_5000)).toBe(0);
    const { rung } = lab.enable(0, 2);
    expect(lab.message(0, 0)[0]).toBe(0x1234_5040);
    expect([lab.lookup(0, 0x1234_5040), lab.lookup(0, 0x800_0040)]).toEqual([ITS + 0x40, -1]);
    lab.ring(0, 1);
    expect(rung()).toEqual([0, 1]);
  });

  it('leaves the ranges, refuses mappings over it, and is refused over them', () => {
    const { lab, iommufd, ioas, memory } = attached();
    expect(iommufd.mapAt(ioas, 0x90_0000, memory.address, PAGE)).toBe(0);
    expect(lab.doorbell(0, 0x90_0000)).toBe('EADDRINUSE');
    expect(lab.doorbell(0, 0xa0_0000)).toBe(0);
    expect(iommufd.ranges(ioas).list.slice(0, 2)).toEqual([
      [0n, 0x9f_ffffn],
      [0xa0_1000n, 0x7ff_ffffn],
    ]);
    expect(iommufd.mapAt(ioas, 0xa0_0000, memory.address, PAGE)).toBe('EINVAL');
    expect(iommufd.allow(ioas, [[0xa0_0000, 0xa0_ffff]])).toBe('EADDRINUSE');
    expect(iommufd.allow(ioas, [[0xa0_1000, 0xa0_ffff]])).toBe(0);
    lab.enable(0, 1);
    expect(iommufd.unmap(ioas, 0xa0_0000, PAGE)).toBe('ENOENT');
    expect(iommufd.unmap(ioas, 0, 0xffff_ffff_ffff_ffffn)).toBe(4096n);
    expect(lab.lookup(0, 0xa0_0000)).toBe(ITS);
    lab.client.close(lab.devices[0]!);
    expect(iommufd.mapAt(ioas, 0xa0_0000, memory.address, PAGE)).toBe(0);
  });

  it('rule 11: given before the attach it is checked there, and the attach is refused as a whole', () => {
    const lab = new CdevLab();
    const { iommufd, client } = lab;
    lab.bind(0);
    const ioas = iommufd.ioas();
    const memory = client.allocate(PAGE);
    if (typeof memory === 'number') throw new Error('no memory');
    expect(lab.doorbell(0, 0x90_0000)).toBe(0);
    iommufd.mapAt(ioas, 0x90_0000, memory.address, PAGE);
    expect(iommufd.attach(lab.devices[0]!, ioas)).toBe('EADDRINUSE');
    expect([iommufd.ranges(ioas).total, iommufd.ctx.objects.size]).toEqual([1, 2]);
    iommufd.unmap(ioas, 0x90_0000, PAGE);
    expect(iommufd.attach(lab.devices[0]!, ioas)).toBe(3);
    expect(iommufd.mapAt(ioas, 0x90_0000, memory.address, PAGE)).toBe('EINVAL');
    lab.enable(0, 1);
    expect(lab.message(0, 0)[0]).toBe(0x90_0040);
  });

  it('rule 17: a replace installs it behind the new table before the switch, and releases the old', () => {
    const { lab, iommufd, device, ioas, memory } = attached();
    lab.doorbell(0, 0x90_0000);
    const { rung } = lab.enable(0, 1);
    const group = lab.group(0);
    const replace = group.replace.bind(group);
    let atSwitch = -1;
    group.replace = (domain) => {
      atSwitch = domain.lookup(0x90_0040);
      return replace(domain);
    };
    const other = iommufd.ioas();
    expect(iommufd.attach(device, other)).toBe(5);
    expect(atSwitch).toBe(ITS + 0x40);
    lab.ring(0, 0);
    expect([rung(), lab.message(0, 0)[0]]).toEqual([[1], 0x90_0040]);
    expect(iommufd.mapAt(ioas, 0x90_0000, memory.address, PAGE)).toBe(0);
    expect(iommufd.mapAt(other, 0x90_0000, memory.address, PAGE)).toBe('EINVAL');
    // Back is not possible any more: the old stays.
    expect(iommufd.attach(device, ioas)).toBe('EADDRINUSE');
    lab.ring(0, 0);
    expect([rung(), lab.lookup(0, 0x90_0040)]).toEqual([[1], ITS + 0x40]);
  });

  it('a detach ends the reservation, and the next attach makes it again', () => {
    const { lab, iommufd, device, ioas } = attached();
    lab.doorbell(0, 0x90_0000);
    const { rung } = lab.enable(0, 1);
    iommufd.detach(device);
    expect(iommufd.ranges(ioas).total).toBe(1);
    expect(iommufd.attach(device, ioas)).toBe(3);
    lab.ring(0, 0);
    expect([rung(), lab.message(0, 0)[0]]).toEqual([[1], 0x90_0040]);
  });

  it('the window’s pages step over it, also for an IOAS that is only attached later', () => {
    const { lab, iommufd } = attached();
    expect(lab.doorbell(0, WINDOW)).toBe(0);
    lab.bind(1);
    iommufd.attach(lab.devices[1]!, iommufd.ioas());
    const { rung } = lab.enable(1, 1);
    expect(lab.message(1, 0)[0]).toBe(WINDOW + 0x1040);
    lab.ring(1, 0);
    expect(rung()).toEqual([1]);
  });

  it('where the window’s page stands already, another IOAS’s choice keeps the device out', () => {
    const { lab, iommufd, ioas } = attached();
    lab.enable(0, 1);
    lab.bind(1);
    const other = iommufd.ioas();
    iommufd.attach(lab.devices[1]!, other);
    expect(lab.doorbell(1, WINDOW)).toBe(0);
    expect(iommufd.attach(lab.devices[0]!, other)).toBe('EADDRINUSE');
    expect(iommufd.attach(lab.devices[1]!, ioas)).toBe('EADDRINUSE');
    expect(lab.lookup(0, WINDOW)).toBe(ITS);
  });

  it('with abi linux-7.2: ENOTTY', () => {
    const { lab } = attached(new CdevLab('arm-its', { abi: 'linux-7.2' }));
    expect(lab.doorbell(0, 0x90_0000)).toBe('ENOTTY');
  });
});
