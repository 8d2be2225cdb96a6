/** The kernel's PCI core: devices, their enumeration, their resets. */
export { enumeratePci } from './enumerate.ts';
export type { PciDev, PciResource } from './pci-dev.ts';
export { PciDevice, type PowerState } from './pci-device.ts';
export { resetMethods } from './reset.ts';
export { restoreState, type SavedState, saveState } from './saved-state.ts';
export { type DeviceEvents, PciSriov, VirtualFunctions } from './sriov.ts';
