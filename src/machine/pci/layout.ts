/** The bytes of a function's configuration space at power-on: made from what the model declares, or from a captured one. */
import {
  Acs,
  Bar,
  CapabilityId,
  CONFIG_SIZE,
  Command,
  capabilities,
  DeviceCapabilities,
  DeviceCapabilities2,
  EXTENDED_CAPABILITIES,
  EXTENDED_CONFIG_SIZE,
  Express,
  ExpressType,
  ExtendedCapabilityId,
  extendedCapabilities,
  extendedHeader,
  Header,
  Header0,
  MSIX_MAX_VECTORS,
  Msi,
  MsiFlags,
  Msix,
  MsixFlags,
  msiLength,
  msiMaskOffset,
  msiPendingOffset,
  msixPbaSize,
  msixTableSize,
  PASID_MAX_BITS,
  PASID_WIDTH_SHIFT,
  Pasid,
  PasidBits,
  PciStatus,
  Power,
  SrIov,
} from '../../arch/pci/index.ts';
import type { BarSpec, FunctionSpec, MsiSpec, MsixSpec, PasidSpec } from '../../ports/pci.ts';
import { ConfigSpace } from './config-space.ts';
import { checkSriov, restrictVfHeader, writeSriov } from './sriov.ts';

/** Capabilities are laid out from here, 4-byte aligned, in ascending order. */
const FIRST_CAPABILITY = 0x40;

/** @throws RangeError naming the field of the declaration that cannot be. */
export function powerOnConfig(spec: FunctionSpec, virtual = false): ConfigSpace {
  checkSpec(spec);
  const config = spec.captured === undefined ? generated(spec) : fromCapture(spec, spec.captured);
  if (virtual) restrictVfHeader(config);
  return config;
}

function generated(spec: FunctionSpec): ConfigSpace {
  const config = new ConfigSpace(spec.express === undefined ? CONFIG_SIZE : EXTENDED_CONFIG_SIZE);
  config.set(Header.VENDOR_ID, 2, spec.vendorId);
  config.set(Header.DEVICE_ID, 2, spec.deviceId);
  config.set(Header.REVISION, 1, spec.revision ?? 0);
  config.set(Header.CLASS_CODE, 3, spec.classCode);
  config.set(Header0.SUBSYSTEM_VENDOR_ID, 2, spec.subsystemVendorId ?? spec.vendorId);
  config.set(Header0.SUBSYSTEM_ID, 2, spec.subsystemId ?? spec.deviceId);
  config.set(Header.INTERRUPT_PIN, 1, spec.interruptPin ?? 0);
  setBarTypes(config, spec);
  const list = new CapabilityList(config);
  if (spec.powerManagement === true) writePower(config, list.add(CapabilityId.POWER_MANAGEMENT, Power.LENGTH));
  if (spec.msi !== undefined) writeMsi(config, list, spec.msi);
  if (spec.msix !== undefined) writeMsix(config, list, spec.msix);
  if (spec.express !== undefined) writeExpress(config, list, spec);
  const extended = new ExtendedCapabilityList(config);
  if (spec.express?.acs === true) {
    const acs = extended.add(ExtendedCapabilityId.ACS, 1, Acs.LENGTH);
    config.set(acs + Acs.CAPABILITY, 2, Acs.REQUEST_REDIRECT | Acs.COMPLETION_REDIRECT);
  }
  if (spec.pasid !== undefined) writePasid(config, extended, spec.pasid);
  if (spec.sriov !== undefined)
    writeSriov(config, extended.add(ExtendedCapabilityId.SR_IOV, 1, SrIov.LENGTH), spec.sriov);
  return config;
}

function setBarTypes(config: ConfigSpace, spec: FunctionSpec): void {
  spec.bars.forEach((bar, index) => {
    if (bar !== null) config.set(Header.BAR0 + index * 4, 4, barTypeBits(bar));
  });
}

const barTypeBits = (bar: BarSpec): number =>
  bar.type === 'io'
    ? Bar.IO
    : (bar.type === 'memory64' ? Bar.TYPE_64 : 0) | (bar.prefetchable === true ? Bar.PREFETCHABLE : 0);

/** A chain of capabilities that grows upwards. */
export class CapabilityList {
  private readonly config: ConfigSpace;
  private next = FIRST_CAPABILITY;
  /** Where the offset of the next capability goes. */
  private link: number = Header.CAPABILITIES;

  constructor(config: ConfigSpace) {
    this.config = config;
  }

  /** Offset of the new capability. */
  add(id: number, length: number): number {
    const { config } = this;
    const offset = this.next;
    config.set(this.link, 1, offset);
    config.set(Header.STATUS, 2, config.read(Header.STATUS, 2) | PciStatus.CAPABILITIES_LIST);
    config.set(offset, 1, id);
    this.link = offset + 1;
    this.next = (offset + length + 3) & ~3;
    return offset;
  }
}

/** The same for extended capabilities. */
class ExtendedCapabilityList {
  private readonly config: ConfigSpace;
  private next: number = EXTENDED_CAPABILITIES;
  private last = 0;

  constructor(config: ConfigSpace) {
    this.config = config;
  }

  /** Offset of the new capability. */
  add(id: number, version: number, length: number): number {
    const { config } = this;
    const offset = this.next;
    config.set(offset, 4, extendedHeader(id, version, 0));
    if (this.last !== 0) config.set(this.last, 4, (config.read(this.last, 4) & 0x000f_ffff) | (offset << 20));
    this.last = offset;
    this.next = (offset + length + 3) & ~3;
    return offset;
  }
}

function writePower(config: ConfigSpace, offset: number): void {
  config.set(offset + Power.CAPABILITIES, 2, Power.VERSION_3);
  config.set(offset + Power.CONTROL, 2, Power.NO_SOFT_RESET);
}

function writeMsi(config: ConfigSpace, list: CapabilityList, msi: MsiSpec): void {
  const flags =
    (Math.log2(msi.vectors) << MsiFlags.CAPABLE_SHIFT) |
    (msi.address64 === true ? MsiFlags.ADDRESS_64 : 0) |
    (msi.perVectorMask === true ? MsiFlags.PER_VECTOR_MASK : 0);
  const offset = list.add(CapabilityId.MSI, msiLength(flags));
  config.set(offset + Msi.FLAGS, 2, flags);
}

function writeMsix(config: ConfigSpace, list: CapabilityList, msix: MsixSpec): void {
  const offset = list.add(CapabilityId.MSIX, Msix.LENGTH);
  config.set(offset + Msix.FLAGS, 2, msix.vectors - 1);
  config.set(offset + Msix.TABLE, 4, msix.table.offset | msix.table.bar);
  config.set(offset + Msix.PBA, 4, msix.pba.offset | msix.pba.bar);
}

const EXPRESS_TYPES = {
  endpoint: ExpressType.ENDPOINT,
  legacy: ExpressType.LEGACY_ENDPOINT,
  integrated: ExpressType.INTEGRATED_ENDPOINT,
} as const;

function writeExpress(config: ConfigSpace, list: CapabilityList, spec: FunctionSpec): void {
  const { type, flr } = spec.express!;
  const offset = list.add(CapabilityId.EXPRESS, Express.LENGTH_V2);
  writeExpressCommon(config, offset, EXPRESS_TYPES[type], flr === true ? DeviceCapabilities.FLR : 0);
  if (spec.pasid !== undefined) allowPrefixes(config, offset);
}

/** A PASID travels in a prefix before a request's header: its sender and every port on its way have to know such. */
export function allowPrefixes(config: ConfigSpace, express: number): void {
  const bits = DeviceCapabilities2.EXTENDED_FORMAT | DeviceCapabilities2.END_TO_END_PREFIX;
  config.set(express + Express.DEVICE_CAPABILITIES_2, 4, bits);
}

function writePasid(config: ConfigSpace, list: ExtendedCapabilityList, { bits, execute, privileged }: PasidSpec): void {
  const at = list.add(ExtendedCapabilityId.PASID, 1, Pasid.LENGTH);
  const features = (execute === true ? PasidBits.EXECUTE : 0) | (privileged === true ? PasidBits.PRIVILEGED : 0);
  config.set(at + Pasid.CAPABILITY, 2, (bits << PASID_WIDTH_SHIFT) | features);
}

/** What ports and endpoints have in common: version 2, role-based errors, 2.5 GT/s over one lane. */
export function writeExpressCommon(
  config: ConfigSpace,
  offset: number,
  type: number,
  deviceCapabilities: number,
): void {
  config.set(offset + Express.FLAGS, 2, 2 | (type << 4));
  config.set(offset + Express.DEVICE_CAPABILITIES, 4, DeviceCapabilities.ROLE_BASED_ERRORS | deviceCapabilities);
  // Max_Read_Request_Size 512 bytes, relaxed ordering and no snoop allowed: the specified defaults.
  config.set(offset + Express.DEVICE_CONTROL, 2, 0x2810);
  if (type === ExpressType.INTEGRATED_ENDPOINT) return;
  config.set(offset + Express.LINK_CAPABILITIES, 4, 0x0000_0011);
  config.set(offset + Express.LINK_STATUS, 2, 0x0011);
}

/** A captured space, with what software had written taken back: decode off, BARs empty, MSIs off, D0. */
function fromCapture(spec: FunctionSpec, bytes: Uint8Array): ConfigSpace {
  const config = new ConfigSpace(bytes.length === EXTENDED_CONFIG_SIZE ? EXTENDED_CONFIG_SIZE : CONFIG_SIZE);
  config.bytes.set(bytes);
  config.set(Header.COMMAND, 2, 0);
  config.set(Header.STATUS, 2, config.read(Header.STATUS, 2) & ~(PciStatus.WRITE_ONE_TO_CLEAR | PciStatus.INTERRUPT));
  config.set(Header.CACHE_LINE_SIZE, 2, 0);
  config.set(Header.BIST, 1, 0);
  config.set(Header.INTERRUPT_LINE, 1, 0);
  config.bytes.fill(0, Header.BAR0, Header.BAR0 + 24);
  config.set(Header0.ROM, 4, 0);
  setBarTypes(config, spec);
  const read = (offset: number, size: number): number => config.read(offset, size);
  for (const { id, offset } of capabilities(read)) powerOnCapability(config, id, offset);
  for (const { id, offset } of extendedCapabilities(read)) {
    if (id === ExtendedCapabilityId.ACS) config.set(offset + Acs.CONTROL, 2, 0);
    if (id === ExtendedCapabilityId.PASID) config.set(offset + Pasid.CONTROL, 2, 0);
  }
  return config;
}

function powerOnCapability(config: ConfigSpace, id: number, offset: number): void {
  if (id === CapabilityId.POWER_MANAGEMENT) {
    const control = config.read(offset + Power.CONTROL, 2);
    config.set(offset + Power.CONTROL, 2, control & ~(Power.STATE_MASK | Power.PME_ENABLE | Power.PME_STATUS));
  } else if (id === CapabilityId.MSIX) {
    config.set(offset + Msix.FLAGS, 2, config.read(offset + Msix.FLAGS, 2) & MsixFlags.SIZE_MASK);
  } else if (id === CapabilityId.EXPRESS) {
    config.set(offset + Express.DEVICE_STATUS, 1, config.read(offset + Express.DEVICE_STATUS, 1) & 0xf0);
  } else if (id === CapabilityId.MSI) {
    const flags = config.read(offset + Msi.FLAGS, 2) & ~(MsiFlags.ENABLE | MsiFlags.ENABLED_MASK);
    config.set(offset + Msi.FLAGS, 2, flags);
    for (let at = offset + Msi.ADDRESS_LO; at < offset + msiLength(flags); at++) config.bytes[at] = 0;
    if ((flags & MsiFlags.PER_VECTOR_MASK) !== 0) {
      config.set(offset + msiMaskOffset(flags), 4, 0);
      config.set(offset + msiPendingOffset(flags), 4, 0);
    }
  }
}

/** Bits of COMMAND that software may change in an endpoint. */
export const COMMAND_WRITABLE =
  Command.IO | Command.MEMORY | Command.BUS_MASTER | Command.PARITY | Command.SERR | Command.INTX_DISABLE;

function checkSpec(spec: FunctionSpec): void {
  const fail = (field: string, why: string): never => {
    throw new RangeError(`${spec.name}: ${field}: ${why}`);
  };
  const { bars, captured, msi, msix, interruptPin } = spec;
  if (bars.length > 6) fail('bars', `a function has at most 6, not ${bars.length}`);
  bars.forEach((bar, index) => {
    if (bar !== null) checkBar(bar, index, bars, fail);
  });
  if (msi !== undefined && ![1, 2, 4, 8, 16, 32].includes(msi.vectors)) {
    fail('msi.vectors', `expected 1, 2, 4, 8, 16 or 32, got ${msi.vectors}`);
  }
  if (msix !== undefined) checkMsix(msix, bars, fail);
  if (interruptPin !== undefined && !(interruptPin >= 1 && interruptPin <= 4 && Number.isInteger(interruptPin))) {
    fail('interruptPin', `expected 1 to 4, got ${interruptPin}`);
  }
  checkSriov(spec);
  checkPasid(spec, fail);
  if (captured !== undefined && captured.length !== CONFIG_SIZE && captured.length !== EXTENDED_CONFIG_SIZE) {
    fail('captured', `expected 256 or 4096 bytes, got ${captured.length}`);
  }
}

type Fail = (field: string, why: string) => never;

function checkPasid({ pasid, express, captured }: FunctionSpec, fail: Fail): void {
  if (pasid === undefined) return;
  if (express === undefined) fail('pasid', 'a function without PCI Express has no PASIDs');
  if (captured !== undefined) fail('pasid', 'a captured space says itself whether it has PASIDs');
  if (!(Number.isInteger(pasid.bits) && pasid.bits >= 1 && pasid.bits <= PASID_MAX_BITS)) {
    fail('pasid.bits', `expected 1 to ${PASID_MAX_BITS}, got ${pasid.bits}`);
  }
}

function checkBar(bar: BarSpec, index: number, bars: readonly (BarSpec | null)[], fail: Fail): void {
  const field = `bars[${index}]`;
  const smallest = bar.type === 'io' ? 4 : 16;
  const largest = bar.type === 'io' ? 2 ** 16 : bar.type === 'memory32' ? 2 ** 31 : 2 ** 43;
  if (!Number.isInteger(Math.log2(bar.size)) || bar.size < smallest || bar.size > largest) {
    fail(`${field}.size`, `expected a power of two from ${smallest} to ${largest}, got ${bar.size}`);
  }
  if (bar.type === 'memory64' && (index === 5 || (bars[index + 1] ?? null) !== null)) {
    fail(field, 'a 64-bit BAR takes two registers, and the next one is not free');
  }
  for (const range of bar.ranges ?? []) {
    if (!(range.offset >= 0 && range.size > 0 && range.offset + range.size <= bar.size)) {
      fail(`${field}.ranges`, `[${range.offset}, ${range.offset + range.size}) does not lie in ${bar.size} bytes`);
    }
  }
}

function checkMsix(msix: MsixSpec, bars: readonly (BarSpec | null)[], fail: Fail): void {
  if (!(Number.isInteger(msix.vectors) && msix.vectors >= 1 && msix.vectors <= MSIX_MAX_VECTORS)) {
    fail('msix.vectors', `expected 1 to ${MSIX_MAX_VECTORS}, got ${msix.vectors}`);
  }
  const places = [
    { field: 'msix.table', at: msix.table, size: msixTableSize(msix.vectors) },
    { field: 'msix.pba', at: msix.pba, size: msixPbaSize(msix.vectors) },
  ];
  for (const { field, at, size } of places) {
    const bar = bars[at.bar] ?? null;
    if (bar === null || bar.type === 'io') fail(`${field}.bar`, `there is no memory BAR ${at.bar}`);
    if (at.offset % 8 !== 0 || at.offset < 0) fail(`${field}.offset`, `expected a multiple of 8, got ${at.offset}`);
    if (at.offset + size > bar!.size) {
      fail(`${field}.offset`, `${size} bytes at ${at.offset} do not fit BAR ${at.bar} of ${bar!.size} bytes`);
    }
  }
  const { table, pba } = msix;
  const tableEnd = table.offset + msixTableSize(msix.vectors);
  if (table.bar === pba.bar && pba.offset < tableEnd && table.offset < pba.offset + msixPbaSize(msix.vectors)) {
    fail('msix.pba.offset', `the pending bits at ${pba.offset} overlap the table at ${table.offset}`);
  }
}
