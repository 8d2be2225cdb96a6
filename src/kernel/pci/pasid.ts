/** PASIDs of a PCI function: how many it can name, and their switch (drivers/pci/ats.c; pci_configure_eetlp_prefix of probe.c). */
import {
  Acs,
  CapabilityId,
  DeviceCapabilities2,
  Express,
  ExpressFlags,
  ExpressType,
  ExtendedCapabilityId,
  PASID_WIDTH_MASK,
  PASID_WIDTH_SHIFT,
  Pasid,
  PasidBits,
} from '../../arch/pci/index.ts';
import type { PciDev } from './pci-dev.ts';

const FEATURES = PasidBits.EXECUTE | PasidBits.PRIVILEGED;
/** Peers must not see what is meant for an address space: requests go up to the IOMMU on the whole way. */
const REDIRECTED = Acs.REQUEST_REDIRECT | Acs.UPSTREAM_FORWARDING;

/** Virtual functions share what their physical one has. */
const owner = (dev: PciDev): PciDev => dev.physfn ?? dev;

const capability = (dev: PciDev): number => owner(dev).extendedCapability(ExtendedCapabilityId.PASID);

/** pci_max_pasids: 2^width, or 0 without the capability. */
export function maxPasids(dev: PciDev): number {
  const at = capability(dev);
  if (at === 0) return 0;
  return 2 ** ((owner(dev).configRead(at + Pasid.CAPABILITY, 2) & PASID_WIDTH_MASK) >> PASID_WIDTH_SHIFT);
}

/** pci_pasid_status: bits of the control register; 0 without the capability. */
export function pasidStatus(dev: PciDev): number {
  const at = capability(dev);
  return at === 0 ? 0 : owner(dev).configRead(at + Pasid.CONTROL, 2) & (PasidBits.ENABLE | FEATURES);
}

/**
 * pci_enable_pasid with everything that the function offers. False: it has none, a port above cannot carry prefixes, or peers could be reached before
 * the IOMMU.
 */
export function enablePasid(dev: PciDev): boolean {
  const at = capability(dev);
  if (at === 0) return false;
  if (owner(dev) !== dev) return (pasidStatus(dev) & PasidBits.ENABLE) !== 0;
  if (!carriesPrefixes(dev) || !redirects(dev)) return false;
  const features = dev.configRead(at + Pasid.CAPABILITY, 2) & FEATURES;
  dev.configWrite(at + Pasid.CONTROL, 2, PasidBits.ENABLE | features);
  return true;
}

function expressType(dev: PciDev): number {
  const at = dev.capability(CapabilityId.EXPRESS);
  return at === 0 ? -1 : (dev.configRead(at + Express.FLAGS, 2) & ExpressFlags.TYPE_MASK) >> ExpressFlags.TYPE_SHIFT;
}

/** eetlp_prefix_max: the function and every port above it say so. */
function carriesPrefixes(dev: PciDev): boolean {
  const at = dev.capability(CapabilityId.EXPRESS);
  if (at === 0) return false;
  const capabilities = dev.configRead(at + Express.DEVICE_CAPABILITIES_2, 4);
  if ((capabilities & DeviceCapabilities2.END_TO_END_PREFIX) === 0) return false;
  const type = expressType(dev);
  if (type === ExpressType.ROOT_PORT || type === ExpressType.INTEGRATED_ENDPOINT) return true;
  return dev.parent !== null && carriesPrefixes(dev.parent);
}

/** pci_acs_path_enabled. */
function redirects(from: PciDev): boolean {
  for (let dev: PciDev | null = from; dev !== null; dev = dev.parent) if (!redirectsHere(dev)) return false;
  return true;
}

/** pci_acs_enabled for the two flags: a function of several and a port need the controls as far as the capability has them. */
function redirectsHere(dev: PciDev): boolean {
  const type = expressType(dev);
  if (type === -1 || type === ExpressType.PCI_BRIDGE || type === ExpressType.PCIE_BRIDGE) return false;
  const port = type === ExpressType.ROOT_PORT || type === ExpressType.DOWNSTREAM_PORT;
  const several = (dev.configRead(0x0e, 1) & 0x80) !== 0;
  if (!port && (!several || type === ExpressType.UPSTREAM_PORT)) return true;
  const at = dev.extendedCapability(ExtendedCapabilityId.ACS);
  if (at === 0) return false;
  const wanted = REDIRECTED & dev.configRead(at + Acs.CAPABILITY, 2);
  return (dev.configRead(at + Acs.CONTROL, 2) & wanted) === wanted;
}
