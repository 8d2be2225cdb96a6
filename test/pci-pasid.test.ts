import { describe, expect, it } from 'vitest';
import { Express, ExtendedCapabilityId, findExtendedCapability, Pasid, PasidBits } from '../src/arch/pci/index.ts';
import { createDevice } from '../src/devices/index.ts';
import { defineMachine } from '../src/machine/define.ts';
import { Machine } from '../src/machine/machine.ts';
import { presetInput } from '../src/machine/presets.ts';

const AT = '0000:01:00.0';
/** The root port, by its requester id. */
const PORT = 0x08;
const RAM = 0x80_0000_0000;

function bell(options: Record<string, unknown>) {
  const base = presetInput('arm-its');
  const below = [{ at: '00.0', kind: 'function' as const, device: 'bell', options }];
  const slots = [{ at: '01.0', kind: 'root-port' as const, acs: true, below }];
  const machine = new Machine(defineMachine({ ...base, iommu: null, pci: { ...base.pci, slots } }), createDevice);
  machine.pci.configWrite(PORT, 4, 2, 6);
  return { machine, fn: machine.pci.function(AT)! };
}

describe('the PASID capability', () => {
  it('says width and features, and lets only those be turned on', () => {
    const { fn } = bell({ pasid: 16, pasidExecute: true });
    const at = findExtendedCapability((offset, size) => fn.configRead(offset, size), ExtendedCapabilityId.PASID);
    expect(at).toBe(0x100);
    // Width 16 in bits 12:8, execute in bit 1 (PCIe 7.8.9.2).
    expect(fn.configRead(at + Pasid.CAPABILITY, 2)).toBe(0x1002);
    fn.configWrite(at + Pasid.CONTROL, 2, 0xffff);
    expect(fn.configRead(at + Pasid.CONTROL, 2)).toBe(PasidBits.ENABLE | PasidBits.EXECUTE);
    fn.reset();
    expect(fn.configRead(at + Pasid.CONTROL, 2)).toBe(0);
  });

  it('comes with end-to-end prefixes, in the function and in the port above', () => {
    const express = (fn: { configRead(offset: number, size: number): number }): number => {
      for (let at = fn.configRead(0x34, 1); at !== 0; at = fn.configRead(at + 1, 1)) {
        if (fn.configRead(at, 1) === 0x10) return fn.configRead(at + Express.DEVICE_CAPABILITIES_2, 4);
      }
      return -1;
    };
    const { machine, fn } = bell({ pasid: 1 });
    expect(express(fn)).toBe(0x30_0000);
    expect(express(bell({}).fn)).toBe(0);
    const port = { configRead: (offset: number, size: number) => machine.pci.configRead(PORT, offset, size) };
    expect(express(port)).toBe(0x30_0000);
  });

  it('without it, or while it is off, or beyond its width: no request leaves', () => {
    const { machine, fn } = bell({ pasid: 4 });
    const plain = bell({});
    fn.configWrite(4, 2, 6);
    plain.fn.configWrite(4, 2, 6);
    const results: string[] = [];
    const send = (to: typeof fn, pasid?: number) =>
      to.dmaWrite(RAM, Uint8Array.of(1, 2, 3, 4), (ok) => results.push(`${pasid} ${ok}`), pasid);
    send(plain.fn, 3);
    plain.machine.work.drain();
    send(fn, 3);
    send(fn);
    machine.work.drain();
    fn.configWrite(0x100 + Pasid.CONTROL, 2, PasidBits.ENABLE);
    for (const pasid of [0, 15, 16, -5]) send(fn, pasid);
    machine.work.drain();
    expect(results).toEqual(['3 false', '3 false', 'undefined true', '0 true', '15 true', '16 false', '-5 false']);
  });

  it('of virtual functions is that of the physical one', () => {
    const { machine, fn } = bell({ pasid: 4, vfs: 1 });
    const read = (offset: number, size: number): number => fn.configRead(offset, size);
    const sriov = findExtendedCapability(read, ExtendedCapabilityId.SR_IOV);
    expect(sriov).toBe(0x108);
    fn.configWrite(sriov + 0x10, 2, 1);
    fn.configWrite(sriov + 0x08, 2, 1);
    const vf = machine.pci.function('0000:01:10.0')!;
    expect(findExtendedCapability((o, s) => vf.configRead(o, s), ExtendedCapabilityId.PASID)).toBe(0);
    expect(vf.mayUsePasid(3)).toBe(false);
    fn.configWrite(0x100 + Pasid.CONTROL, 2, PasidBits.ENABLE);
    expect([vf.mayUsePasid(3), vf.mayUsePasid(16)]).toEqual([true, false]);
  });

  it.each([
    [{ pasid: 21 }, /pasid/],
    [{ pasid: 1, express: false }, /without express/],
  ])('%o is refused', (options, why) => {
    expect(() => bell(options)).toThrow(why);
  });
});
