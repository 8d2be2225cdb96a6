/** Where a guest has its memory, interrupt controller and PCI: a VMM's guest memory map, as data. */
import { GICR_STRIDE, GITS_SIZE, GITS_TRANSLATER, V2M_MSI_SETSPI_NS, V2M_SIZE } from '../arch/gic/index.ts';
import { hex } from '../ports/address.ts';

/** Bytes; `base` is guest-physical. */
export interface GuestRange {
  readonly base: number;
  readonly size: number;
}

export interface GuestGic {
  readonly type: 'gic';
  readonly version: 2 | 3;
  readonly distributor: number;
  /** v3: base of the redistributors, 128 KiB for each CPU. */
  readonly redistributors?: number;
  /** v2: base of the CPU interface. */
  readonly cpuInterface?: number;
  /** Base of the ITS's 128 KiB; GICv3 alone. */
  readonly its?: number;
  /** An MSI frame that the VMM emulates. `spiBase` is an interrupt identifier, 32 or more. */
  readonly v2m?: { readonly base: number; readonly spiBase: number; readonly spiCount: number };
}

/** Local APICs at 0xfee0_0000 and an I/O APIC at 0xfec0_0000. */
export interface GuestApic {
  readonly type: 'apic';
}

export interface GuestMap {
  readonly name: string;
  readonly architecture: 'arm64' | 'x86';
  readonly ram: readonly GuestRange[];
  readonly interrupts: GuestGic | GuestApic;
  readonly pci: {
    readonly ecam: GuestRange;
    readonly mmio32: GuestRange;
    readonly mmio64?: GuestRange;
    /** The gsi of INTA of slot 0; the four lines follow each other. On Arm gsi n is SPI n + 32. */
    readonly intx: number;
  };
}

const MiB = 0x10_0000;

/** QEMU's `virt` (hw/arm/virt.c base_memmap), with an ITS or, with `msi: 'v2m'`, a GICv2m frame. `ram` in bytes. */
export function virtMap(options: { ram?: number; msi?: 'its' | 'v2m'; gic?: 2 | 3 } = {}): GuestMap {
  const { ram = 64 * MiB, msi = 'its', gic = 3 } = options;
  return {
    name: `virt, GICv${gic}, ${msi}`,
    architecture: 'arm64',
    ram: [{ base: 0x4000_0000, size: ram }],
    interrupts: {
      type: 'gic',
      version: gic,
      distributor: 0x0800_0000,
      ...(gic === 3 ? { redistributors: 0x080a_0000 } : { cpuInterface: 0x0801_0000 }),
      ...(msi === 'its' ? { its: 0x0808_0000 } : { v2m: { base: 0x0802_0000, spiBase: 80, spiCount: 64 } }),
    },
    pci: {
      ecam: { base: 0x3f00_0000, size: 16 * MiB },
      mmio32: { base: 0x1000_0000, size: 0x2eff_0000 },
      mmio64: { base: 0x80_0000_0000, size: 0x80_0000_0000 },
      intx: 3,
    },
  };
}

/** A map like QEMU's q35. `ram` in bytes, up to 2 GiB here. */
export function q35Map(options: { ram?: number } = {}): GuestMap {
  return {
    name: 'q35',
    architecture: 'x86',
    ram: [{ base: 0, size: options.ram ?? 64 * MiB }],
    interrupts: { type: 'apic' },
    pci: {
      ecam: { base: 0xb000_0000, size: 256 * MiB },
      mmio32: { base: 0xc000_0000, size: 0x3ec0_0000 },
      mmio64: { base: 0x80_0000_0000, size: 0x80_0000_0000 },
      intx: 16,
    },
  };
}

/** A range of the map with the name that people know it by. */
export interface NamedRange extends GuestRange {
  readonly name: string;
}

/** Everything that the map places. `cpus` counts redistributors. */
export function guestRanges(map: GuestMap, cpus = 1): NamedRange[] {
  const { interrupts, pci } = map;
  const ranges: NamedRange[] = map.ram.map((range, i) => ({ name: `RAM ${i}`, ...range }));
  const add = (name: string, base: number | undefined, size: number): void => {
    if (base !== undefined) ranges.push({ name, base, size });
  };
  if (interrupts.type === 'gic') {
    add('distributor', interrupts.distributor, interrupts.version === 3 ? 0x1_0000 : 0x1000);
    add('redistributors', interrupts.redistributors, GICR_STRIDE * cpus);
    add('CPU interface', interrupts.cpuInterface, 0x2000);
    add('ITS', interrupts.its, GITS_SIZE);
    add('GICv2m frame', interrupts.v2m?.base, V2M_SIZE);
  } else {
    add('local APIC', 0xfee0_0000, 0x10_0000);
    add('I/O APIC', 0xfec0_0000, 0x1000);
  }
  add('PCI configuration', pci.ecam.base, pci.ecam.size);
  add('PCI memory', pci.mmio32.base, pci.mmio32.size);
  add('PCI memory above 4 GiB', pci.mmio64?.base, pci.mmio64?.size ?? 0);
  return ranges;
}

/** What is wrong with a map, one sentence each; empty when it can be used. */
export function guestMapProblems(map: GuestMap, cpus = 1): string[] {
  const ranges = guestRanges(map, cpus);
  const problems = ranges.flatMap((range, i) => [...rangeProblems(range), ...collisions(range, ranges.slice(i + 1))]);
  if (map.ram.length === 0) problems.push('ram: a guest without memory');
  if ((map.interrupts.type === 'gic') !== (map.architecture === 'arm64')) {
    problems.push(`interrupts: ${map.architecture} has no controller of type ${map.interrupts.type}`);
  }
  return map.interrupts.type === 'gic' ? [...problems, ...gicProblems(map.interrupts)] : problems;
}

function rangeProblems({ name, base, size }: NamedRange): string[] {
  const page = 0x1000;
  const problems: string[] = [];
  if (size <= 0) problems.push(`${name}: its size is ${size}`);
  if (base % page !== 0 || size % page !== 0) {
    problems.push(`${name}: ${hex(base)} + ${hex(size, 1)} is not a multiple of ${hex(page, 1)}`);
  }
  if (base + size > 2 ** 48) problems.push(`${name}: it ends beyond 2^48`);
  return problems;
}

function collisions(range: NamedRange, others: readonly NamedRange[]): string[] {
  return others
    .filter((other) => range.base < other.base + other.size && other.base < range.base + range.size)
    .map(
      (other) =>
        `${range.name} at ${hex(range.base)} + ${hex(range.size, 1)} overlaps ${other.name} at ${hex(other.base)}`,
    );
}

function gicProblems(gic: GuestGic): string[] {
  const problems: string[] = [];
  if (gic.version === 3 && gic.redistributors === undefined)
    problems.push('interrupts.redistributors: a GICv3 needs them');
  if (gic.version === 2 && gic.cpuInterface === undefined) problems.push('interrupts.cpuInterface: a GICv2 needs it');
  if (gic.version === 2 && gic.its !== undefined) problems.push('interrupts.its: a GICv2 has none');
  if (gic.its !== undefined && gic.its % 0x1_0000 !== 0) problems.push('interrupts.its: not a multiple of 64 KiB');
  const { v2m } = gic;
  if (v2m !== undefined && (v2m.spiBase < 32 || v2m.spiBase + v2m.spiCount > 1020)) {
    problems.push('interrupts.v2m: its SPIs are not within 32 to 1019');
  }
  return problems;
}

/** The address that the guest's MSIs are written to: GITS_TRANSLATER, MSI_SETSPI_NS, or CPU 0's local APIC; null without one. */
export function guestDoorbell(map: GuestMap): number | null {
  const { interrupts } = map;
  if (interrupts.type === 'apic') return 0xfee0_0000;
  if (interrupts.its !== undefined) return interrupts.its + GITS_TRANSLATER;
  return interrupts.v2m === undefined ? null : interrupts.v2m.base + V2M_MSI_SETSPI_NS;
}
