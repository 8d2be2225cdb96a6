/** /dev/vfio/vfio (container.c): a set of groups, and the IOMMU back end that they share once SET_IOMMU chose it. */
import * as uapi from '../../uapi/vfio.ts';
import type { KernelContext } from '../context.ts';
import type { File } from '../files.ts';
import type { Process } from '../process.ts';
import type { VfioGroup } from './group.ts';
import type { VfioIommu, VfioIommuDriver } from './iommu-driver.ts';
import type { VfioIommuType1 } from './type1.ts';

export class VfioContainer implements File {
  readonly name = '/dev/vfio/vfio';
  readonly kind = 'container';
  readonly groups: VfioGroup[] = [];
  iommu: VfioIommu | null = null;
  private readonly context: KernelContext;
  private readonly drivers: readonly VfioIommuDriver[];

  constructor(context: KernelContext, drivers: readonly VfioIommuDriver[]) {
    this.context = context;
    this.drivers = drivers;
  }

  get type1(): VfioIommuType1 | null {
    return this.iommu?.type1 ?? null;
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    switch (request) {
      case uapi.VFIO_GET_API_VERSION:
        return uapi.VFIO_API_VERSION;
      case uapi.VFIO_CHECK_EXTENSION:
        return this.checkExtension(Number(argument));
      case uapi.VFIO_SET_IOMMU:
        return this.setIommu(Number(argument));
      default:
        if (this.iommu !== null) return this.iommu.ioctl(process, request, argument);
        return this.context.refusals.refuse(
          'EINVAL',
          'no IOMMU is set for this container',
          'fd',
          'SET_CONTAINER a group, then SET_IOMMU',
        );
    }
  }

  /** Groups keep the container after its last descriptor: what they have mapped stays until the last one leaves. */
  release(): void {}

  /** vfio_container_attach_group. */
  attachGroup(group: VfioGroup): number {
    const claimed = group.iommuGroup.claimDmaOwner(group);
    if (claimed < 0) {
      const why = `group ${group.id}: somebody else owns its DMA, or a host driver is bound to one of its devices`;
      return this.context.refusals.passOn(claimed, why);
    }
    const error = this.iommu === null ? 0 : this.iommu.attachGroup(group.iommuGroup);
    if (error < 0) {
      group.iommuGroup.releaseDmaOwner();
      return error;
    }
    this.groups.push(group);
    group.container = this;
    group.containerUsers = 1;
    return 0;
  }

  /** vfio_group_detach_container: the last group takes the IOMMU back end along. */
  detachGroup(group: VfioGroup): void {
    this.iommu?.detachGroup(group.iommuGroup);
    group.iommuGroup.releaseDmaOwner();
    group.container = null;
    group.containerUsers = 0;
    this.groups.splice(this.groups.indexOf(group), 1);
    if (this.groups.length === 0) this.iommu = null;
  }

  private checkExtension(id: number): number {
    if (this.iommu !== null) return this.iommu.checkExtension(id);
    return this.drivers.some((driver) => driver.checkExtension(id) > 0) ? 1 : 0;
  }

  /** Every driver that knows the extension is tried, and the last error wins. */
  private setIommu(id: number): number {
    const { refusals } = this.context;
    if (this.groups.length === 0)
      return refusals.refuse('EINVAL', 'no group is in this container', 'fd', 'VFIO_GROUP_SET_CONTAINER comes first');
    if (this.iommu !== null) return refusals.refuse('EINVAL', 'this container has an IOMMU already', 'fd');
    let error: number | null = null;
    for (const driver of this.drivers) {
      if (driver.checkExtension(id) <= 0) continue;
      const iommu = driver.open(id);
      error = typeof iommu === 'number' ? iommu : this.attachAll(iommu);
      if (error === 0 && typeof iommu !== 'number') {
        this.iommu = iommu;
        return 0;
      }
    }
    return (
      error ?? refusals.refuse('ENODEV', `no IOMMU driver answers to ${id}`, 'argument', 'VFIO_TYPE1v2_IOMMU is 3')
    );
  }

  /** All groups, or none. */
  private attachAll(iommu: VfioIommu): number {
    for (const [i, group] of this.groups.entries()) {
      const error = iommu.attachGroup(group.iommuGroup);
      if (error < 0) {
        for (const done of this.groups.slice(0, i)) iommu.detachGroup(done.iommuGroup);
        return error;
      }
    }
    return 0;
  }
}
