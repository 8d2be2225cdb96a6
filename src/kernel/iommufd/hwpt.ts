/** A hardware page table that follows an IOAS: struct iommufd_hwpt_paging (iommufd/hw_pagetable.c). */
import { hex } from '../../ports/address.ts';
import type { IommuDomain } from '../../ports/iommu.ts';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
} from '../../uapi/iommufd.ts';
import { PagingDomain } from '../iommu/paging-domain.ts';
import { setMsiCookie } from '../irq/msi-cookie.ts';
import { setDmaContext } from '../vfio/doorbell-context.ts';
import type { IommufdContext } from './context.ts';
import type { IommufdDevice } from './device.ts';
import type { FaultQueue } from './fault.ts';
import { isDirtyTracking, pagingStage } from './hw-info.ts';
import type { Ioas } from './ioas.ts';
import { IommufdObject } from './object.ts';
import { IommufdCookie, type SwMsiMap } from './sw-msi.ts';
import type { UserData } from './user-data.ts';

const KNOWN =
  IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;

export class HwptPaging extends IommufdObject {
  readonly type = 'hwpt-paging';
  readonly ctx: IommufdContext;
  readonly ioas: Ioas;
  readonly domain: IommuDomain;
  readonly nestParent: boolean;
  /** Made by an attach to an IOAS, and gone with its last device. */
  autoDomain = false;
  /** Made with IOMMU_HWPT_ALLOC_PASID: a device that uses PASIDs translates through such tables only. */
  pasidCompat = false;
  /** The IOMMU snoops what devices write, whatever they ask for. */
  readonly enforcesCoherency: boolean;
  /** The doorbell pages that are mapped here, by their id in the file's table (present_sw_msi). */
  readonly presentSwMsi = new Map<number, SwMsiMap>();
  /** Where I/O page faults of its devices go, or null. */
  fault: FaultQueue | null = null;

  constructor(ctx: IommufdContext, ioas: Ioas, domain: IommuDomain, nestParent: boolean) {
    super();
    this.ctx = ctx;
    this.ioas = ioas;
    this.domain = domain;
    this.nestParent = nestParent;
    this.enforcesCoherency = domain.enforceCoherency();
    if (nestParent && domain instanceof PagingDomain) domain.nestParent = true;
  }

  /** find_hwpt_paging. */
  get paging(): this {
    return this;
  }

  /**
   * iommufd_hwpt_paging_alloc. The object has an id and the IOAS's mappings, and is not finalized. `attach` is called before the mappings come,
   * and `detach` when they do not fit: an automatic attach asks the device's IOMMU first. -errno leaves nothing behind.
   */
  static alloc(
    device: IommufdDevice,
    ioas: Ioas,
    flags: number,
    data: UserData | null = null,
    attach: ((hwpt: HwptPaging) => number) | null = null,
    detach: (hwpt: HwptPaging) => void = () => {},
  ): HwptPaging | number {
    const { ctx, igroup } = device;
    const refused = checkFlags(device, flags);
    if (refused < 0) return refused;
    const domain = allocDomain(device, flags & ~IOMMU_HWPT_FAULT_ID_VALID, data);
    if (typeof domain === 'number') {
      return ctx.context.refusals.passOn(domain, `no page table for group ${igroup.group.id}`);
    }
    const hwpt = new HwptPaging(ctx, ioas, domain, (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0);
    hwpt.pasidCompat = (flags & IOMMU_HWPT_ALLOC_PASID) !== 0;
    ctx.objects.add(hwpt);
    ioas.users += 1;
    ioas.hwpts.push(hwpt);
    setMsiCookie(domain, new IommufdCookie(ctx, hwpt));
    setDmaContext(domain, ioas);
    const attached = attach === null ? 0 : attach(hwpt);
    const error = attached < 0 ? attached : ioas.iopt.addDomain(domain);
    if (error === 0) return hwpt;
    if (attach !== null && attached === 0) detach(hwpt);
    ctx.objects.abort(hwpt);
    hwpt.release();
    return error;
  }

  destroy(): void {
    this.ioas.iopt.removeDomain(this.domain);
    this.release();
    if (this.fault !== null) this.fault.users -= 1;
  }

  /** iommufd_hw_pagetable_put: a device left. */
  put(): void {
    if (this.autoDomain) this.ctx.objects.putAndTryDestroy(this);
    else this.users -= 1;
  }

  /** The domain goes, and with it the doorbell pages. */
  private release(): void {
    setDmaContext(this.domain, null);
    setMsiCookie(this.domain, null);
    this.domain.free();
    this.ioas.hwpts.splice(this.ioas.hwpts.indexOf(this), 1);
    this.ioas.users -= 1;
  }
}

/** What holds for every driver: 0 or -EOPNOTSUPP. */
function checkFlags({ ctx, igroup, dev }: IommufdDevice, flags: number): number {
  const { refusals } = ctx.context;
  if ((flags & ~KNOWN) !== 0) {
    return refusals.refuse('EOPNOTSUPP', `flags ${hex(flags)} has unknown bits`, 'flags');
  }
  if ((flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0 && !isDirtyTracking(igroup.group, dev)) {
    return refusals.refuse('EOPNOTSUPP', `the IOMMU of ${dev.name} does not track dirty pages`, 'flags');
  }
  if ((flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0 && (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0) {
    return refusals.refuse('EOPNOTSUPP', 'a nest parent has no fault queue', 'flags');
  }
  return 0;
}

/** The drivers' domain_alloc_paging_flags. */
function allocDomain({ ctx, igroup, dev }: IommufdDevice, flags: number, data: UserData | null): IommuDomain | number {
  const { group } = igroup;
  if (group.ops !== undefined) return group.ops.allocPaging(dev, flags, data);
  if (data !== null) {
    const why = `data_type ${data.type}: a page table over an IOAS takes no data of the driver's`;
    return ctx.context.refusals.refuse('EOPNOTSUPP', why, 'data_type');
  }
  const stage = pagingStage(ctx.context, dev, group, flags);
  const dirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
  return stage < 0 ? stage : group.allocateDomain(stage === 1 || stage === 2 ? stage : undefined, dirty);
}
