/** Machines that are ready to use. Each has a root port with ACS and the test device `bell` behind it, at 0000:01:00.0. */
import { GIC_DEFAULTS, ITS_DEFAULTS, SMMU_DEFAULTS, VTD_DEFAULTS } from './defaults.ts';
import type { MachineInput } from './define.ts';
import type { MachineSpec, SlotSpec } from './spec.ts';

const GIGABYTE = 2 ** 30;

/** Where a preset's device sits, and where `--device` puts another one. */
export const PRESET_DEVICE = '0000:01:00.0';

const slots = (): SlotSpec[] => [
  { at: '01.0', kind: 'root-port', acs: true, below: [{ at: '00.0', kind: 'function', device: 'bell' }] },
];

/** What Arm servers have in common: RAM far above 4 GiB, registers below it. */
const arm = {
  architecture: 'arm64' as const,
  pageSize: 4096 as const,
  cpus: 4,
  memory: [{ base: 0x80_0000_0000, size: 16 * GIGABYTE }],
  iommu: { type: 'smmuv3' as const, base: 0x5200_0000, ...SMMU_DEFAULTS },
  pci: {
    segment: 0,
    ecam: 0x40_1000_0000,
    mmio32: { base: 0x6000_0000, size: 0x1000_0000 },
    mmio64: { base: 0x60_0000_0000, size: 64 * GIGABYTE },
    io: { base: 0x7fff_0000, size: 0x1_0000 },
    slots: slots(),
  },
};

const inputs = {
  /** SMMUv3, which tracks dirty pages, and GICv3 with an ITS; GITS_TRANSLATER at 0x5081_0040. */
  'arm-its': {
    ...arm,
    name: 'arm-its',
    iommu: { ...arm.iommu, httu: 'dirty' },
    interrupts: {
      type: 'gic',
      version: 3,
      distributor: 0x5000_0000,
      redistributors: 0x5010_0000,
      ...GIC_DEFAULTS,
      its: [{ base: 0x5080_0000, ...ITS_DEFAULTS }],
    },
  },
  /** SMMUv3 and a GICv2 with a v2m frame of 956 SPIs; MSI_SETSPI_NS at 0x5090_0040. Its MSIs are not isolated. */
  'arm-v2m': {
    ...arm,
    name: 'arm-v2m',
    interrupts: {
      type: 'gic',
      version: 2,
      distributor: 0x5000_0000,
      ...GIC_DEFAULTS,
      v2m: [{ base: 0x5090_0000, spiBase: 64, spiCount: 956 }],
    },
  },
  /** VT-d with interrupt remapping; the MSI range 0xfee0_0000 bypasses the tables. */
  x86: {
    name: 'x86',
    architecture: 'x86',
    pageSize: 4096,
    cpus: 4,
    memory: [
      { base: 0, size: 2 * GIGABYTE },
      { base: 4 * GIGABYTE, size: 14 * GIGABYTE },
    ],
    iommu: { type: 'intel-vtd', base: 0xfed9_0000, ...VTD_DEFAULTS },
    interrupts: { type: 'x86', remapping: true },
    pci: {
      segment: 0,
      ecam: 0xb000_0000,
      mmio32: { base: 0xc000_0000, size: 0x2000_0000 },
      mmio64: { base: 0x60_0000_0000, size: 64 * GIGABYTE },
      io: { base: 0xf000_0000, size: 0x1_0000 },
      slots: slots(),
    },
  },
} satisfies Record<string, MachineInput & MachineSpec>;

export type PresetName = keyof typeof inputs;
export const presetNames = Object.keys(inputs) as PresetName[];

export const isPreset = (name: string): name is PresetName => Object.hasOwn(inputs, name);

/** A preset's machine. The input is plain data: spread it and change what you like. @throws RangeError for a name that no preset has */
export const presetInput = (name: PresetName): MachineInput => structuredClone(inputs[known(name)]);
/** The same, complete. @throws RangeError for a name that no preset has */
export const preset = (name: PresetName): MachineSpec => structuredClone<MachineSpec>(inputs[known(name)]);

function known(name: PresetName): PresetName {
  if (!isPreset(name)) throw new RangeError(`preset: none is called ${name}; there are ${presetNames.join(', ')}`);
  return name;
}
