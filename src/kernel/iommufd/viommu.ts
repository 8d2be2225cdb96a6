/** A virtual IOMMU: a slice of the hardware that user space may drive itself (struct iommufd_viommu). What it is, its driver knows. */
import type { PciDev } from '../pci/pci-dev.ts';
import type { IommufdContext } from './context.ts';
import type { IommufdDevice } from './device.ts';
import type { IommufdGroup } from './group.ts';
import type { HwQueue } from './hw-queue.ts';
import type { HwptPaging } from './hwpt.ts';
import type { NestedTable } from './iommu-ops.ts';
import { IommufdObject } from './object.ts';
import type { Invalidated, UserArray, UserData } from './user-data.ts';
import type { Vdevice } from './vdevice.ts';
import type { VeventQueue } from './veventq.ts';

/** struct iommufd_viommu_ops: what a driver's class says. Results below zero are -errno with a refusal noted. */
export abstract class Viommu extends IommufdObject {
  readonly type = 'viommu';
  readonly ctx: IommufdContext;
  /** The IOMMU that it is a slice of. */
  readonly iommu: object;
  /** Stage 2. */
  readonly parent: HwptPaging;
  /** By virtual id. */
  readonly vdevices = new Map<bigint, Vdevice>();
  /** By type. */
  readonly queues = new Map<number, VeventQueue>();

  /** Takes an id; the caller finalizes. */
  constructor(ctx: IommufdContext, iommu: object, parent: HwptPaging) {
    super();
    this.ctx = ctx;
    this.iommu = iommu;
    this.parent = parent;
    parent.users += 1;
    ctx.objects.add(this);
  }

  /** alloc_domain_nested, without FAULT_ID_VALID. */
  abstract allocNested(flags: number, data: UserData): NestedTable | number;

  /** cache_invalidate. */
  abstract invalidate(array: UserArray): Invalidated;

  /** vdevice_init: 0, or why the device cannot be one of this vIOMMU. */
  acceptDevice(_device: IommufdDevice): number {
    return 0;
  }

  /** May the group translate through this nested table? 0 or -errno (the lookup of the virtual id in a driver's attach). */
  admit(_group: IommufdGroup, _table: NestedTable): number {
    return 0;
  }

  /** get_hw_queue_size: does the hardware take queues of this type from a guest? */
  hasHwQueue(_type: number): boolean {
    return false;
  }

  /** hw_queue_init_phys: the queue at `pa` gets to work. 0 or -errno. */
  startHwQueue(queue: HwQueue, _index: number, _pa: number): number {
    return this.ctx.context.refusals.refuse(
      'EOPNOTSUPP',
      `vIOMMU ${queue.viommu.id} has no queues in hardware`,
      'type',
    );
  }

  /** iommufd_viommu_get_vdev_id: what the device is called here, or null. */
  virtualIdOf(dev: PciDev): bigint | null {
    for (const [virtualId, { device }] of this.vdevices) if (device.dev === dev) return virtualId;
    return null;
  }

  /** iommufd_viommu_report_event: false, nobody listens for the type. */
  reportEvent(type: number, data: Uint8Array): boolean {
    const queue = this.queues.get(type);
    queue?.add(data);
    return queue !== undefined;
  }

  destroy(): void {
    this.release();
    this.parent.users -= 1;
  }

  /** The driver's own: what it holds for the vIOMMU goes. */
  protected release(): void {}
}
