/** A device that is bound to an iommufd: struct iommufd_device (iommufd/device.c). */
import type { KernelContext } from '../context.ts';
import { fget, fput } from '../files.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { IommufdContext } from './context.ts';
import type { IommufdGroup } from './group.ts';
import { isCoherent } from './hw-info.ts';
import type { PageRequest } from './iopf.ts';
import { IommufdObject } from './object.ts';
import { SwMsiWindow } from './sw-msi-window.ts';
import type { Vdevice } from './vdevice.ts';

export class IommufdDevice extends IommufdObject {
  readonly type = 'device';
  readonly ctx: IommufdContext;
  readonly dev: PciDev;
  readonly igroup: IommufdGroup;
  /** What it is called in a virtual IOMMU, or null. */
  vdevice: Vdevice | null = null;
  /** Page requests whose group is not complete yet. */
  partialFaults: readonly PageRequest[] = [];
  /** Where the options SW_MSI_START and SW_MSI_SIZE move the window for doorbells. */
  readonly windowOption = new SwMsiWindow();
  /** Start of the software MSI window while attached, or null: the platform's MSIs need no doorbell mapping (sw_msi_start is PHYS_ADDR_MAX). */
  swMsiStart: bigint | null = null;

  constructor(ctx: IommufdContext, dev: PciDev, igroup: IommufdGroup) {
    super();
    this.ctx = ctx;
    this.dev = dev;
    this.igroup = igroup;
  }

  /**
   * iommufd_device_bind: -EINVAL (DMA is not coherent), -ENODEV (no group), -EPERM (MSIs are not isolated, or somebody else owns the group),
   * -EBUSY (the group is in another domain).
   */
  static bindTo(ctx: IommufdContext, dev: PciDev): IommufdDevice | number {
    const { refusals } = ctx.context;
    const group = dev.iommuGroup;
    if (group !== null && !isCoherent(group)) {
      return refusals.refuse('EINVAL', `DMA of ${dev.name} is not coherent with CPU caches`, 'fd');
    }
    if (group === null) return refusals.refuse('ENODEV', `${dev.name} is in no IOMMU group`, 'fd');
    const igroup = ctx.getGroup(group);
    const unsafe = group.hasIsolatedMsi() ? 0 : refuseUnsafe(ctx.context, dev);
    const error = unsafe < 0 ? unsafe : group.claimDeviceDmaOwner(ctx);
    if (error < 0) {
      ctx.putGroup(igroup);
      return refusals.passOn(error, `the DMA of group ${group.id} is somebody else's`);
    }
    const device = new IommufdDevice(ctx, dev, igroup);
    ctx.objects.add(device);
    fget(ctx.file);
    // The driver that binds is a user until it unbinds.
    device.users += 1;
    igroup.bound.push(device);
    ctx.objects.finalize(device);
    return device;
  }

  /** iommufd_device_unbind: its vDEVICE goes first. The device must not be attached. */
  unbind(): void {
    if (this.vdevice !== null) this.ctx.objects.bury(this.vdevice);
    this.ctx.objects.putAndTryDestroy(this);
  }

  destroy(): void {
    const { ctx, igroup } = this;
    igroup.bound.splice(igroup.bound.indexOf(this), 1);
    igroup.group.releaseDeviceDmaOwner();
    ctx.putGroup(igroup);
    fput(ctx.file);
  }
}

/** 0 when the administrator accepts that, else -EPERM. */
function refuseUnsafe(context: KernelContext, dev: PciDev): number {
  if (context.modules.iommufd.allow_unsafe_interrupts) {
    context.log(
      `vfio-pci ${dev.name}: MSI interrupts are not isolated by the platform (allow_unsafe_interrupts is on)`,
    );
    return 0;
  }
  return context.refusals.refuse(
    'EPERM',
    `interrupts of ${dev.name} are not isolated: the device could raise those of others through the doorbell`,
    undefined,
    'set iommufd.allow_unsafe_interrupts to accept that',
  );
}
