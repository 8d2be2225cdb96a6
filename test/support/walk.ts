/**
 * The SMMU's tables walked by a reader of its own: from the registers over the bus to the leaf, with nothing but physical memory and
 * the formats of arch/. It shares no code with the model of the SMMU nor with the driver that wrote the tables.
 */
import { getInPlace, getNumber, word64 } from '../../src/arch/bits.ts';
import { levelShift, stage1Geometry, TABLE_DESCRIPTOR } from '../../src/arch/lpae/index.ts';
import {
  CD,
  granuleShiftOfTg0,
  L1STD,
  l1Entries,
  Reg,
  STE,
  STE_SIZE,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  SteConfig,
} from '../../src/arch/smmuv3/index.ts';
import type { Host } from '../../src/kernel/boot/boot.ts';

export interface Step {
  readonly level: number;
  /** Host-physical address of the descriptor. */
  readonly at: number;
  readonly descriptor: bigint;
}

export interface Walk {
  /** Host-physical addresses of the stream table entry and of the context descriptor. */
  readonly ste: number;
  readonly cd: number;
  readonly asid: number;
  readonly steps: readonly Step[];
  /** Where it leads; null at an invalid descriptor. */
  readonly pa: number | null;
}

export function word(host: Host, pa: number): bigint {
  const { memory } = host.machine;
  if (!memory.covers(pa, 8)) throw new Error(`0x${pa.toString(16)} is not memory`);
  return word64(memory.read32(pa), memory.read32(pa + 4));
}

const words = (host: Host, pa: number, count: number): bigint[] =>
  Array.from({ length: count }, (_, i) => word(host, pa + i * 8));

/** The address of a stream's table entry, or null when the table has none. */
export function streamEntry(host: Host, sid: number): number | null {
  const base = smmuBase(host);
  const { bus } = host.machine;
  const low = bus.read32(base + Reg.STRTAB_BASE);
  const high = bus.read32(base + Reg.STRTAB_BASE + 4);
  const config = [BigInt(bus.read32(base + Reg.STRTAB_BASE_CFG) >>> 0)];
  const table = Number(getInPlace([word64(low, high)], STRTAB_BASE.ADDR));
  if (getNumber(config, STRTAB_BASE_CFG.FMT) === 0) return table + sid * STE_SIZE;
  const split = getNumber(config, STRTAB_BASE_CFG.SPLIT);
  const descriptor = words(host, table + Math.floor(sid / 2 ** split) * 8, 1);
  const index = sid % 2 ** split;
  if (index >= l1Entries(descriptor)) return null;
  return Number(getInPlace(descriptor, L1STD.L2Ptr)) + index * STE_SIZE;
}

/** Stage 1, the linear context table, TTB0. @throws Error when the stream is set up in another way */
export function walk(host: Host, sid: number, iova: number): Walk {
  const ste = streamEntry(host, sid);
  if (ste === null) throw new Error(`stream 0x${sid.toString(16)} has no entry`);
  const entry = words(host, ste, 8);
  if (getNumber(entry, STE.V) !== 1 || getNumber(entry, STE.Config) !== SteConfig.S1) {
    throw new Error(`stream 0x${sid.toString(16)}: V ${entry[0]! & 1n}, Config ${getNumber(entry, STE.Config)}`);
  }
  const cd = Number(getInPlace(entry, STE.S1ContextPtr));
  const context = words(host, cd, 8);
  const shift = granuleShiftOfTg0(getNumber(context, CD.TG0));
  const { startLevel, startBits } = stage1Geometry(shift, 64 - getNumber(context, CD.T0SZ));
  const steps: Step[] = [];
  let table = Number(getInPlace(context, CD.TTB0));
  for (let level = startLevel; ; level++) {
    const bits = level === startLevel ? startBits : shift - 3;
    const at = table + (Math.floor(iova / 2 ** levelShift(shift, level)) % 2 ** bits) * 8;
    const descriptor = word(host, at);
    steps.push({ level, at, descriptor });
    const found = { ste, cd, asid: getNumber(context, CD.ASID), steps };
    if ((descriptor & 1n) === 0n) return { ...found, pa: null };
    const output = Number(getInPlace([descriptor], TABLE_DESCRIPTOR.Address));
    const leaf = level === 3 || (descriptor & 2n) === 0n;
    if (!leaf) {
      table = output;
      continue;
    }
    const size = 2 ** levelShift(shift, level);
    return { ...found, pa: output - (output % size) + (iova % size) };
  }
}

export function smmuBase(host: Host): number {
  const { iommu } = host.machine.spec;
  if (iommu?.type !== 'smmuv3') throw new Error('this host has no SMMUv3');
  return iommu.base;
}
