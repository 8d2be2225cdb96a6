/** Capability ids, and how a list of capabilities is walked (PCI 3.0 section 6.7, PCIe 7.9.3). */
import { CONFIG_SIZE, EXTENDED_CONFIG_SIZE, Header, PciStatus } from './config.ts';

export const CapabilityId = {
  POWER_MANAGEMENT: 0x01,
  AGP: 0x02,
  VPD: 0x03,
  SLOT_ID: 0x04,
  MSI: 0x05,
  HOT_SWAP: 0x06,
  PCI_X: 0x07,
  VENDOR: 0x09,
  DEBUG_PORT: 0x0a,
  HOT_PLUG: 0x0c,
  SUBSYSTEM: 0x0d,
  EXPRESS: 0x10,
  MSIX: 0x11,
  SATA: 0x12,
  ADVANCED_FEATURES: 0x13,
  ENHANCED_ALLOCATION: 0x14,
} as const;

export const ExtendedCapabilityId = {
  AER: 0x0001,
  VIRTUAL_CHANNEL: 0x0002,
  SERIAL_NUMBER: 0x0003,
  POWER_BUDGETING: 0x0004,
  VENDOR: 0x000b,
  ACS: 0x000d,
  ARI: 0x000e,
  ATS: 0x000f,
  SR_IOV: 0x0010,
  PRI: 0x0013,
  RESIZABLE_BAR: 0x0015,
  TPH: 0x0017,
  LTR: 0x0018,
  SECONDARY_EXPRESS: 0x0019,
  PASID: 0x001b,
  DPC: 0x001d,
  L1_SUBSTATES: 0x001e,
  PTM: 0x001f,
  DVSEC: 0x0023,
} as const;

/** The extended list starts here; a first header of zero means that it is empty. */
export const EXTENDED_CAPABILITIES = 0x100;

export interface FoundCapability {
  readonly id: number;
  /** Offset of its first byte. */
  readonly offset: number;
  /** Version of an extended capability, 0 for others. */
  readonly version: number;
}

/** Reads 1, 2 or 4 bytes of a configuration space, unsigned. */
export type ConfigReader = (offset: number, size: number) => number;

/** The capabilities in the order of the list. A list that loops or leaves the space ends where it goes wrong. */
export function capabilities(read: ConfigReader): FoundCapability[] {
  const found: FoundCapability[] = [];
  if ((read(Header.STATUS, 2) & PciStatus.CAPABILITIES_LIST) === 0) return found;
  const seen = new Set<number>();
  let offset = read(Header.CAPABILITIES, 1) & 0xfc;
  while (offset >= 0x40 && offset <= CONFIG_SIZE - 4 && !seen.has(offset)) {
    seen.add(offset);
    const id = read(offset, 1);
    if (id === 0xff) break;
    found.push({ id, offset, version: 0 });
    offset = read(offset + 1, 1) & 0xfc;
  }
  return found;
}

/** The extended capabilities; empty for a space of 256 bytes, whose reads beyond it are all ones. */
export function extendedCapabilities(read: ConfigReader): FoundCapability[] {
  const found: FoundCapability[] = [];
  const seen = new Set<number>();
  let offset: number = EXTENDED_CAPABILITIES;
  while (offset >= EXTENDED_CAPABILITIES && offset <= EXTENDED_CONFIG_SIZE - 4 && !seen.has(offset)) {
    seen.add(offset);
    const header = read(offset, 4) >>> 0;
    if (header === 0 || header === 0xffff_ffff) break;
    found.push({ id: header & 0xffff, offset, version: (header >>> 16) & 0xf });
    offset = (header >>> 20) & 0xffc;
  }
  return found;
}

/** Offset of the first capability `id`, or 0. */
export const findCapability = (read: ConfigReader, id: number): number =>
  capabilities(read).find((capability) => capability.id === id)?.offset ?? 0;

/** Offset of the first extended capability `id`, or 0. */
export const findExtendedCapability = (read: ConfigReader, id: number): number =>
  extendedCapabilities(read).find((capability) => capability.id === id)?.offset ?? 0;

/** The header dword of an extended capability. `next` is the offset of the next one, 0 at the end. */
export const extendedHeader = (id: number, version: number, next: number): number =>
  (id & 0xffff) | ((version & 0xf) << 16) | ((next & 0xffc) << 20);
