/**
 * `defineMachine`: a machine as data, checked. The same schema reads a JSON host file, so that both give the same errors, each naming its field.
 */
import { z } from 'zod';
import { hex } from '../ports/address.ts';
import {
  GIC_DEFAULTS,
  ITS_DEFAULTS,
  MACHINE_DEFAULTS,
  PCI_DEFAULTS,
  SMMU_DEFAULTS,
  VTD_DEFAULTS,
  X86_INTERRUPT_DEFAULTS,
} from './defaults.ts';
import { MachineError } from './machine-error.ts';
import type { MachineSpec, SlotSpec } from './spec.ts';

const MEGABYTE = 2 ** 20;
/** RAM is held in segments of this size (memory.ts). */
const SEGMENT = 64 * MEGABYTE;
const PHYSICAL_LIMIT = 2 ** 44;
/** Frames of registers that Arm places are 64 KiB. */
const FRAME = 0x1_0000;

export { MachineError };

/** An address or size: a JSON number, or text such as `0x5080_0000`, `64M`, `8G`. */
const bytes = z.union([z.number(), z.string()]).transform((value, context) => {
  const number = typeof value === 'number' ? value : parseBytes(value);
  if (number === null || !Number.isSafeInteger(number) || number < 0) {
    context.addIssue({
      code: 'custom',
      message: `expected an address or a size below 2^53, such as 4096, "0x5080_0000" or "64M", got ${JSON.stringify(value)}`,
    });
    return z.NEVER;
  }
  return number;
});

/** `0x5080_0000`, `4096`, `64K`, `2M`, `8G` as a number; null for anything else. */
export function parseBytes(text: string): number | null {
  const match = /^(0x[0-9a-f_]+|[0-9_]+)([kmg])?$/i.exec(text.trim());
  if (match === null) return null;
  const digits = (match[1] as string).replaceAll('_', '');
  const value = Number(digits);
  const scale = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }[(match[2] ?? '').toLowerCase()] ?? 1;
  return Number.isSafeInteger(value * scale) && digits !== '0x' ? value * scale : null;
}

const range = z.strictObject({ base: bytes, size: bytes });
const reserved = z
  .strictObject({ start: bytes, end: bytes, type: z.enum(['direct', 'direct-relaxable', 'reserved']) })
  .refine(({ start, end }) => start <= end, { path: ['end'], message: 'lies before start; it is the last byte' });
const granule = z.union([z.literal(4096), z.literal(16384), z.literal(65536)]);

const smmu = z.strictObject({
  type: z.literal('smmuv3'),
  base: bytes,
  stage1: z.boolean().default(SMMU_DEFAULTS.stage1),
  stage2: z.boolean().default(SMMU_DEFAULTS.stage2),
  granules: z.array(granule).min(1).default(SMMU_DEFAULTS.granules),
  oas: z.union([32, 36, 40, 42, 44, 48].map((bits) => z.literal(bits))).default(SMMU_DEFAULTS.oas),
  sidBits: z.int().min(8).max(32).default(SMMU_DEFAULTS.sidBits),
  ssidBits: z.int().min(0).max(20).default(SMMU_DEFAULTS.ssidBits),
  coherent: z.boolean().default(SMMU_DEFAULTS.coherent),
  s2fwb: z.boolean().default(SMMU_DEFAULTS.s2fwb),
  canwbs: z.boolean().default(SMMU_DEFAULTS.canwbs),
  stall: z.boolean().default(SMMU_DEFAULTS.stall),
  httu: z.enum(['none', 'access', 'dirty']).default(SMMU_DEFAULTS.httu),
  tlbKeepsDirty: z.boolean().default(SMMU_DEFAULTS.tlbKeepsDirty),
  eventQueueLog2: z.int().min(1).max(19).default(SMMU_DEFAULTS.eventQueueLog2),
  twoLevelStreamTable: z.boolean().default(SMMU_DEFAULTS.twoLevelStreamTable),
  reserved: z.array(reserved).default(SMMU_DEFAULTS.reserved),
});

const vtd = z.strictObject({
  type: z.literal('intel-vtd'),
  base: bytes,
  addressWidth: z.union([z.literal(39), z.literal(48)]).default(VTD_DEFAULTS.addressWidth),
  coherent: z.boolean().default(VTD_DEFAULTS.coherent),
  reserved: z.array(reserved).default(VTD_DEFAULTS.reserved),
});

const gic = z.strictObject({
  type: z.literal('gic'),
  version: z.union([z.literal(2), z.literal(3)]),
  distributor: bytes,
  redistributors: bytes.optional(),
  spis: z.int().min(32).max(988).default(GIC_DEFAULTS.spis),
  lpiBits: z.int().min(14).max(24).default(GIC_DEFAULTS.lpiBits),
  its: z
    .array(
      z.strictObject({
        base: bytes,
        deviceBits: z.int().min(1).max(32).default(ITS_DEFAULTS.deviceBits),
        eventBits: z.int().min(1).max(32).default(ITS_DEFAULTS.eventBits),
        devices: z
          .array(
            z
              .string()
              .regex(/^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/, 'expected a function such as "0000:01:00.0"'),
          )
          .default(ITS_DEFAULTS.devices),
      }),
    )
    .optional(),
  v2m: z
    .array(z.strictObject({ base: bytes, spiBase: z.int().min(32).max(1019), spiCount: z.int().min(1).max(988) }))
    .optional(),
});

const x86 = z.strictObject({
  type: z.literal('x86'),
  remapping: z.boolean().default(X86_INTERRUPT_DEFAULTS.remapping),
});

const at = z.string().regex(/^[01]?[0-9a-f]\.[0-7]$/, 'expected a device and function number such as "03.0"');
const slot: z.ZodType<SlotSpec> = z.lazy(() =>
  z.discriminatedUnion('kind', [
    z.strictObject({
      at,
      kind: z.enum(['root-port', 'switch-upstream', 'switch-downstream']),
      acs: z.boolean(),
      below: z.array(slot),
    }),
    z.strictObject({ at, kind: z.literal('pci-bridge'), below: z.array(slot) }),
    z.strictObject({
      at,
      kind: z.literal('function'),
      device: z.string().min(1),
      options: z.record(z.string(), z.union([z.number(), z.string(), z.boolean()])).optional(),
      driver: z.string().nullable().optional(),
    }),
  ]),
) as z.ZodType<SlotSpec>;

const machine = z.strictObject({
  name: z.string().min(1),
  architecture: z.enum(['arm64', 'x86']),
  pageSize: granule.default(MACHINE_DEFAULTS.pageSize),
  cpus: z.int().min(1).max(64).default(MACHINE_DEFAULTS.cpus),
  memory: z.array(range).min(1),
  iommu: z.discriminatedUnion('type', [smmu, vtd]).nullable(),
  interrupts: z.discriminatedUnion('type', [gic, x86]),
  pci: z.strictObject({
    segment: z.int().min(0).max(0x7fff).default(PCI_DEFAULTS.segment),
    ecam: bytes,
    mmio32: range,
    mmio64: range,
    io: range,
    slots: z.array(slot),
  }),
});

/** What `defineMachine` takes: a MachineSpec in which whatever has a default may be left out. */
export type MachineInput = z.input<typeof machine>;

/**
 * Checks a machine and fills in its defaults.
 *
 * @throws MachineError naming the field: unknown fields, values out of range, ranges that overlap, a combination that no machine has.
 * @example
 * const spec = defineMachine({ ...presets['arm-its'](), name: 'four-cpus', cpus: 4 });
 */
export function defineMachine(input: MachineInput): MachineSpec {
  const result = machine.safeParse(input);
  if (!result.success) {
    const issue = result.error.issues[0];
    const field = issue === undefined ? 'machine' : pathText(issue.path);
    throw new MachineError(field, issue?.message ?? 'is not a machine');
  }
  const spec = result.data as MachineSpec;
  checkMemory(spec);
  checkParts(spec);
  checkOverlaps(spec);
  return spec;
}

/** Reads a JSON host file. @throws MachineError with the field, or `line` when it is no JSON at all. */
export function parseMachine(text: string): MachineSpec {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new MachineError('file', `is not JSON: ${(error as Error).message}`);
  }
  return defineMachine(value as MachineInput);
}

function pathText(path: readonly PropertyKey[]): string {
  const text = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
  return text === '' ? 'machine' : text.replace(/^\./, '');
}

function checkMemory(spec: MachineSpec): void {
  spec.memory.forEach(({ base, size }, index) => {
    const field = `memory[${index}]`;
    if (base % SEGMENT !== 0) throw new MachineError(`${field}.base`, `${hex(base)} is not a multiple of 64 MiB`);
    if (size === 0 || size % SEGMENT !== 0)
      throw new MachineError(`${field}.size`, `${hex(size)} is not a positive multiple of 64 MiB`);
    if (base + size > PHYSICAL_LIMIT)
      throw new MachineError(`${field}.size`, `memory ends at ${hex(base + size)}, beyond 2^44`);
  });
}

function checkParts(spec: MachineSpec): void {
  const { architecture, interrupts, iommu } = spec;
  if (architecture === 'x86' && interrupts.type !== 'x86')
    throw new MachineError('interrupts.type', 'an x86 machine has x86 interrupts, not a GIC');
  if (architecture === 'arm64' && interrupts.type !== 'gic')
    throw new MachineError('interrupts.type', 'an arm64 machine has a GIC');
  if (architecture === 'x86' && iommu?.type === 'smmuv3')
    throw new MachineError('iommu.type', 'an x86 machine has an intel-vtd IOMMU, not an SMMUv3');
  if (architecture === 'arm64' && iommu?.type === 'intel-vtd')
    throw new MachineError('iommu.type', 'an arm64 machine has an smmuv3, not VT-d');
  if (architecture === 'x86' && spec.pageSize !== 4096)
    throw new MachineError('pageSize', `x86 has pages of 4096 bytes, not ${spec.pageSize}`);
  if (interrupts.type === 'x86' && interrupts.remapping && iommu === null)
    throw new MachineError('interrupts.remapping', 'interrupt remapping is a part of the VT-d unit, and iommu is null');
  if (iommu?.type === 'smmuv3' && !iommu.stage1 && !iommu.stage2)
    throw new MachineError('iommu.stage1', 'an SMMU without stage 1 and stage 2 translates nothing');
  if (interrupts.type === 'gic') checkGic(spec, interrupts);
  checkAligned('pci.ecam', spec.pci.ecam, MEGABYTE);
  if (iommu !== null) checkAligned('iommu.base', iommu.base, iommu.type === 'smmuv3' ? FRAME : 4096);
}

/** Registers decode whole frames; a bus's configuration space is a MiB. */
function checkAligned(field: string, base: number, size: number): void {
  if (base % size !== 0) throw new MachineError(field, `${hex(base)} is not a multiple of ${hex(size, 1)}`);
}

function checkGic(spec: MachineSpec, gicSpec: Extract<MachineSpec['interrupts'], { type: 'gic' }>): void {
  if (gicSpec.version === 3 && gicSpec.redistributors === undefined)
    throw new MachineError('interrupts.redistributors', 'a GICv3 has redistributors');
  checkAligned('interrupts.distributor', gicSpec.distributor, gicSpec.version === 3 ? FRAME : 4096);
  checkAligned('interrupts.redistributors', gicSpec.redistributors ?? 0, FRAME);
  if (gicSpec.version === 2 && gicSpec.its !== undefined)
    throw new MachineError('interrupts.its', 'a GICv2 has no ITS; version must be 3');
  if (gicSpec.version === 2 && spec.cpus > 8)
    throw new MachineError('cpus', `a GICv2 serves at most 8 CPUs, not ${spec.cpus}`);
  (gicSpec.v2m ?? []).forEach((frame, index) => {
    const end = frame.spiBase + frame.spiCount;
    if (end > 32 + gicSpec.spis)
      throw new MachineError(
        `interrupts.v2m[${index}].spiCount`,
        `SPIs ${frame.spiBase} to ${end - 1} go beyond the distributor's last, ${31 + gicSpec.spis}`,
      );
  });
}

function checkOverlaps(spec: MachineSpec): void {
  const parts = physicalRanges(spec).sort((a, b) => a.base - b.base);
  for (let i = 1; i < parts.length; i++) {
    const before = parts[i - 1]!;
    const here = parts[i]!;
    if (here.base < before.base + before.size) {
      throw new MachineError(
        here.field,
        `${hex(here.base)} lies in ${before.field}, ${hex(before.base)} to ${hex(before.base + before.size - 1)}`,
      );
    }
  }
}

function physicalRanges(spec: MachineSpec): { field: string; base: number; size: number }[] {
  const { interrupts, iommu, pci } = spec;
  const ranges = [
    ...spec.memory.map((part, index) => ({ field: `memory[${index}]`, ...part })),
    { field: 'pci.ecam', base: pci.ecam, size: 256 * MEGABYTE },
    { field: 'pci.mmio32', ...pci.mmio32 },
    { field: 'pci.mmio64', ...pci.mmio64 },
    { field: 'pci.io', ...pci.io },
  ];
  if (iommu !== null)
    ranges.push({ field: 'iommu.base', base: iommu.base, size: iommu.type === 'smmuv3' ? 0x20000 : 0x1000 });
  if (interrupts.type === 'x86') ranges.push({ field: 'interrupts', base: 0xfee00000, size: MEGABYTE });
  if (interrupts.type === 'gic') {
    ranges.push({ field: 'interrupts.distributor', base: interrupts.distributor, size: 0x10000 });
    if (interrupts.redistributors !== undefined)
      ranges.push({ field: 'interrupts.redistributors', base: interrupts.redistributors, size: 0x20000 * spec.cpus });
    for (const [index, { base }] of (interrupts.its ?? []).entries()) {
      ranges.push({ field: `interrupts.its[${index}].base`, base, size: 0x20000 });
    }
    for (const [index, { base }] of (interrupts.v2m ?? []).entries()) {
      ranges.push({ field: `interrupts.v2m[${index}].base`, base, size: 0x1000 });
    }
  }
  return ranges;
}
