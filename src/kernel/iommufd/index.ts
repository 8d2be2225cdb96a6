/** iommufd: /dev/iommu, and the character devices of VFIO that work with it. */
import type { SimKernel } from '../kernel.ts';
import { IommufdCdev } from '../vfio/cdev.ts';
import type { Vfio } from '../vfio/vfio-main.ts';
import { IommufdFile } from './file.ts';

export { userLockedPages } from './account.ts';
export { attachDevice, detachDevice, replaceDevice } from './attach.ts';
export { IommufdContext } from './context.ts';
export { IommufdDevice } from './device.ts';
export { IommufdFile } from './file.ts';
export { HwQueue } from './hw-queue.ts';
export { HwptPaging } from './hwpt.ts';
export { HwptNested } from './hwpt-nested.ts';
export { Ioas } from './ioas.ts';
export type { HwInfo, IommuOps, NestedTable } from './iommu-ops.ts';
export { type PageRequest, reportDeviceFault } from './iopf.ts';
export { SW_MSI_PAGES, SwMsiTable } from './sw-msi.ts';
export { type Invalidated, UserArray, UserData } from './user-data.ts';
export { Vdevice } from './vdevice.ts';
export { VeventQueue } from './veventq.ts';
export { Viommu } from './viommu.ts';

/** Mounts /dev/iommu, and gives every VFIO device its node under /dev/vfio/devices. */
export function createIommufd(kernel: SimKernel, vfio: Vfio): void {
  const { context } = kernel;
  kernel.mount('/dev/iommu', { kind: 'device', mode: 0o660, uid: 0, open: () => new IommufdFile(context) });
  vfio.enableCdev(new IommufdCdev(context));
}
