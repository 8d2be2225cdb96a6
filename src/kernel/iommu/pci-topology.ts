/** What the IOMMU core asks of the PCI topology: DMA aliases, and isolation by ACS (drivers/pci/search.c, pci.c). */
import { CapabilityId, ExtendedCapabilityId } from '../../arch/pci/capability.ts';
import { Header, Header1 } from '../../arch/pci/config.ts';
import { Acs, Express, ExpressFlags, ExpressType } from '../../arch/pci/express.ts';
import type { PciDev } from '../pci/pci-dev.ts';

/** What keeps peers apart (REQ_ACS_FLAGS). */
const REQ_ACS_FLAGS = Acs.SOURCE_VALIDATION | Acs.REQUEST_REDIRECT | Acs.COMPLETION_REDIRECT | Acs.UPSTREAM_FORWARDING;

/** -1: not PCI Express. */
function expressType(dev: PciDev): number {
  const at = dev.capability(CapabilityId.EXPRESS);
  return at === 0 ? -1 : (dev.configRead(at + Express.FLAGS, 2) & ExpressFlags.TYPE_MASK) >> ExpressFlags.TYPE_SHIFT;
}

/** Requester ids that a device's transactions may carry beside its own, nearest bridge first, each with the bridge that makes it. */
export function dmaAliases(dev: PciDev): { readonly requester: number; readonly bridge: PciDev }[] {
  const aliases: { requester: number; bridge: PciDev }[] = [];
  for (let bridge = dev.parent; bridge !== null; bridge = bridge.parent) {
    switch (expressType(bridge)) {
      case ExpressType.ROOT_PORT:
      case ExpressType.UPSTREAM_PORT:
      case ExpressType.DOWNSTREAM_PORT:
        break;
      case ExpressType.PCI_BRIDGE: {
        // A PCIe-to-PCI bridge takes ownership with its secondary bus and device 0.
        const secondary = bridge.configRead(Header1.SECONDARY_BUS, 1);
        aliases.push({ requester: (dev.address.segment << 16) | (secondary << 8), bridge });
        break;
      }
      default:
        // A conventional bridge, or one from PCI to PCIe: its own id.
        aliases.push({ requester: bridge.requester, bridge });
    }
  }
  return aliases;
}

/** Turns on what a device's ACS capability offers, as the kernel does at boot when there is an IOMMU (pci_std_enable_acs). */
export function enableAcs(dev: PciDev): void {
  const at = dev.extendedCapability(ExtendedCapabilityId.ACS);
  if (at === 0) return;
  const offered = dev.configRead(at + Acs.CAPABILITY, 2) & REQ_ACS_FLAGS;
  dev.configWrite(at + Acs.CONTROL, 2, dev.configRead(at + Acs.CONTROL, 2) | offered);
}

/** Does the device keep its functions' or its ports' peers apart (pci_acs_enabled)? */
export function acsEnabled(dev: PciDev, multifunction: boolean): boolean {
  switch (expressType(dev)) {
    case -1:
    case ExpressType.PCI_BRIDGE:
    case ExpressType.PCIE_BRIDGE:
    case ExpressType.EVENT_COLLECTOR:
      return false;
    case ExpressType.ROOT_PORT:
    case ExpressType.DOWNSTREAM_PORT:
      return acsFlagsEnabled(dev);
    default:
      // A single function has no peer beside it.
      return !multifunction || acsFlagsEnabled(dev);
  }
}

/** What the capability does not offer is hard-wired (pci_acs_flags_enabled). */
function acsFlagsEnabled(dev: PciDev): boolean {
  const at = dev.extendedCapability(ExtendedCapabilityId.ACS);
  if (at === 0) return false;
  const wanted = REQ_ACS_FLAGS & dev.configRead(at + Acs.CAPABILITY, 2);
  return (dev.configRead(at + Acs.CONTROL, 2) & wanted) === wanted;
}

/** Is the slot marked as having several functions? */
export const isMultifunction = (dev: PciDev): boolean => (dev.configRead(Header.HEADER_TYPE, 1) & 0x80) !== 0;
