/** What a container asks of an IOMMU back end: struct vfio_iommu_driver_ops. */
import type { IommuGroup } from '../iommu/iommu-group.ts';
import type { Process } from '../process.ts';
import type { VfioIommuType1 } from './type1.ts';

export interface VfioIommuDriver {
  readonly name: string;
  /** CHECK_EXTENSION without an opened instance: 1 or 0. */
  checkExtension(id: number): number;
  /** An instance for SET_IOMMU(id), or -errno. */
  open(id: number): VfioIommu | number;
}

export interface VfioIommu {
  /** The type1 instance itself, for those who know that it is one (the doorbell). */
  readonly type1: VfioIommuType1 | null;
  checkExtension(id: number): number;
  attachGroup(group: IommuGroup): number;
  detachGroup(group: IommuGroup): void;
  ioctl(process: Process, request: number, argument: bigint): number;
}
