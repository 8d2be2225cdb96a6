import { describe, expect, it } from 'vitest';
import { Count } from '../../ports/ledger.ts';
import { errnoName } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/iommufd.ts';
import * as vfio from '../../uapi/vfio.ts';
import { named } from './testing.ts';
import { CdevLab } from './testing-machine.ts';
import { IOVA, PasidLab } from './testing-pasid.ts';

const { IOMMU_HWPT_ALLOC_PASID: PASID, IOMMU_HWPT_ALLOC_NEST_PARENT: PARENT } = uapi;
const ATTACH = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
const DETACH = vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT;
const NOTHING = 99;

/** Both devices bound, as ids 1 and 2. */
function bound(options = {}) {
  const lab = new PasidLab(options);
  expect([lab.bind(0), lab.bind(1)]).toEqual([1, 2]);
  const { iommufd } = lab;
  const [first, second] = lab.devices as [number, number];
  return { lab, iommufd, first, second };
}

describe('errno of ATTACH_IOMMUFD_PT and DETACH_IOMMUFD_PT with a PASID, in the order of the checks', () => {
  /** The struct at the end of what is readable, of which `length` bytes are there. */
  function atEnd(request: number, length: number, words: readonly number[]) {
    const { lab, first } = bound();
    const { client, host } = lab;
    const end = lab.memory.address + lab.memory.length;
    const bytes = new Uint8Array(Uint32Array.from(words).buffer).subarray(0, length);
    client.process.memory.copyOut(end - length, bytes);
    return named(host.kernel.syscalls.ioctl(client.process, first, request, BigInt(end - length)));
  }

  it.each([
    ['ATTACH: EFAULT before argsz', ATTACH, 8, [4, 1, 0, 0], 'EFAULT'],
    ['ATTACH: EINVAL argsz before flags', ATTACH, 12, [11, 3, NOTHING, 0], 'EINVAL'],
    ['ATTACH: EINVAL flags before the argsz of a PASID', ATTACH, 12, [12, 3, NOTHING, 0], 'EINVAL'],
    ['ATTACH: EINVAL argsz 15 before the PASID is read', ATTACH, 12, [15, 1, NOTHING, 0], 'EINVAL'],
    ['ATTACH: EFAULT of the PASID before what it is', ATTACH, 12, [16, 1, NOTHING, 0], 'EFAULT'],
    ['ATTACH: without the flag the PASID is not read', ATTACH, 12, [16, 0, NOTHING, 0], 'ENOENT'],
    ['ATTACH: ENOSPC of 2^31 before pt_id', ATTACH, 16, [16, 1, NOTHING, 2 ** 31], 'ENOSPC'],
    [
      'ATTACH: -EINVAL counts as attached, so that pt_id is looked at',
      ATTACH,
      16,
      [16, 1, NOTHING, 2 ** 32 - 22],
      'ENOENT',
    ],
    ['ATTACH: and then it is not attached', ATTACH, 16, [16, 1, 1, 2 ** 32 - 22], 'EINVAL'],
    ['ATTACH: ENOENT pt_id before the PASID is compared', ATTACH, 16, [16, 1, NOTHING, 5000], 'ENOENT'],
    ['ATTACH: EINVAL of what is no page table', ATTACH, 16, [16, 1, 1, 1], 'EINVAL'],
    ['DETACH: EFAULT before argsz', DETACH, 4, [4, 1, 0], 'EFAULT'],
    ['DETACH: EINVAL argsz before flags', DETACH, 8, [7, 3, 0], 'EINVAL'],
    ['DETACH: EINVAL flags before the argsz of a PASID', DETACH, 8, [8, 3, 0], 'EINVAL'],
    ['DETACH: EINVAL argsz 11 before the PASID is read', DETACH, 8, [11, 1, 0], 'EINVAL'],
    ['DETACH: EFAULT of the PASID', DETACH, 8, [12, 1, 0], 'EFAULT'],
    ['DETACH: 0 for any PASID that is not attached', DETACH, 12, [12, 1, 2 ** 32 - 1], 0],
    ['DETACH: 0 for that of -EINVAL', DETACH, 12, [12, 1, 2 ** 32 - 22], 0],
  ])('%s', (_, request, length, words, expected) => {
    expect(atEnd(request, length, words)).toBe(expected);
  });

  it('EINVAL: a page table that was not made for PASIDs, before a PASID that is too large', () => {
    const { lab, iommufd, first } = bound();
    const plain = lab.space(0);
    expect(iommufd.attachPasid(first, 5000, plain.hwpt)).toBe('EINVAL');
    expect(lab.host.context.refusals.last?.why).toContain(`HWPT ${plain.hwpt} was not made for PASIDs`);
    // An IOAS makes a table of its own, which is none for PASIDs either, and nothing is left of it.
    const objects = iommufd.ctx.objects.size;
    expect(iommufd.attachPasid(first, 1, plain.ioas)).toBe('EINVAL');
    expect(iommufd.ctx.objects.size).toBe(objects);
  });

  it('EINVAL: the device goes through another kind without a PASID, before a PASID that is too large', () => {
    const { lab, iommufd, first } = bound();
    const [plain, space] = [lab.space(0), lab.space()];
    iommufd.attach(first, plain.hwpt);
    expect(iommufd.attachPasid(first, 5000, space.hwpt)).toBe('EINVAL');
    expect(lab.host.context.refusals.last?.why).toContain(`goes through HWPT ${plain.hwpt} without a PASID`);
    iommufd.attach(first, space.hwpt);
    expect(iommufd.attachPasid(first, 5000, space.hwpt)).toBe('EINVAL');
    expect(lab.host.context.refusals.last?.why).toContain('not below the 16');
    expect(iommufd.attachPasid(first, 15, space.hwpt)).toBe(space.hwpt);
  });

  it('EINVAL: a table that is none for PASIDs beside PASIDs, also one that is nested', () => {
    const { lab, iommufd, first } = bound();
    const [plain, space, parent] = [lab.space(0), lab.space(), lab.space(PARENT)];
    expect(iommufd.attachPasid(first, 3, space.hwpt)).toBe(space.hwpt);
    for (const pt of [plain.hwpt, parent.hwpt, plain.ioas]) expect(iommufd.attach(first, pt)).toBe('EINVAL');
    expect(iommufd.attach(first, space.hwpt)).toBe(space.hwpt);
    for (const pt of [plain.hwpt, parent.hwpt, plain.ioas]) expect(iommufd.attach(first, pt)).toBe('EINVAL');
    expect([lab.reach(0), lab.reach(0, 3)]).toEqual([space.page, space.page]);
    expect(iommufd.detachPasid(first, 3)).toBe(0);
    expect(iommufd.attach(first, plain.hwpt)).toBe(plain.hwpt);
  });

  it('EBUSY: PASID 0 is what has no PASID, and that can be attached once', () => {
    const { lab, iommufd, first } = bound();
    const space = lab.space();
    expect(iommufd.attachPasid(first, 0, space.hwpt)).toBe(space.hwpt);
    expect(lab.reach(0)).toBe(space.page);
    expect(iommufd.attach(first, space.hwpt)).toBe('EBUSY');
    expect(iommufd.detach(first)).toBe(0);
    expect(lab.reach(0)).toBe(space.page);
    expect(iommufd.detachPasid(first, 0)).toBe(0);
    expect(lab.reach(0)).toBe(-1);
    iommufd.attach(first, space.hwpt);
    expect(iommufd.attachPasid(first, 0, space.hwpt)).toBe('EBUSY');
  });

  it('EFAULT of the answer takes away what has no PASID, and leaves the PASID', () => {
    const { lab, iommufd, first } = bound();
    const { client, host } = lab;
    const space = lab.space();
    iommufd.attach(first, space.hwpt);
    const { memory } = client.process;
    const copyOut = memory.copyOut.bind(memory);
    const bytes = vfio.vfio_device_attach_iommufd_pt.bytes({ argsz: 16, flags: 1, pt_id: space.hwpt, pasid: 2 });
    copyOut(lab.memory.address + 0x7000, bytes);
    memory.copyOut = () => false;
    const result = host.kernel.syscalls.ioctl(client.process, first, ATTACH, BigInt(lab.memory.address + 0x7000));
    memory.copyOut = copyOut;
    expect(errnoName(result)).toBe('EFAULT');
    expect([lab.reach(0), lab.reach(0, 2)]).toEqual([-1, space.page]);
  });
});

describe('what GET_HW_INFO says of PASIDs', () => {
  const { IOMMU_HW_CAP_PCI_PASID_EXEC: EXEC, IOMMU_HW_CAP_PCI_PASID_PRIV: PRIV } = uapi;
  const ATS = BigInt(uapi.IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED);

  it.each([
    ['the smaller of function and SMMU: the function', { bell: { pasid: 4 }, ssidBits: 8 }, 4, 0],
    ['the SMMU', { bell: { pasid: 16 }, ssidBits: 8 }, 8, 0],
    [
      'what the function offers is turned on',
      { bell: { pasid: 4, pasidExecute: true, pasidPrivileged: true } },
      4,
      EXEC | PRIV,
    ],
    ['also where the SMMU has none', { bell: { pasid: 4, pasidExecute: true }, ssidBits: 0 }, 0, EXEC],
    ['none without the capability', { bell: { pasid: 0 } }, 0, 0],
  ])('%s', (_, options, bits, capabilities) => {
    const { lab } = bound(options);
    expect(lab.hwInfo(1)).toEqual({ result: 0, bits, capabilities: BigInt(capabilities) | ATS });
  });

  it('vfio-pci hides the capability, and a reset keeps it on', () => {
    const { lab, iommufd, first } = bound();
    const at = 0x100;
    expect(lab.bells[0]!.configRead(at, 2)).toBe(0x1b);
    const header = new Uint8Array(4);
    lab.client.pread(first, header, vfio.VFIO_PCI_CONFIG_REGION_INDEX * 2 ** 40 + at);
    expect([...header.subarray(0, 2)]).toEqual([0, 0]);
    const space = lab.space();
    iommufd.attachPasid(first, 1, space.hwpt);
    expect(lab.client.ioctl(first, vfio.VFIO_DEVICE_RESET, 0)).toBe(0);
    lab.command(0);
    expect(lab.bells[0]!.configRead(at + 6, 2)).toBe(1);
    expect(lab.reach(0, 1)).toBe(space.page);
  });
});

describe('devices and IOMMUs without PASIDs', () => {
  it('Linux 7.2 attaches a PASID that no device of the group has, and nothing comes of it', () => {
    const { lab, iommufd, first } = bound({ bell: { pasid: 0 } });
    const space = lab.space();
    expect(iommufd.attachPasid(first, 500_000, space.hwpt)).toBe(space.hwpt);
    expect(lab.reach(0, 1)).toBe(-1);
    expect(iommufd.destroy(space.hwpt)).toBe('EBUSY');
    expect(iommufd.detachPasid(first, 500_000)).toBe(0);
    expect(iommufd.destroy(space.hwpt)).toBe(0);
  });

  it('an SMMU without substreams leaves PASID 0 alone', () => {
    const { lab, iommufd, first } = bound({ ssidBits: 0 });
    expect(iommufd.attachPasid(first, 1, lab.space().hwpt)).toBe('EINVAL');
  });

  it('VT-d in legacy mode has none: no PASID is enabled, none is refused, none passes', () => {
    const lab = new CdevLab('x86', { bell: { pasid: 8 } });
    const { iommufd } = lab;
    lab.bind(0);
    const hwpt = iommufd.hwpt(1, iommufd.ioas(), PASID);
    expect(iommufd.attachPasid(lab.devices[0]!, 7, hwpt as number)).toBe(hwpt);
    expect(lab.bells[0]!.configRead(0x106, 2)).toBe(0);
    expect(lab.dma(0, IOVA, 1, 7)).toBe(false);
    expect(iommufd.detachPasid(lab.devices[0]!, 7)).toBe(0);
  });

  it('peers that could be reached before the IOMMU keep PASIDs off', () => {
    const { lab, iommufd, first } = bound({ acs: false });
    expect(lab.host.log.lines).toContain('pci 0000:01:00.0: Failed to enable PASID');
    expect(lab.bells[0]!.configRead(0x106, 2)).toBe(0);
    expect(iommufd.attachPasid(first, 1, lab.space().hwpt)).toBe('EINVAL');
  });
});

describe('DMA', () => {
  it('with and without a PASID reaches the address space that is its own, of each device', () => {
    const { lab, iommufd, first, second } = bound();
    const [own, a, b, other] = [lab.space(), lab.space(), lab.space(), lab.space(PASID, 2)];
    iommufd.attach(first, own.hwpt);
    iommufd.attachPasid(first, 1, a.hwpt);
    iommufd.attachPasid(first, 2, b.hwpt);
    iommufd.attachPasid(second, 1, other.hwpt);
    const all = () => [null, 1, 2, 3].map((pasid) => lab.reach(0, pasid));
    expect(all()).toEqual([own.page, a.page, b.page, -1]);
    expect([null, 1, 2].map((pasid) => lab.reach(1, pasid))).toEqual([-1, other.page, -1]);
    expect(iommufd.attachPasid(first, 1, b.hwpt)).toBe(b.hwpt);
    expect(iommufd.attachPasid(first, 1, NOTHING)).toBe('ENOENT');
    expect(all()).toEqual([own.page, b.page, b.page, -1]);
    iommufd.unmap(b.ioas, IOVA, 0x1000);
    expect(all()).toEqual([own.page, -1, -1, -1]);
    iommufd.detach(first);
    iommufd.attachPasid(first, 1, a.hwpt);
    expect(all()).toEqual([-1, a.page, -1, -1]);
    iommufd.detachPasid(first, 1);
    expect(all()).toEqual([-1, -1, -1, -1]);
  });

  it('one page table for several PASIDs and devices counts each of them', () => {
    const { lab, iommufd, first, second } = bound();
    const space = lab.space();
    const uses = () => iommufd.ctx.objects.find(space.hwpt)!.users;
    for (const [n, pasid] of [
      [first, 1],
      [first, 2],
      [second, 1],
    ] as const)
      iommufd.attachPasid(n, pasid, space.hwpt);
    iommufd.attach(second, space.hwpt);
    expect(uses()).toBe(5);
    expect([1, 2].map((id) => iommufd.ctx.objects.find(id)!.users)).toEqual([4, 4]);
    iommufd.attachPasid(first, 2, space.hwpt);
    expect(uses()).toBe(5);
    lab.client.close(second);
    expect(uses()).toBe(3);
    expect([lab.reach(0, 1), lab.reach(0, 2)]).toEqual([space.page, space.page]);
    lab.client.close(first);
    expect(uses()).toBe(1);
    expect(iommufd.destroy(space.hwpt)).toBe(0);
  });

  it('the log names the PASID of a refused request', () => {
    const { lab, iommufd, first } = bound();
    const space = lab.space();
    iommufd.attachPasid(first, 5, space.hwpt);
    lab.dma(0, 0x5000, 1, 5);
    expect(lab.host.log.lines.at(-2)).toContain('F_TRANSLATION client: 0000:01:00.0 sid: 0x100 ssid: 0x5 iova: 0x5000');
  });
});

describe('interrupts', () => {
  it('keep arriving while PASIDs come and go: an MSI has none', () => {
    const { lab, iommufd, first } = bound();
    const [own, next, a, b] = [lab.space(), lab.space(), lab.space(), lab.space()];
    iommufd.attach(first, own.hwpt);
    const { rung } = lab.enable(0, 2);
    const message = lab.message(0, 1);
    for (let i = 0; i < 12; i++) {
      iommufd.attachPasid(first, 1 + (i % 3), i % 2 === 0 ? a.hwpt : b.hwpt);
      lab.ring(0, 1);
      if (i % 4 === 3) iommufd.attach(first, i % 8 === 3 ? next.hwpt : own.hwpt);
      lab.ring(0, 0);
      if (i % 2 === 1) iommufd.detachPasid(first, 1 + (i % 3));
      lab.ring(0, 1);
      expect(rung()).toEqual([1, 2]);
      expect(lab.message(0, 1)).toEqual(message);
    }
    const { ledger } = lab.host.context.tap;
    expect(ledger[Count.SENT]).toBe(36);
    expect(ledger[Count.DELIVERED]! + ledger[Count.COALESCED]!).toBe(36);
    // A PASID's own table has no doorbell: a device cannot ring there.
    iommufd.attachPasid(first, 1, a.hwpt);
    expect(lab.reach(0, 1)).toBe(a.page);
    expect(lab.dma(0, message[0], message[1], 1)).toBe(false);
    expect(rung()).toEqual([0, 0]);
  });
});
