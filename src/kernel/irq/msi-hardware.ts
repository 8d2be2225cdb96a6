/** The vectors of a function as registers: an MSI-X table on the bus, or the MSI capability in configuration space. */
import { CapabilityId } from '../../arch/pci/capability.ts';
import { Command, Header } from '../../arch/pci/config.ts';
import { Msi, MsiFlags, msiCapable, msiDataOffset, msiMaskOffset } from '../../arch/pci/msi.ts';
import { MSIX_BAR_MASK, Msix, MsixEntry, MsixFlags, msixVectors } from '../../arch/pci/msix.ts';
import { Power } from '../../arch/pci/power.ts';
import type { Bus } from '../../ports/bus.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { MsiMessage } from './msi-desc.ts';

/** What the MSI core does to a function's vectors. A message is written only while its vector is masked or the capability is off. */
export interface MsiHardware {
  /** Each vector has a mask bit of its own. */
  readonly canMask: boolean;
  write(index: number, message: MsiMessage): void;
  setMask(index: number, masked: boolean): void;
  /** Reads back, so that every posted write has arrived (PCIe 2.4.1: a read pushes the writes before it). */
  flush(): void;
}

/** pci_msix_vec_count: entries of the table; 0 without the capability. */
export function msixCount(dev: PciDev): number {
  const at = dev.capability(CapabilityId.MSIX);
  return at === 0 ? 0 : msixVectors(dev.configRead(at + Msix.FLAGS, 2));
}

/** pci_msi_vec_count: messages that the function asks for; 0 without the capability. */
export function msiCount(dev: PciDev): number {
  const at = dev.capability(CapabilityId.MSI);
  return at === 0 ? 0 : msiCapable(dev.configRead(at + Msi.FLAGS, 2));
}

/**
 * Can the function send a message above 4 GiB? Linux takes this from the MSI capability alone (pci_msi_init) and then holds MSI-X to it too
 * (msi_verify_entries).
 */
export function canAddress64(dev: PciDev): boolean {
  const at = dev.capability(CapabilityId.MSI);
  return at === 0 || (dev.configRead(at + Msi.FLAGS, 2) & MsiFlags.ADDRESS_64) !== 0;
}

/** Per-vector masking: always with MSI-X, by a flag with MSI. */
export function canMaskEach(dev: PciDev, mode: 'msi' | 'msix'): boolean {
  if (mode === 'msix') return true;
  const at = dev.capability(CapabilityId.MSI);
  return at !== 0 && (dev.configRead(at + Msi.FLAGS, 2) & MsiFlags.PER_VECTOR_MASK) !== 0;
}

/** PM state D0 to D3hot; a function without power management is in D0. */
export function powerState(dev: PciDev): number {
  const at = dev.capability(CapabilityId.POWER_MANAGEMENT);
  return at === 0 ? Power.D0 : dev.configRead(at + Power.CONTROL, 2) & Power.STATE_MASK;
}

/** pci_intx_for_msi: a function must not use its pin while it sends messages. */
export function setIntxDisabled(dev: PciDev, disabled: boolean): void {
  const command = dev.configRead(Header.COMMAND, 2);
  const wanted = disabled ? command | Command.INTX_DISABLE : command & ~Command.INTX_DISABLE;
  if (wanted !== command) dev.configWrite(Header.COMMAND, 2, wanted);
}

export class MsixTable implements MsiHardware {
  readonly canMask = true;
  readonly entries: number;
  private readonly bus: Bus;
  private readonly dev: PciDev;
  private readonly flags: number;
  /** Host-physical address of entry 0. */
  private readonly base: number;

  private constructor(bus: Bus, dev: PciDev, capability: number, base: number) {
    this.bus = bus;
    this.dev = dev;
    this.flags = capability + Msix.FLAGS;
    this.base = base;
    this.entries = msixVectors(dev.configRead(this.flags, 2));
  }

  /** msix_map_region: null when the BAR that holds the table does not exist. */
  static map(bus: Bus, dev: PciDev): MsixTable | null {
    const capability = dev.capability(CapabilityId.MSIX);
    const register = dev.configRead(capability + Msix.TABLE, 4) >>> 0;
    const bar = register & MSIX_BAR_MASK;
    const resource = dev.resources.find((candidate) => candidate.index === bar);
    if (resource === undefined || resource.size === 0 || resource.kind !== 'memory') return null;
    return new MsixTable(bus, dev, capability, resource.base + (register - bar));
  }

  write(index: number, message: MsiMessage): void {
    const at = this.base + index * MsixEntry.SIZE;
    this.bus.write32(at + MsixEntry.ADDRESS_LO, message.addressLo);
    this.bus.write32(at + MsixEntry.ADDRESS_HI, message.addressHi);
    this.bus.write32(at + MsixEntry.DATA, message.data);
  }

  setMask(index: number, masked: boolean): void {
    this.bus.write32(this.base + index * MsixEntry.SIZE + MsixEntry.CONTROL, masked ? MsixEntry.MASKED : 0);
  }

  flush(): void {
    this.bus.read32(this.base);
  }

  /** pci_msix_clear_and_set_ctrl. */
  control(clear: number, set: number): void {
    this.dev.configWrite(this.flags, 2, (this.dev.configRead(this.flags, 2) & ~clear) | set);
  }

  static control(dev: PciDev, clear: number, set: number): void {
    const flags = dev.capability(CapabilityId.MSIX) + Msix.FLAGS;
    dev.configWrite(flags, 2, (dev.configRead(flags, 2) & ~clear) | set);
  }
}

export class MsiCapability implements MsiHardware {
  readonly canMask: boolean;
  private readonly dev: PciDev;
  private readonly at: number;
  private readonly flags: number;
  /** log2 of the messages granted. */
  private readonly multiple: number;
  /** What the mask register holds; it is written whole (pci_msi_update_mask). */
  private mask = 0;

  /** `vectors` is what software will use; hardware is granted the next power of two. */
  constructor(dev: PciDev, vectors: number) {
    this.dev = dev;
    this.at = dev.capability(CapabilityId.MSI);
    this.flags = dev.configRead(this.at + Msi.FLAGS, 2);
    this.canMask = (this.flags & MsiFlags.PER_VECTOR_MASK) !== 0;
    this.multiple = Math.ceil(Math.log2(vectors));
  }

  /** All messages share one address; vector 0 carries it and the base of the data. */
  write(index: number, message: MsiMessage): void {
    if (index !== 0) return;
    const control = this.dev.configRead(this.at + Msi.FLAGS, 2) & ~MsiFlags.ENABLED_MASK;
    this.dev.configWrite(this.at + Msi.FLAGS, 2, control | (this.multiple << MsiFlags.ENABLED_SHIFT));
    this.dev.configWrite(this.at + Msi.ADDRESS_LO, 4, message.addressLo >>> 0);
    if ((this.flags & MsiFlags.ADDRESS_64) !== 0) {
      this.dev.configWrite(this.at + Msi.ADDRESS_HI, 4, message.addressHi >>> 0);
    }
    this.dev.configWrite(this.at + msiDataOffset(this.flags), 2, message.data & 0xffff);
  }

  setMask(index: number, masked: boolean): void {
    const bit = 1 << index;
    this.mask = masked ? this.mask | bit : this.mask & ~bit;
    this.writeMask();
  }

  /** Masks what the function could send at all (msi_multi_mask); false opens every vector, as at shutdown. */
  setMaskAll(masked: boolean): void {
    const messages = msiCapable(this.flags);
    this.mask = masked ? (messages === 32 ? -1 : (1 << messages) - 1) : 0;
    this.writeMask();
  }

  flush(): void {
    this.dev.configRead(this.at + Msi.FLAGS, 2);
  }

  setEnable(on: boolean): void {
    const control = this.dev.configRead(this.at + Msi.FLAGS, 2);
    this.dev.configWrite(this.at + Msi.FLAGS, 2, on ? control | MsiFlags.ENABLE : control & ~MsiFlags.ENABLE);
  }

  /** Writes the cached mask register again, after a reset wiped it. */
  writeMask(): void {
    if (this.canMask) this.dev.configWrite(this.at + msiMaskOffset(this.flags), 4, this.mask >>> 0);
  }
}

export const MSIX_SETUP = MsixFlags.ENABLE | MsixFlags.FUNCTION_MASK;
