/** IOMMU_OPTION_SW_MSI_START and _SIZE as posted for Linux in October 2025 (docs/doorbell.md, "Moving the window"). */
import { describe, expect, it } from 'vitest';
import { IOMMU_OPTION_SW_MSI_SIZE as SIZE, IOMMU_OPTION_SW_MSI_START as START } from '../../uapi/belfry.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { CdevLab, type CdevLabOptions } from './testing-machine.ts';

const MIB = 0x10_0000;
const GET = uapi.IOMMU_OPTION_OP_GET;
const NO_START = 0xffff_ffff_ffff_ffffn;
const DOORBELL = 0x5081_0040;
const SMMU = { type: 'smmuv3' as const, base: 0x5200_0000 };
/** Firmware keeps a range, and would tolerate mappings in another. */
const RESERVED = [
  { start: 0x2000_0000, end: 0x200f_ffff, type: 'reserved' as const },
  { start: 0x3000_0000, end: 0x300f_ffff, type: 'direct-relaxable' as const },
];

/** Device 0 is bound as id 1, IOAS 2 stands. */
function bound(options: CdevLabOptions = {}, preset: 'arm-its' | 'x86' = 'arm-its') {
  const lab = new CdevLab(preset, options);
  const { iommufd, devices } = lab;
  lab.bind(0);
  const ioas = iommufd.ioas();
  const call = (option_id: number, fields: Init<typeof uapi.iommu_option>) =>
    iommufd.call(uapi.IOMMU_OPTION, uapi.iommu_option, { option_id, object_id: 1, ...fields });
  const set = (option_id: number, val64: number | bigint, object_id = 1) =>
    call(option_id, { val64, object_id }).result;
  const get = (option_id: number) => call(option_id, { op: GET }).val64;
  const move = (start: number | bigint, mib: number, object_id = 1) => [
    set(START, start, object_id),
    set(SIZE, mib, object_id),
  ];
  return { lab, iommufd, devices, device: devices[0]!, ioas, call, set, get, move };
}

describe('OPTION SW_MSI', () => {
  it('EOPNOTSUPP with abi linux-7.2, as any option that Linux does not know', () => {
    const { call, set, lab } = bound({ abi: 'linux-7.2' });
    expect([set(START, MIB), set(SIZE, 1), set(9, 0)]).toEqual(new Array(3).fill('EOPNOTSUPP'));
    expect(call(START, { op: GET }).result).toBe('EOPNOTSUPP');
    expect(set(START, 1, 99)).toBe('EOPNOTSUPP');
    expect(lab.host.context.refusals.last?.field).toBe('option_id');
  });

  it('refuses in order: __reserved, ENOENT, EBUSY, op, EINVAL, EOVERFLOW, EADDRINUSE', () => {
    const { call, set, iommufd, device, ioas, lab } = bound({ machine: { iommu: { ...SMMU, reserved: RESERVED } } });
    expect(call(START, { __reserved: 1, object_id: 99 }).result).toBe('EOPNOTSUPP');
    iommufd.attach(device, ioas);
    expect(call(START, { object_id: 99, op: 9 }).result).toBe('ENOENT');
    expect(call(START, { object_id: ioas, op: 9 }).result).toBe('ENOENT');
    expect(call(START, { op: 9, val64: 1 }).result).toBe('EBUSY');
    expect(call(SIZE, { op: GET }).result).toBe('EBUSY');
    iommufd.detach(device);
    expect(call(START, { op: 9, val64: 1 }).result).toBe('EOPNOTSUPP');
    expect(set(START, 0x2000_0001)).toBe('EINVAL');
    expect(set(START, NO_START)).toBe('EINVAL');
    expect(set(START, 0x2000_0000)).toBe('EADDRINUSE');
    expect(lab.host.context.refusals.last?.why).toContain('reserved');
    expect(set(START, 0x1fe0_0000)).toBe(0);
    expect(set(SIZE, 2n ** 44n)).toBe('EINVAL');
    expect(set(SIZE, 2n ** 44n - 1n)).toBe('EOVERFLOW');
    expect(set(SIZE, 3)).toBe('EADDRINUSE');
    expect(set(SIZE, 2)).toBe(0);
    expect(set(START, 0x1ff0_0000)).toBe('EADDRINUSE');
  });

  it('START comes first: SIZE without it is EINVAL, and 0 is fine', () => {
    const { set, get } = bound();
    expect([get(START), get(SIZE)]).toEqual([NO_START, 0n]);
    expect([set(SIZE, 1), set(SIZE, 0)]).toEqual(['EINVAL', 0]);
    expect([set(START, 0x4000_0000), set(SIZE, 4)]).toEqual([0, 0]);
    expect([get(START), get(SIZE)]).toEqual([0x4000_0000n, 4n]);
  });

  it('neither the driver’s window nor a direct-relaxable region is in the way, nor address 0, nor the last MiB', () => {
    const { set } = bound({ machine: { iommu: { ...SMMU, reserved: RESERVED } } });
    expect([0x800_0000, 0x3000_0000, 0, NO_START - 0xf_ffffn].map((start) => set(START, start))).toEqual([0, 0, 0, 0]);
  });
});

describe('the window moved', () => {
  it('leaves the IOVA ranges where it is, and gives back the driver’s; pages, messages and interrupts are there', () => {
    const { lab, iommufd, device, ioas, move } = bound();
    expect(move(0x4000_0000, 2)).toEqual([0, 0]);
    iommufd.attach(device, ioas);
    expect(iommufd.ranges(ioas).list).toEqual([
      [0n, 0x3fff_ffffn],
      [0x4020_0000n, 0xffff_ffff_ffffn],
    ]);
    const { rung } = lab.enable(0);
    expect([0, 3].map((vector) => lab.message(0, vector))).toEqual([
      [0x4000_0040, 0],
      [0x4000_0040, 3],
    ]);
    expect([lab.lookup(0, 0x4000_0040), lab.lookup(0, 0x800_0040)]).toEqual([DOORBELL, -1]);
    lab.ring(0, 3);
    expect(rung()).toEqual([0, 0, 0, 1]);
    expect(iommufd.mapAt(ioas, 0x800_0000, 0x1000, 0)).toBe('EINVAL');
    const memory = lab.client.allocate(MIB);
    if (typeof memory === 'number') throw new Error('no memory');
    expect(iommufd.mapAt(ioas, 0x800_0000, memory.address, MIB)).toBe(0);
    expect(iommufd.mapAt(ioas, 0x4010_0000, memory.address, MIB)).toBe('EINVAL');
    lab.dma(0, 0x800_0040, 0x55);
    expect(memory.bytes[0x40]).toBe(0x55);
    expect(rung()).toEqual([0, 0, 0, 0]);
    expect(lab.faults).toBe(0);
  });

  it('goes along on replace, at the same place', () => {
    const { lab, iommufd, device, ioas, move } = bound();
    move(0x4000_0000, 1);
    const other = iommufd.ioas();
    iommufd.attach(device, ioas);
    const { rung } = lab.enable(0, 1);
    iommufd.attach(device, other);
    expect(iommufd.ranges(other).list[0]).toEqual([0n, 0x3fff_ffffn]);
    expect(lab.lookup(0, 0x4000_0040)).toBe(DOORBELL);
    lab.ring(0, 0);
    expect(rung()).toEqual([1]);
  });

  it('EADDRINUSE at the attach where something is mapped; the driver’s window would have fitted', () => {
    const { lab, iommufd, device, ioas, move, set } = bound();
    const memory = lab.client.allocate(MIB);
    if (typeof memory === 'number') throw new Error('no memory');
    expect(iommufd.mapAt(ioas, 0x4000_0000, memory.address, 0x1000)).toBe(0);
    move(0x4000_0000, 1);
    expect(iommufd.attach(device, ioas)).toBe('EADDRINUSE');
    expect(set(SIZE, 0)).toBe(0);
    expect(iommufd.attach(device, ioas)).toBeTypeOf('number');
  });

  it('SIZE 0, and START alone, leave the driver’s window', () => {
    const { lab, iommufd, device, ioas, move, set, get } = bound();
    set(START, 0x4000_0000);
    iommufd.attach(device, ioas);
    lab.enable(0, 1);
    expect(lab.message(0, 0)).toEqual([0x800_0040, 0]);
    iommufd.detach(device);
    move(0x4000_0000, 1);
    expect(set(SIZE, 0)).toBe(0);
    expect([get(START), get(SIZE)]).toEqual([0x4000_0000n, 0n]);
    iommufd.attach(device, ioas);
    expect(iommufd.ranges(ioas).list[0]).toEqual([0n, 0x7ff_ffffn]);
  });

  it('is each device’s own: two in one IOAS have two windows, each with its page', () => {
    const { lab, iommufd, devices, ioas, move } = bound();
    expect(lab.bind(1)).toBe(3);
    move(0x4000_0000, 1, 3);
    for (const device of devices) iommufd.attach(device, ioas);
    expect(iommufd.ranges(ioas).list).toEqual([
      [0n, 0x7ff_ffffn],
      [0x810_0000n, 0x3fff_ffffn],
      [0x4010_0000n, 0xffff_ffff_ffffn],
    ]);
    const [first, second] = [lab.enable(0, 1), lab.enable(1, 1)];
    expect([lab.message(0, 0)[0], lab.message(1, 0)[0]]).toEqual([0x800_0040, 0x4000_0040]);
    lab.ring(0, 0);
    lab.ring(1, 0);
    expect([first.rung(), second.rung()]).toEqual([[1], [1]]);
    iommufd.detach(devices[1]!);
    expect(iommufd.ranges(ioas).list).toHaveLength(2);
  });

  it('vectors that are enabled keep their address when the window moves between detach and attach, and ring again once enabled anew', () => {
    const { lab, iommufd, device, ioas, move } = bound();
    iommufd.attach(device, ioas);
    const before = lab.enable(0, 1);
    iommufd.detach(device);
    move(0x4000_0000, 1);
    iommufd.attach(device, ioas);
    expect(lab.message(0, 0)).toEqual([0x800_0040, 0]);
    expect(lab.lookup(0, 0x800_0040)).toBe(-1);
    lab.ring(0, 0);
    expect([before.rung(), lab.faults]).toEqual([[0], 1]);
    iommufd.detach(device);
    expect(move(0x800_0000, 1)).toEqual([0, 0]);
    iommufd.attach(device, ioas);
    lab.ring(0, 0);
    expect(before.rung()).toEqual([1]);
  });

  it('a window beyond the domain’s reach is found when vectors are enabled: ENOSPC, and the size 0 mends it', () => {
    const { lab, iommufd, device, ioas, move, set } = bound();
    expect(move(2n ** 56n, 1)).toEqual([0, 0]);
    iommufd.attach(device, ioas);
    expect(lab.enable(0, 1).result).toBe('ENOSPC');
    iommufd.detach(device);
    set(SIZE, 0);
    iommufd.attach(device, ioas);
    expect(lab.enable(0, 1).result).toBe(0);
  });

  it('is where a user-given doorbell may stand, as in the driver’s (rule 10), but not in another device’s', () => {
    const { lab, iommufd, devices, ioas, move } = bound();
    lab.bind(1);
    move(0x4000_0000, 1);
    move(0x5000_0000, 1, 3);
    for (const device of devices) iommufd.attach(device, ioas);
    expect(lab.doorbell(0, 0x5000_0000)).toBe('EADDRINUSE');
    expect(lab.doorbell(0, 0x4000_0000)).toBe(0);
    const [own, other] = [lab.enable(0, 1), lab.enable(1, 1)];
    expect([lab.message(0, 0)[0], lab.message(1, 0)[0]]).toEqual([0x4000_0040, 0x5000_0040]);
    lab.ring(0, 0);
    lab.ring(1, 0);
    expect([own.rung(), other.rung()]).toEqual([[1], [1]]);
  });

  it('on x86 there is no software window to move: over the hardware’s EADDRINUSE, elsewhere accepted without effect', () => {
    const { lab, iommufd, device, ioas, set, move } = bound({}, 'x86');
    expect(set(START, 0xfee0_0000)).toBe('EADDRINUSE');
    expect(move(0x4000_0000, 1)).toEqual([0, 0]);
    iommufd.attach(device, ioas);
    expect(iommufd.ranges(ioas).list.some(([start]) => start === 0x4010_0000n)).toBe(false);
    const { rung } = lab.enable(0, 1);
    expect(lab.message(0, 0)[0]).toBeGreaterThanOrEqual(0xfee0_0000);
    lab.ring(0, 0);
    expect(rung()).toEqual([1]);
  });
});
