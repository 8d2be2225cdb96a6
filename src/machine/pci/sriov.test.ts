/** SR-IOV of a simulated function (PCIe 9.2, 9.3): when virtual functions answer, what their headers show, where their BARs are. */
import { describe, expect, it } from 'vitest';
import { Header, SrIov } from '../../arch/pci/index.ts';
import { Loss } from '../../ports/ledger.ts';
import type { BarSpec, FunctionSpec, PciFunction } from '../../ports/pci.ts';
import { ALL_ON, BELL, enableMsix, MMIO32, program, rig, TestModel } from './testing/rig.ts';

const MIB = 2 ** 20;
/** Without ACS the capability is the first extended one. */
const CAP = 0x100;
const VF_BAR: BarSpec = { type: 'memory32', size: 0x1_0000 };
const VF: Partial<FunctionSpec> = {
  name: 'vf',
  deviceId: 0x9999,
  bars: [VF_BAR, null, null, null, null, null],
  msix: { vectors: 4, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 0x800 } },
  interruptPin: 1,
  express: { type: 'endpoint', flr: true },
};

class Pf extends TestModel {
  readonly vfs: TestModel[] = [];
  virtualFunction(): PciFunction {
    const vf = new TestModel(VF);
    this.vfs.push(vf);
    return vf;
  }
}

const SRIOV = { totalVfs: 3, vfDeviceId: 0x9999, offset: 8, stride: 2, bars: [VF_BAR, null, null, null, null, null] };

function setUp(changes: Partial<NonNullable<FunctionSpec['sriov']>> = {}) {
  const made = rig();
  const pf = new Pf({
    express: { type: 'endpoint', flr: true },
    powerManagement: true,
    sriov: { ...SRIOV, ...changes },
  });
  const port = made.root.addBridge(made.root.rootBus, 1 << 3, 'root-port');
  const fn = made.root.addFunction(port.secondary, 0, pf);
  made.root.start();
  const requester = (devfn: number) => (1 << 8) | devfn;
  const read = (devfn: number, offset: number, size: number) =>
    made.root.configRead(requester(devfn), offset, size) >>> 0;
  const write = (devfn: number, offset: number, size: number, value: number) =>
    made.root.configWrite(requester(devfn), offset, size, value);
  const enable = (count: number, control = 9) => {
    write(0, CAP + SrIov.NUM_VFS, 2, count);
    write(0, CAP + SrIov.CONTROL, 2, control);
  };
  return { ...made, pf, fn, read, write, enable, port };
}

describe('SR-IOV', () => {
  it('the capability says what was declared, and firmware gives one window for all VFs', () => {
    const { read } = setUp();
    expect(read(0, CAP, 4)).toBe(0x0001_0010);
    expect([SrIov.INITIAL_VFS, SrIov.TOTAL_VFS, SrIov.NUM_VFS].map((at) => read(0, CAP + at, 2))).toEqual([3, 3, 0]);
    expect([SrIov.VF_OFFSET, SrIov.VF_STRIDE, SrIov.VF_DEVICE_ID].map((at) => read(0, CAP + at, 2))).toEqual([
      8, 2, 0x9999,
    ]);
    expect([read(0, CAP + SrIov.SUPPORTED_PAGE_SIZES, 4), read(0, CAP + SrIov.SYSTEM_PAGE_SIZE, 4)]).toEqual([
      0x553, 1,
    ]);
    expect(read(0, CAP + SrIov.VF_BAR0, 4)).toBe(MMIO32);
    // Three slices of 64 KiB lie within the bridge's first mebibyte.
    expect([read(8, 0, 4), read(0, 0x10, 4)]).toEqual([0xffff_ffff, 0]);
  });

  it('a VF BAR is sized as one slice', () => {
    const { read, write } = setUp();
    write(0, CAP + SrIov.VF_BAR0, 4, 0xffff_ffff);
    expect(read(0, CAP + SrIov.VF_BAR0, 4)).toBe(0xffff_0000);
  });

  it('VF Enable makes NumVFs functions answer at offset and stride; their headers have no ids, BARs or pin', () => {
    const { read, write, enable, root } = setUp();
    enable(2);
    const answers = [8, 10, 12].map((devfn) => read(devfn, Header.HEADER_TYPE, 1));
    expect(answers).toEqual([0, 0, 0xff]);
    expect(root.functions.map(({ streamId }) => streamId)).toEqual([0x100, 0x108, 0x10a]);
    expect([read(8, 0, 4), read(8, Header.BAR0, 4), read(8, Header.INTERRUPT_PIN, 1)]).toEqual([0xffff_ffff, 0, 0]);
    write(8, Header.BAR0, 4, 0x1234_0000);
    write(8, Header.COMMAND, 2, 0xffff);
    expect([read(8, Header.BAR0, 4), read(8, Header.COMMAND, 2)]).toEqual([0, 4]);
  });

  it('each VF decodes its slice while VF MSE is set, and no other', () => {
    const { bus, enable, write, root } = setUp();
    enable(2, 1);
    expect(bus.claimant(MMIO32)).toBeNull();
    write(0, CAP + SrIov.CONTROL, 2, 9);
    expect([0, 1, 2].map((slice) => bus.claimant(MMIO32 + slice * 0x1_0000))).toEqual(['vf BAR 0', 'vf BAR 0', null]);
    write(0, CAP + SrIov.VF_BAR0, 4, MMIO32 + MIB / 2);
    expect([bus.claimant(MMIO32), bus.claimant(MMIO32 + MIB / 2)]).toEqual([null, 'vf BAR 0']);
    expect(root.functions[1].bars.windows[0]?.base).toBe(MMIO32 + MIB / 2);
  });

  it('a VF sends under its own requester id, and not before it masters the bus', () => {
    const { enable, root, pf, bell, write, lost } = setUp();
    enable(2);
    const vf = root.functions[2];
    enableMsix(vf);
    program(vf, 1, 0x55);
    expect(pf.vfs[1].port?.raise(1)).toBe(false);
    expect(lost(Loss.BUS_MASTER_OFF)).toBe(1);
    write(10, Header.COMMAND, 2, ALL_ON);
    expect(pf.vfs[1].port?.raise(1)).toBe(true);
    // Its neighbours in the slot are out of reach: whatever it sends goes up.
    expect(vf.reachesPeers).toBe(false);
    expect(bell.arrivals).toEqual([{ requester: 0x10a, address: BELL + 0x40, data: 0x55 }]);
  });

  it('VFs go with VF Enable, with a reset of the PF, and with one of the bus; the same models come back reset', () => {
    const { enable, read, write, pf, root, port, bus, fn } = setUp();
    for (const end of [() => write(0, CAP + SrIov.CONTROL, 2, 0), () => fn.reset(), () => port.secondary.reset()]) {
      write(0, CAP + SrIov.VF_BAR0, 4, MMIO32);
      enable(3);
      expect([read(8, 4, 2), root.functions.length, bus.claimant(MMIO32 + 0x2_0000)]).toEqual([0, 4, 'vf BAR 0']);
      end();
      expect([read(8, 4, 2), root.functions.length, bus.claimant(MMIO32)]).toEqual([0xffff, 1, null]);
      expect(pf.vfs[0].port?.raise(0)).toBe(false);
    }
    expect([pf.vfs.length, pf.vfs[0].resets]).toEqual([3, 3]);
  });

  it('an FLR of a VF resets that VF alone, which keeps its place', () => {
    const { enable, read, write, pf, fn } = setUp();
    enable(2);
    write(8, Header.COMMAND, 2, 4);
    const before = [pf.resets, pf.vfs[0].resets, pf.vfs[1].resets];
    const express = 0x40 + 12;
    expect(read(8, express, 1)).toBe(0x10);
    write(8, express + 8, 2, 0x8000);
    expect([pf.resets, pf.vfs[0].resets, pf.vfs[1].resets]).toEqual([before[0], before[1] + 1, before[2]]);
    expect([read(8, Header.COMMAND, 2), fn.sriov !== null]).toEqual([0, true]);
  });

  it('VFs sleep with their PF', () => {
    const { enable, write, root, fn } = setUp();
    enable(1);
    const power = 0x40;
    write(0, power + 4, 2, 3);
    expect([fn.isPowered, root.functions[1].isPowered, root.functions[1].bars.windows[0]?.decoded]).toEqual([
      false,
      false,
      false,
    ]);
    write(0, power + 4, 2, 0);
    expect([root.functions[1].isPowered, root.functions[1].bars.windows[0]?.decoded]).toEqual([true, true]);
  });

  it('RangeError for what cannot be, naming the field', () => {
    for (const [changes, why] of [
      [{ totalVfs: 0 }, /sriov.totalVfs: expected 1 to 255/],
      [{ offset: 0 }, /sriov.offset/],
      [{ stride: 0 }, /sriov.stride/],
      [{ totalVfs: 200 }, /would leave the bus/],
      [{ bars: [{ type: 'memory32', size: 0x1000 }] }, /sriov.bars\[0\].size: expected a power of two from 65536/],
      [{ bars: [{ type: 'io', size: 0x1_0000 }] }, /no I\/O BARs/],
    ] as const) {
      expect(() => setUp(changes)).toThrow(why);
    }
    const other = setUp({ bars: [{ type: 'memory64', size: 0x1_0000 }] });
    expect(() => other.enable(1)).toThrow(/the physical function says memory64 of 65536 bytes, the model has memory32/);
  });
});
