/** PCI of a simulated machine. */
export { BarWindow } from './bar.ts';
export { Bridge, type BridgeKind } from './bridge.ts';
export { ConfigSpace } from './config-space.ts';
export { HostFunction } from './function.ts';
export { PciBus } from './pci-bus.ts';
export { PciRoot, type PciRootOptions } from './root.ts';
