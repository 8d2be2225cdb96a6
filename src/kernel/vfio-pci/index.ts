/** vfio-pci: PCI functions in the hands of user space. */
export { BarMapping, BusError } from './bar-mapping.ts';
export { VfioPciCore, type VfioPciOptions } from './core.ts';
export type { FeatureHandler } from './feature.ts';
export { VfioMsiVector } from './msi-trigger.ts';
export { REGION_STRIDE, regionIndex, regionOffset, regionPosition } from './regions.ts';
