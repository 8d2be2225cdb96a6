import { describe, expect, it } from 'vitest';
import { defineMachine, MachineError, parseBytes, parseMachine } from './define.ts';
import { preset, presetInput, presetNames } from './presets.ts';

const field = (make: () => unknown): string => {
  try {
    make();
  } catch (error) {
    if (error instanceof MachineError) return error.field;
    throw error;
  }
  return 'accepted';
};
const its = () => presetInput('arm-its');

describe('preset', () => {
  it('names those that there are when asked for another', () => {
    const other = 'nope' as 'x86';
    expect(() => preset(other)).toThrow(new RangeError('preset: none is called nope; there are arm-its, arm-v2m, x86'));
    expect(() => presetInput(other)).toThrow(RangeError);
  });
});

describe('defineMachine', () => {
  it('accepts every preset, and fills in the defaults', () => {
    for (const name of presetNames) expect(defineMachine(presetInput(name))).toEqual(preset(name));
    const { iommu, interrupts, ...rest } = its();
    const base = { type: 'smmuv3' as const, base: iommu?.base ?? 0 };
    const frames = { type: 'gic' as const, version: 3 as const, distributor: 0x5000_0000, redistributors: 0x5010_0000 };
    expect(interrupts).toMatchObject(frames);
    const spec = defineMachine({ ...rest, iommu: base, interrupts: { ...frames, its: [{ base: 0x5080_0000 }] } });
    expect(spec.iommu).toMatchObject({ type: 'smmuv3', oas: 48, sidBits: 16, eventQueueLog2: 7 });
    expect(spec.interrupts).toMatchObject({
      lpiBits: 16,
      spis: 988,
      its: [{ base: 0x5080_0000, deviceBits: 16, eventBits: 16 }],
    });
  });

  it.each([
    ['an unknown field', { ...its(), cpu: 4 }, 'machine'],
    ['a page size that Linux lacks', { ...its(), pageSize: 8192 }, 'pageSize'],
    ['no CPU', { ...its(), cpus: 0 }, 'cpus'],
    ['half a CPU', { ...its(), cpus: 1.5 }, 'cpus'],
    ['no memory', { ...its(), memory: [] }, 'memory'],
    ['memory that is not aligned', { ...its(), memory: [{ base: 4096, size: '64M' }] }, 'memory[0].base'],
    ['memory of no size', { ...its(), memory: [{ base: 0x80_0000_0000, size: 0 }] }, 'memory[0].size'],
    ['memory beyond 2^44', { ...its(), memory: [{ base: 2 ** 44 - 2 ** 26, size: '128M' }] }, 'memory[0].size'],
    ['a negative address', { ...its(), memory: [{ base: -67108864, size: '64M' }] }, 'memory[0].base'],
    ['an address that is no number', { ...its(), memory: [{ base: '0xhello', size: '64M' }] }, 'memory[0].base'],
    ['an SMMU on x86', { ...presetInput('x86'), iommu: its().iommu }, 'iommu.type'],
    ['a GIC on x86', { ...presetInput('x86'), interrupts: its().interrupts }, 'interrupts.type'],
    [
      'a reserved region that ends before it starts',
      { ...its(), iommu: { type: 'smmuv3', base: 0x5200_0000, reserved: [{ start: 8, end: 4, type: 'reserved' }] } },
      'iommu.reserved[0].end',
    ],
    ['an SMMU between two frames', { ...its(), iommu: { type: 'smmuv3', base: 0x5200_1000 } }, 'iommu.base'],
    ['a configuration space between two buses', { ...its(), pci: { ...its().pci, ecam: 1 } }, 'pci.ecam'],
    [
      'a distributor between two frames',
      { ...its(), interrupts: { ...its().interrupts, distributor: 1 } },
      'interrupts.distributor',
    ],
    ['a segment whose ids have no sign bit left', { ...its(), pci: { ...its().pci, segment: 0x8000 } }, 'pci.segment'],
    ['remapping without VT-d', { ...presetInput('x86'), iommu: null }, 'interrupts.remapping'],
    [
      'an SMMU that translates nothing',
      { ...its(), iommu: { type: 'smmuv3', base: 0x5200_0000, stage1: false, stage2: false } },
      'iommu.stage1',
    ],
    ['an output size between two', { ...its(), iommu: { type: 'smmuv3', base: 0x5200_0000, oas: 46 } }, 'iommu.oas'],
    [
      'an ITS in GICv2',
      { ...its(), interrupts: { type: 'gic', version: 2, distributor: 0x5000_0000, its: [{ base: 0x5080_0000 }] } },
      'interrupts.its',
    ],
    [
      'a frame beyond the last SPI',
      {
        ...its(),
        interrupts: {
          type: 'gic',
          version: 2,
          distributor: 0x5000_0000,
          v2m: [{ base: 0x5090_0000, spiBase: 1000, spiCount: 40 }],
        },
      },
      'interrupts.v2m[0].spiCount',
    ],
    ['two things at one address', { ...its(), iommu: { type: 'smmuv3', base: 0x5080_0000 } }, 'interrupts.its[0].base'],
    [
      'a slot that is none',
      { ...its(), pci: { ...its().pci, slots: [{ at: '20.0', kind: 'function', device: 'bell' }] } },
      'pci.slots[0].at',
    ],
  ])('refuses %s', (_, input, expected) => {
    expect(field(() => defineMachine(input as never))).toBe(expected);
  });

  it('reads the same from JSON, with addresses as text', () => {
    const input = { ...its(), name: 'mine', memory: [{ base: '0x80_0000_0000', size: '8G' }] };
    expect(parseMachine(JSON.stringify(input)).memory).toEqual([{ base: 0x80_0000_0000, size: 2 ** 33 }]);
  });

  it.each(['', '{', '[]', 'null', '"arm-its"', '{"name": "x"'])('refuses the file %j', (text) => {
    expect(field(() => parseMachine(text))).not.toBe('accepted');
  });

  it.each([
    ['4096', 4096],
    ['0x5080_0000', 0x5080_0000],
    ['64k', 65536],
    ['2M', 2097152],
    ['8G', 8589934592],
    ['0x', null],
    ['1T', null],
    ['-1', null],
    ['99999999999999999999', null],
  ])('parseBytes(%j) is %j', (text, value) => {
    expect(parseBytes(text)).toBe(value);
  });
});
