/** What a bound device is called in a virtual IOMMU: struct iommufd_vdevice. */
import type { IommufdDevice } from './device.ts';
import { IommufdObject } from './object.ts';
import type { Viommu } from './viommu.ts';

export class Vdevice extends IommufdObject {
  readonly type = 'vdevice';
  readonly viommu: Viommu;
  readonly device: IommufdDevice;
  /** The guest's stream id. */
  readonly virtualId: bigint;

  constructor(viommu: Viommu, device: IommufdDevice, virtualId: bigint) {
    super();
    this.viommu = viommu;
    this.device = device;
    this.virtualId = virtualId;
    viommu.users += 1;
    viommu.vdevices.set(virtualId, this);
    device.vdevice = this;
    viommu.ctx.objects.add(this);
  }

  destroy(): void {
    this.device.vdevice = null;
    this.viommu.vdevices.delete(this.virtualId);
    this.viommu.users -= 1;
  }
}
