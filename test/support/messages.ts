/** A function's vectors as its own registers hold them, read over the bus as a CPU would. */
import {
  CapabilityId,
  MSIX_BAR_MASK,
  Msi,
  MsiFlags,
  Msix,
  MsixEntry,
  msiDataOffset,
} from '../../src/arch/pci/index.ts';
import type { Host } from '../../src/kernel/boot/boot.ts';
import type { PciDevice } from '../../src/kernel/pci/pci-device.ts';

export interface HardwareMessage {
  readonly address: number;
  readonly data: number;
  readonly masked: boolean;
}

/** Entry `index` of the MSI-X table. */
export function msixEntry(host: Host, dev: PciDevice, index: number): HardwareMessage {
  const { bus } = host.machine;
  const where = dev.configRead(dev.capability(CapabilityId.MSIX) + Msix.TABLE, 4);
  const at = dev.resources[where & MSIX_BAR_MASK]!.base + ((where & ~MSIX_BAR_MASK) >>> 0) + index * MsixEntry.SIZE;
  const word = (offset: number): number => bus.read32(at + offset) >>> 0;
  return {
    address: word(MsixEntry.ADDRESS_HI) * 2 ** 32 + word(MsixEntry.ADDRESS_LO),
    data: word(MsixEntry.DATA),
    masked: (word(MsixEntry.CONTROL) & MsixEntry.MASKED) !== 0,
  };
}

/** The one message of plain MSI, and how many vectors are enabled. */
export function msiMessage(dev: PciDevice): { address: number; data: number; vectors: number; enabled: boolean } {
  const at = dev.capability(CapabilityId.MSI);
  const flags = dev.configRead(at + Msi.FLAGS, 2);
  const high = (flags & MsiFlags.ADDRESS_64) !== 0 ? dev.configRead(at + Msi.ADDRESS_HI, 4) >>> 0 : 0;
  return {
    address: high * 2 ** 32 + (dev.configRead(at + Msi.ADDRESS_LO, 4) >>> 0),
    data: dev.configRead(at + msiDataOffset(flags), 2),
    vectors: 2 ** ((flags >> MsiFlags.ENABLED_SHIFT) & 7),
    enabled: (flags & MsiFlags.ENABLE) !== 0,
  };
}
