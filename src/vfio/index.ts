/** The user's side of VFIO, on the `Kernel` port alone: the same on the simulated kernel and on real Linux. */

export type { AddressSpace, DmaAccess, MapDmaOptions } from './address-space.ts';
export { type AttachOptions, type BindOptions, CdevDevice } from './cdev-device.ts';
export { ConfigSpace } from './config-space.ts';
export { Container } from './container.ts';
export { Device, type DeviceInfo } from './device.ts';
export { cdevOf, groupOf } from './device-names.ts';
export type { DirtyRange, ReadDirtyOptions } from './dirty-pages.ts';
export { DmaBuf, type DmaBufRange, type MappableFile } from './dma-buf.ts';
export { DmaBuffer } from './dma-buffer.ts';
export { Doorbell, type DoorbellChoice, type DoorbellRange, type DoorbellState } from './doorbell.ts';
export { VfioError, type VfioErrorDetails } from './error.ts';
export { Feature } from './feature.ts';
export { Group } from './group.ts';
export { Hwpt, type HwptOptions } from './hwpt.ts';
export { Interrupt, type InterruptListener } from './interrupt.ts';
export {
  type Enabled,
  INTERRUPT_KINDS,
  type InterruptKind,
  Interrupts,
  type InterruptsInfo,
} from './interrupts.ts';
export { type CopyOptions, Ioas, type IoasOptions, type MapFileOptions } from './ioas.ts';
export { type IommuInfo, type IovaRange, parseIommuInfo } from './iommu-info.ts';
export { Iommufd } from './iommufd.ts';
export type { IrqAction, IrqData } from './irq-set.ts';
export { MemoryFile, type MemoryFileOptions } from './memory-file.ts';
export { Nested, type NestedOptions } from './nested.ts';
export {
  type Carrier,
  NestedDoorbell,
  type NestedDoorbellChoice,
  type NestedDoorbellState,
} from './nested-doorbell.ts';
export { type OpenDeviceOptions, openDevice, type Via, waysTo } from './open-device.ts';
export { type MappableArea, Region, type RegionInfo } from './region.ts';
export { RegionMapping } from './region-mapping.ts';
export { type GroupReservedRegion, parseReservedRegions, reservedRegions } from './reserved-regions.ts';
export { Resource } from './resource.ts';
export { type Stage1Kind, Stage1Tables, type TablePage } from './stage1-tables.ts';
export { type NestedEvent, type SmmuRegisters, VirtualSmmu } from './virtual-smmu.ts';
