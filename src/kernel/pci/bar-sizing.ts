/** What a function's base address registers say of themselves: drivers/pci/probe.c pci_read_bases. Every register is left as it was. */
import { Bar, Command, Header, Header0, Header1 } from '../../arch/pci/index.ts';
import type { PciResource } from './pci-dev.ts';

/** A function's configuration space: `size` 1, 2 or 4; values unsigned. */
export interface ConfigSpace {
  configRead(offset: number, size: number): number;
  configWrite(offset: number, size: number, value: number): void;
}

const ALL_ONES = 0xffff_ffff;

/** Resources by index: BARs 0 to 5 (a bridge has two), then the ROM as index 6. `ioBase` is where the host bridge shows port 0. Decoding is off while the registers hold all ones. */
export function readBases(config: ConfigSpace, isBridge: boolean, ioBase = 0): PciResource[] {
  const command = config.configRead(Header.COMMAND, 2);
  const decode = Command.IO | Command.MEMORY;
  if ((command & decode) !== 0) config.configWrite(Header.COMMAND, 2, command & ~decode);
  const resources: PciResource[] = [];
  const bars = isBridge ? 2 : 6;
  for (let index = 0; index < 6; index += 1) {
    const resource = index < bars ? readBar(config, index, Header.BAR0 + 4 * index, ioBase) : absent(index, 'memory');
    resources.push(resource);
    if (!resource.is64) continue;
    index += 1;
    resources.push(absent(index, 'memory'));
  }
  resources.push(readRom(config, isBridge ? Header1.ROM : Header0.ROM));
  if ((command & decode) !== 0) config.configWrite(Header.COMMAND, 2, command);
  return resources;
}

/** The six VF BARs of an SR-IOV capability, from offset `at`: what one virtual function has, at the base of the first. */
export function readVfBases(config: ConfigSpace, at: number): PciResource[] {
  const resources: PciResource[] = [];
  for (let index = 0; index < 6; index += 1) {
    const resource = readBar(config, index, at + 4 * index, 0);
    resources.push(resource);
    if (!resource.is64) continue;
    index += 1;
    resources.push(absent(index, 'memory'));
  }
  return resources;
}

const absent = (index: number, kind: PciResource['kind']): PciResource => ({
  index,
  kind,
  base: 0,
  size: 0,
  is64: false,
  prefetchable: false,
});

/** Writes all ones, reads what stuck, and restores. */
function probe(config: ConfigSpace, offset: number, ones = ALL_ONES): { value: number; mask: number } {
  const value = config.configRead(offset, 4) >>> 0;
  config.configWrite(offset, 4, ones);
  const mask = config.configRead(offset, 4) >>> 0;
  config.configWrite(offset, 4, value);
  return { value: value === ALL_ONES ? 0 : value, mask: mask === ALL_ONES ? 0 : mask };
}

/** The size that the sticking bits tell: their lowest one. */
const lowestBit = (mask: bigint): number => Number(mask & -mask);

function readBar(config: ConfigSpace, index: number, offset: number, ioBase: number): PciResource {
  const { value, mask } = probe(config, offset);
  if (mask === 0) return absent(index, 'memory');
  if ((mask & Bar.IO) !== 0) {
    const bits = mask & Bar.IO_MASK & 0xffff;
    const port = (value & Bar.IO_MASK) >>> 0;
    return {
      ...absent(index, 'io'),
      base: port === 0 ? 0 : ioBase + port,
      size: bits === 0 ? 0 : lowestBit(BigInt(bits)),
    };
  }
  const is64 = (mask & Bar.TYPE_MASK) === Bar.TYPE_64 && index < 5;
  const upper = is64 ? probe(config, offset + 4) : { value: 0, mask: 0 };
  // A 64-bit BAR below 4 GiB has a mask whose upper half is all ones, which `probe` alone would take for an absent register.
  const high = is64 && upper.mask === 0 && (mask & Bar.MEMORY_MASK) >>> 0 !== 0 ? ALL_ONES : upper.mask;
  const bits = (BigInt(high) << 32n) | BigInt((mask & Bar.MEMORY_MASK) >>> 0);
  if (bits === 0n) return { ...absent(index, 'memory'), is64 };
  return {
    index,
    kind: 'memory',
    base: upper.value * 2 ** 32 + ((value & Bar.MEMORY_MASK) >>> 0),
    size: lowestBit(bits),
    is64,
    prefetchable: (mask & Bar.PREFETCHABLE) !== 0,
  };
}

function readRom(config: ConfigSpace, offset: number): PciResource {
  const { value, mask } = probe(config, offset, Bar.ROM_MASK >>> 0);
  const bits = (mask & Bar.ROM_MASK) >>> 0;
  if (bits === 0) return absent(6, 'rom');
  return { ...absent(6, 'rom'), base: (value & Bar.ROM_MASK) >>> 0, size: lowestBit(BigInt(bits)) };
}
