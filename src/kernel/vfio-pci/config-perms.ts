/**
 * Which bits of a capability are virtual, and which a user may write: the data of vfio_pci_config.c's permission model
 * (vfio_pci_config.c). A read gives vconfig & virt | hardware & ~virt; a write goes to vconfig where both bits are set, to
 * hardware where only `write` is, and is dropped elsewhere.
 */
import {
  AdvancedFeatures,
  CapabilityId,
  Command,
  DeviceControl,
  Express,
  ExtendedCapabilityId,
  Header,
  Header0,
  Msi,
  MsiFlags,
  msiDataOffset,
  msiMaskOffset,
  msiPendingOffset,
  PciStatus,
  Power,
} from '../../arch/pci/index.ts';

export const NO_VIRT = 0;
export const ALL_VIRT = 0xffff_ffff;
export const NO_WRITE = 0;
export const ALL_WRITE = 0xffff_ffff;

/** Who carries out an access of a capability; `default` is the masks alone. */
export type ReadKind = 'default' | 'direct' | 'raw' | 'basic' | 'msi';
export type WriteKind = 'none' | 'default' | 'raw' | 'basic' | 'pm' | 'vpd' | 'exp' | 'af' | 'msi';

export class PermBits {
  readonly read: ReadKind;
  readonly write: WriteKind;
  readonly virtMask: Uint8Array;
  readonly writeMask: Uint8Array;

  constructor(length: number, read: ReadKind, write: WriteKind) {
    this.read = read;
    this.write = write;
    this.virtMask = new Uint8Array(length);
    this.writeMask = new Uint8Array(length);
  }

  setb(offset: number, virt: number, write: number): this {
    return this.set(offset, 1, virt, write);
  }

  setw(offset: number, virt: number, write: number): this {
    return this.set(offset, 2, virt, write);
  }

  setd(offset: number, virt: number, write: number): this {
    return this.set(offset, 4, virt, write);
  }

  private set(offset: number, size: number, virt: number, write: number): this {
    for (let i = 0; i < size; i += 1) {
      this.virtMask[offset + i] = (virt >>> (8 * i)) & 0xff;
      this.writeMask[offset + i] = (write >>> (8 * i)) & 0xff;
    }
    return this;
  }
}

/** The standard header, by Linux's PCI_STD_HEADER_SIZEOF. */
export const STD_HEADER_SIZE = 0x40;
const NEXT = 1;
/** PMC bits 15:11: the states that PME# is asserted from. */
const PM_CAP_PME_MASK = 0xf800;
const PME = Power.PME_ENABLE | Power.PME_STATUS;
const PCI_X_CMD = 2;
const PCI_X_ECC_CSR = 8;
const VPD_ADDR = 2;
const VPD_DATA = 4;
const DEVCTL_PHANTOM = 0x0200;
const DEVCTL2_ARI = 0x0020;

/** AER (PCIe 7.8.4): offsets, and the error bits that Linux knows. */
const Aer = { UNCOR_STATUS: 4, UNCOR_MASK: 8, UNCOR_SEVER: 12, COR_STATUS: 16, COR_MASK: 20, CAP: 24 } as const;
const AER_UNCORRECTABLE = 0x03ff_f031;
const AER_CORRECTABLE = 0x0000_f1c1;
/** ECRC generation and checking enables. */
const AER_ECRC_ENABLES = 0x0140;
/** The register that Linux opens; the selector itself is at 4 and stays closed. */
const PWR_DATA = 8;

function basicPerms(): PermBits {
  const perm = new PermBits(STD_HEADER_SIZE, 'basic', 'basic');
  perm.setw(Header.VENDOR_ID, ALL_VIRT, NO_WRITE).setw(Header.DEVICE_ID, ALL_VIRT, NO_WRITE);
  // INTX_DISABLE is what interrupt masking uses, and is emulated for functions that lack it.
  perm.setw(Header.COMMAND, Command.INTX_DISABLE, ALL_WRITE);
  perm.setw(Header.STATUS, PciStatus.CAPABILITIES_LIST, NO_WRITE);
  for (const byte of [Header.CACHE_LINE_SIZE, Header.LATENCY_TIMER, Header.BIST]) perm.setb(byte, NO_VIRT, ALL_WRITE);
  for (let bar = 0; bar < 6; bar += 1) perm.setd(Header.BAR0 + 4 * bar, ALL_VIRT, ALL_WRITE);
  perm.setd(Header0.ROM, ALL_VIRT, ALL_WRITE).setb(Header.CAPABILITIES, ALL_VIRT, NO_WRITE);
  perm.setb(Header.INTERRUPT_LINE, ALL_VIRT, ALL_WRITE);
  return perm.setb(Header.INTERRUPT_PIN, ALL_VIRT, NO_WRITE);
}

const withNext = (perm: PermBits): PermBits => perm.setb(NEXT, ALL_VIRT, NO_WRITE);

function pmPerms(): PermBits {
  const perm = withNext(new PermBits(8, 'default', 'pm')).setw(Power.CAPABILITIES, PM_CAP_PME_MASK, NO_WRITE);
  // The state bits are not writable as data: the write function makes the transition.
  return perm.setd(Power.CONTROL, PME, ~(PME | Power.STATE_MASK));
}

function expPerms(): PermBits {
  const virt = DeviceControl.FLR | DeviceControl.MAX_PAYLOAD_MASK | DeviceControl.MAX_READ_REQUEST_MASK;
  return withNext(new PermBits(44, 'default', 'exp'))
    .setw(Express.DEVICE_CONTROL, virt, ~DEVCTL_PHANTOM)
    .setw(Express.DEVICE_CONTROL_2, NO_VIRT, ~DEVCTL2_ARI);
}

function aerPerms(): PermBits {
  const perm = new PermBits(0x2c, 'default', 'default').setd(0, ALL_VIRT, NO_WRITE);
  for (const offset of [Aer.UNCOR_STATUS, Aer.UNCOR_MASK, Aer.UNCOR_SEVER])
    perm.setd(offset, NO_VIRT, AER_UNCORRECTABLE);
  for (const offset of [Aer.COR_STATUS, Aer.COR_MASK]) perm.setd(offset, NO_VIRT, AER_CORRECTABLE);
  return perm.setd(Aer.CAP, NO_VIRT, AER_ECRC_ENABLES);
}

/** Address and data are remembered, never programmed: the hardware's registers hold the host's message. */
export function msiPerms(flags: number, length: number): PermBits {
  const perm = withNext(new PermBits(length, 'msi', 'msi')).setb(Msi.FLAGS, ALL_VIRT, ALL_WRITE);
  perm.setd(Msi.ADDRESS_LO, ALL_VIRT, ALL_WRITE);
  if ((flags & MsiFlags.ADDRESS_64) !== 0) perm.setd(Msi.ADDRESS_HI, ALL_VIRT, ALL_WRITE);
  perm.setw(msiDataOffset(flags), ALL_VIRT, ALL_WRITE);
  if ((flags & MsiFlags.PER_VECTOR_MASK) === 0) return perm;
  return perm.setd(msiMaskOffset(flags), NO_VIRT, ALL_WRITE).setd(msiPendingOffset(flags), NO_VIRT, ALL_WRITE);
}

/** Bytes that belong to no capability: straight to hardware, both ways. */
export const UNASSIGNED_PERMS = new PermBits(0, 'raw', 'raw');
/** Known capabilities without an entry below: read from hardware but for the links, never written. */
const DIRECT_PERMS = new PermBits(0, 'direct', 'none');
const RAW_WRITE_PERMS = new PermBits(0, 'direct', 'raw');

export const BASIC_PERMS = basicPerms();

const CAP_PERMS = new Map<number, PermBits>([
  [CapabilityId.POWER_MANAGEMENT, pmPerms()],
  [
    CapabilityId.VPD,
    withNext(new PermBits(8, 'default', 'vpd'))
      .setw(VPD_ADDR, ALL_VIRT, ALL_WRITE)
      .setd(VPD_DATA, ALL_VIRT, ALL_WRITE),
  ],
  [
    CapabilityId.PCI_X,
    withNext(new PermBits(24, 'default', 'default'))
      .setw(PCI_X_CMD, NO_VIRT, ALL_WRITE)
      .setd(PCI_X_ECC_CSR, NO_VIRT, ALL_WRITE),
  ],
  [CapabilityId.VENDOR, RAW_WRITE_PERMS],
  [CapabilityId.EXPRESS, expPerms()],
  [
    CapabilityId.ADVANCED_FEATURES,
    withNext(new PermBits(6, 'default', 'af')).setb(
      AdvancedFeatures.CONTROL,
      AdvancedFeatures.CONTROL_FLR,
      AdvancedFeatures.CONTROL_FLR,
    ),
  ],
]);

const ECAP_PERMS = new Map<number, PermBits>([
  [ExtendedCapabilityId.AER, aerPerms()],
  [
    ExtendedCapabilityId.POWER_BUDGETING,
    new PermBits(16, 'default', 'default').setd(0, ALL_VIRT, NO_WRITE).setb(PWR_DATA, NO_VIRT, ALL_WRITE),
  ],
  [ExtendedCapabilityId.VENDOR, RAW_WRITE_PERMS],
  [ExtendedCapabilityId.DVSEC, RAW_WRITE_PERMS],
]);

export const capPerms = (id: number): PermBits => CAP_PERMS.get(id) ?? DIRECT_PERMS;
export const ecapPerms = (id: number): PermBits => ECAP_PERMS.get(id) ?? DIRECT_PERMS;
