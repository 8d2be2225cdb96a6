/** A simulated Linux. */

export { type BootOptions, bootLinux, Host } from './boot/boot.ts';
export { SimKernelClient } from './client.ts';
export * from './context.ts';
export { EventFdFile, eventfdCtxFdget, SimEventFd } from './eventfd.ts';
export * from './files.ts';
export * from './iommufd/index.ts';
export { type LocalProcess, SimKernel } from './kernel.ts';
export { claimsDma, type DriverCore, hostDriver, type PciDriver, PciDrivers, vfioPciDriver } from './pci-drivers.ts';
export { type OwnedMemory, type Process, type ProcessOptions, ROOT_CAPABILITIES, SimProcess } from './process.ts';
export { RefusalLog } from './refusal.ts';
export { type OpenMode, type Placed, Syscalls } from './syscalls.ts';
export { mountSysfs, type SysfsSources } from './sysfs/index.ts';
export * from './sysfs/node.ts';
export * from './user-copy.ts';
export { SimUserMemory } from './user-memory.ts';
export { VfioContainer } from './vfio/container.ts';
export { VfioDevice, type VfioDeviceCdev, VfioDeviceFile } from './vfio/device.ts';
export type { VfioDeviceOps } from './vfio/device-ops.ts';
export { vfioCheckFeature } from './vfio/feature.ts';
export { VfioGroup, VfioGroupFile } from './vfio/group.ts';
export { type1Driver, VfioIommuType1 } from './vfio/type1.ts';
export { Vfio } from './vfio/vfio-main.ts';
