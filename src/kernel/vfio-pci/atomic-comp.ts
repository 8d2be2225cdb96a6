/** Which AtomicOps the root port above a function completes (vfio_pci_core.c vfio_pci_info_atomic_cap). */
import { CapabilityId, Express, ExpressFlags, ExpressType } from '../../arch/pci/index.ts';
import type { PciDev } from '../pci/pci-dev.ts';

/** Device capabilities 2: AtomicOp routing, and completers of 32, 64 and 128 bits in bits 7 to 9. */
const ATOMIC_ROUTE = 0x0040;
const ATOMIC_COMP_SHIFT = 7;
/** Device control 2 of an upstream port: AtomicOps do not leave it. */
const ATOMIC_EGRESS_BLOCK = 0x0080;

/** Bits VFIO_PCI_ATOMIC_COMP32, 64 and 128; 0 when there is no such port, or a switch on the way does not route. */
export function atomicCompletions(dev: PciDev): number {
  if (dev.capability(CapabilityId.EXPRESS) === 0) return 0;
  for (let port = dev.parent; port !== null; port = port.parent) {
    const express = port.capability(CapabilityId.EXPRESS);
    if (express === 0) return 0;
    const type = (port.configRead(express + Express.FLAGS, 2) & ExpressFlags.TYPE_MASK) >> ExpressFlags.TYPE_SHIFT;
    const capabilities = port.configRead(express + Express.DEVICE_CAPABILITIES_2, 4);
    if (type === ExpressType.ROOT_PORT) return (capabilities >>> ATOMIC_COMP_SHIFT) & 7;
    const blocks = (port.configRead(express + Express.DEVICE_CONTROL_2, 2) & ATOMIC_EGRESS_BLOCK) !== 0;
    if ((capabilities & ATOMIC_ROUTE) === 0 || (type === ExpressType.UPSTREAM_PORT && blocks)) return 0;
  }
  return 0;
}
