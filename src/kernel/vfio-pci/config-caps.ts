/** How long each capability is; 0: the user does not get to see it (vfio_pci_config.c pci_cap_length, pci_ext_cap_length). */
import {
  CapabilityId,
  EXTENDED_CAPABILITIES,
  Express,
  ExpressFlags,
  ExtendedCapabilityId,
  Msi,
  msiLength,
} from '../../arch/pci/index.ts';

/** Reads hardware's configuration space: `size` 1, 2 or 4, unsigned. */
export type HardwareRead = (offset: number, size: number) => number;

const VARIABLE = 0xff;
const HYPERTRANSPORT = 0x08;
const PCI_X_VERSION = 0x3000;
const SATA_INLINE = 0xf;

const CAP_LENGTH = new Map<number, number>([
  [CapabilityId.POWER_MANAGEMENT, 8],
  [CapabilityId.AGP, 12],
  [CapabilityId.VPD, 8],
  [CapabilityId.MSI, VARIABLE],
  [CapabilityId.PCI_X, VARIABLE],
  [HYPERTRANSPORT, VARIABLE],
  [CapabilityId.VENDOR, VARIABLE],
  [CapabilityId.EXPRESS, VARIABLE],
  [CapabilityId.MSIX, 12],
  [CapabilityId.SATA, VARIABLE],
  [CapabilityId.ADVANCED_FEATURES, 6],
]);

const VC_IDS = { VC: 0x02, MFVC: 0x08, VC9: 0x09 } as const;
const MULTICAST = 0x12;
const DPA = 0x16;

const ECAP_LENGTH = new Map<number, number>([
  [ExtendedCapabilityId.AER, 0x2c],
  [VC_IDS.VC, VARIABLE],
  [ExtendedCapabilityId.SERIAL_NUMBER, 12],
  [ExtendedCapabilityId.POWER_BUDGETING, 16],
  [VC_IDS.MFVC, VARIABLE],
  [VC_IDS.VC9, VARIABLE],
  [ExtendedCapabilityId.VENDOR, VARIABLE],
  [ExtendedCapabilityId.ACS, VARIABLE],
  [ExtendedCapabilityId.ARI, 8],
  [ExtendedCapabilityId.ATS, 8],
  [ExtendedCapabilityId.SR_IOV, 64],
  [MULTICAST, 40],
  [ExtendedCapabilityId.PRI, 16],
  [ExtendedCapabilityId.RESIZABLE_BAR, VARIABLE],
  [DPA, VARIABLE],
  [ExtendedCapabilityId.TPH, VARIABLE],
  [ExtendedCapabilityId.LTR, 8],
  [ExtendedCapabilityId.DVSEC, VARIABLE],
]);

/** Bytes of the capability at `pos`; 0 hides it (among them SSVID, SHPC, AGP 8x, EA, and every id that Linux does not list). */
export function capLength(read: HardwareRead, id: number, pos: number): number {
  const length = CAP_LENGTH.get(id) ?? 0;
  return length === VARIABLE ? variableCapLength(read, id, pos) : length;
}

function variableCapLength(read: HardwareRead, id: number, pos: number): number {
  switch (id) {
    case CapabilityId.MSI:
      return msiLength(read(pos + Msi.FLAGS, 2));
    case CapabilityId.PCI_X:
      return (read(pos + 2, 2) & PCI_X_VERSION) !== 0 ? 24 : 8;
    case CapabilityId.VENDOR:
      return read(pos + 2, 1);
    case CapabilityId.EXPRESS:
      return (read(pos + Express.FLAGS, 2) & ExpressFlags.VERSION_MASK) === 1 ? 20 : 44;
    case CapabilityId.SATA:
      return (read(pos + 4, 1) & 0xf) === SATA_INLINE ? 16 : 8;
    default:
      return (read(pos + 3, 1) & 0xe0) !== 0 ? 4 : 28;
  }
}

/** Does the space beyond 256 bytes hold capabilities? Asked when a PCIe or PCI-X 2 capability is met. */
export function hasExtendedCaps(read: HardwareRead, id: number, pos: number, configSize: number): boolean {
  if (configSize <= EXTENDED_CAPABILITIES || read(EXTENDED_CAPABILITIES, 4) === 0) return false;
  return id === CapabilityId.EXPRESS || (id === CapabilityId.PCI_X && (read(pos + 2, 2) & PCI_X_VERSION) !== 0);
}

/** Bytes of the extended capability at `pos`; 0 hides it (among them secondary PCIe, PMUX, PASID, DPC, L1 substates, PTM). */
export function extCapLength(read: HardwareRead, id: number, pos: number): number {
  const length = ECAP_LENGTH.get(id) ?? 0;
  return length === VARIABLE ? variableExtCapLength(read, id, pos) : length;
}

function variableExtCapLength(read: HardwareRead, id: number, pos: number): number {
  switch (id) {
    case ExtendedCapabilityId.VENDOR:
    case ExtendedCapabilityId.DVSEC:
      return read(pos + 4, 4) >>> 20;
    case ExtendedCapabilityId.ACS:
      return acsLength(read, pos);
    case ExtendedCapabilityId.RESIZABLE_BAR:
      return 4 + ((read(pos + 8, 4) >>> 5) & 7) * 8;
    case DPA:
      return 16 + (read(pos + 4, 1) & 0x1f) + 1;
    case ExtendedCapabilityId.TPH:
      return tphLength(read(pos + 4, 4));
    default:
      return vcLength(read, pos);
  }
}

/** With egress control, the control vector's bits follow in whole dwords. */
function acsLength(read: HardwareRead, pos: number): number {
  if ((read(pos + 4, 1) & 0x20) === 0) return 8;
  const bits = read(pos + 5, 1) || 256;
  return 8 + Math.ceil(bits / 32) * 4;
}

/** The steering tag table is in the capability only when bits 10:9 say so. */
const tphLength = (capability: number): number =>
  (capability & 0x600) === 0x200 ? 12 + ((capability >>> 16) & 0x7ff) * 2 + 2 : 12;

function vcLength(read: HardwareRead, pos: number): number {
  const extended = read(pos + 4, 4) & 7;
  const arbitration = read(pos + 8, 4);
  const phases = (arbitration & 8) !== 0 ? 128 : (arbitration & 4) !== 0 ? 64 : (arbitration & 2) !== 0 ? 32 : 0;
  const length = 16 + (1 + extended) * 12;
  return phases === 0 ? length : Math.ceil(length / 16) * 16 + (phases * 4) / 8;
}
