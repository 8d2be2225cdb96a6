/** Configuration that a reset wipes and the kernel puts back: drivers/pci/pci.c pci_save_state, pci_restore_state. */
import {
  CapabilityId,
  Express,
  ExtendedCapabilityId,
  Header,
  Msi,
  MsiFlags,
  Msix,
  MsixFlags,
  msiDataOffset,
  msiMaskOffset,
  Pasid,
} from '../../arch/pci/index.ts';
import type { PciDev } from './pci-dev.ts';

/** Registers of a function by offset: [offset, size, value], in the order in which they are restored. */
export type SavedState = readonly (readonly [offset: number, size: number, value: number])[];

/** Bits of the message control words that this module must not raise before the rest is back. */
const EXPRESS_REGISTERS = [
  Express.DEVICE_CONTROL,
  Express.LINK_CONTROL,
  Express.SLOT_CONTROL,
  Express.ROOT_CONTROL,
  Express.DEVICE_CONTROL_2,
  Express.LINK_CONTROL_2,
] as const;

/**
 * Everything but the MSI-X table, which is in a BAR and comes back through {@link PciDev.restoreMsiState}. Order as in Linux: PCIe, PASID, then the
 * header from its end (BARs before COMMAND, so that decoding starts when the bases are right), then MSI.
 */
export function saveState(dev: PciDev): SavedState {
  const registers: (readonly [number, number, number])[] = [];
  const take = (offset: number, size: number): void => {
    registers.push([offset, size, dev.configRead(offset, size)]);
  };
  const express = dev.capability(CapabilityId.EXPRESS);
  if (express !== 0) {
    const version = dev.configRead(express + Express.FLAGS, 2) & 0xf;
    for (const register of EXPRESS_REGISTERS) {
      if (register < Express.LENGTH_V1 || version >= 2) take(express + register, 2);
    }
  }
  const pasid = dev.extendedCapability(ExtendedCapabilityId.PASID);
  if (pasid !== 0) take(pasid + Pasid.CONTROL, 2);
  for (let offset = 0x3c; offset >= Header.CACHE_LINE_SIZE; offset -= 4) take(offset, 4);
  take(Header.COMMAND, 2);
  saveMsi(dev, take);
  return registers;
}

function saveMsi(dev: PciDev, take: (offset: number, size: number) => void): void {
  const msi = dev.capability(CapabilityId.MSI);
  if (msi !== 0) {
    const flags = dev.configRead(msi + Msi.FLAGS, 2);
    if ((flags & MsiFlags.ENABLE) !== 0) {
      take(msi + Msi.ADDRESS_LO, 4);
      if ((flags & MsiFlags.ADDRESS_64) !== 0) take(msi + Msi.ADDRESS_HI, 4);
      take(msi + msiDataOffset(flags), 2);
      if ((flags & MsiFlags.PER_VECTOR_MASK) !== 0) take(msi + msiMaskOffset(flags), 4);
      take(msi + Msi.FLAGS, 2);
    }
  }
  const msix = dev.capability(CapabilityId.MSIX);
  if (msix !== 0 && (dev.configRead(msix + Msix.FLAGS, 2) & MsixFlags.ENABLE) !== 0) take(msix + Msix.FLAGS, 2);
}

/** Writes back what differs, then lets the MSI core rewrite the table (pci_restore_msi_state). */
export function restoreState(dev: PciDev, state: SavedState): void {
  for (const [offset, size, value] of state) {
    if (dev.configRead(offset, size) !== value) dev.configWrite(offset, size, value);
  }
  dev.sriov?.restore();
  dev.restoreMsiState?.();
}
