/**
 * The kernel's own doorbell IOVAs on the iommufd path (iommufd/driver.c): one table for each open /dev/iommu, so that a message stays valid
 * whatever page table its device is moved to.
 */
import { hex } from '../../ports/address.ts';
import { Prot } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import type { MsiCookie } from '../irq/msi-cookie.ts';
import type { MsiDesc } from '../irq/msi-desc.ts';
import { prepared, unprepared } from '../irq/msi-desc-iova.ts';
import type { WindowPage } from '../irq/type1-cookie.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { doorbellRanges } from '../vfio/doorbell-ranges.ts';
import type { IommufdContext } from './context.ts';
import type { IommufdDevice } from './device.ts';
import type { IommufdGroup } from './group.ts';
import type { HwptPaging } from './hwpt.ts';

/** Bits of the kernel's bitmaps of installed pages. */
export const SW_MSI_PAGES = 64;

/** struct iommufd_sw_msi_map. */
export interface SwMsiMap {
  readonly id: number;
  readonly start: bigint;
  /** Physical page of the doorbell. */
  readonly pa: number;
  readonly iova: number;
}

export class SwMsiTable {
  private readonly context: KernelContext;
  private readonly maps: SwMsiMap[] = [];

  constructor(context: KernelContext) {
    this.context = context;
  }

  get all(): readonly SwMsiMap[] {
    return this.maps;
  }

  /**
   * iommufd_sw_msi_get_map: the known IOVA of the doorbell's page in the window, or the next free one; -EOVERFLOW for the 65th. `taken` are places
   * that a user-given doorbell has.
   */
  get(start: bigint, doorbell: number, taken: (iova: number, size: number) => boolean): SwMsiMap | number {
    const { pageSize, refusals } = this.context;
    const pa = doorbell - (doorbell % pageSize);
    const same = this.maps.filter((map) => map.start === start);
    const known = same.find((map) => map.pa === pa);
    if (known !== undefined) return known;
    if (this.maps.length >= SW_MSI_PAGES) {
      const why = `${SW_MSI_PAGES} doorbell pages have an IOVA in this iommufd; ${hex(pa)} would be one more`;
      return refusals.refuse('EOVERFLOW', why, 'doorbell', 'open another /dev/iommu');
    }
    let iova = same.reduce((next, map) => Math.max(next, map.iova + pageSize), Number(start));
    while (taken(iova, pageSize)) iova += pageSize;
    const map = { id: this.maps.length, start, pa, iova };
    this.maps.push(map);
    return map;
  }
}

/** iommufd_sw_msi_install: once for each page table. 0 or -errno. */
function install(ctx: IommufdContext, hwpt: HwptPaging, map: SwMsiMap): number {
  if (hwpt.presentSwMsi.has(map.id)) return 0;
  const { pageSize, refusals } = ctx.context;
  const ranges = doorbellRanges(ctx.context, hwpt.ioas);
  if (ranges.takenEnd(map.iova, map.iova + pageSize - 1) >= 0) {
    const why = `iova ${hex(map.iova)} stands for the doorbell page ${hex(map.pa)} in this iommufd, and a user-given doorbell has it in IOAS ${hwpt.ioas.id}`;
    return refusals.refuse('EADDRINUSE', why, 'pt_id');
  }
  const error = hwpt.domain.map(map.iova, map.pa, pageSize, Prot.READ | Prot.WRITE | Prot.MMIO);
  if (error < 0) return refusals.passOn(error, `the doorbell page ${hex(map.pa)} could not be mapped`);
  hwpt.presentSwMsi.set(map.id, map);
  return 0;
}

/**
 * iommufd_group_setup_msi: every page that the group's vectors are programmed with, in the windows of these devices of it, before they translate
 * through `hwpt`. 0 or -errno.
 */
export function setupMsi(igroup: IommufdGroup, devices: readonly IommufdDevice[], hwpt: HwptPaging): number {
  for (const map of igroup.ctx.swMsi.all) {
    if (!igroup.requiredSwMsi.has(map.id) || devices.every(({ swMsiStart }) => swMsiStart !== map.start)) continue;
    const error = install(igroup.ctx, hwpt, map);
    if (error < 0) return error;
  }
  return 0;
}

/** The window of an attached device; one that is not, in a group that is, shares that of the group's first. */
function windowStart(igroup: IommufdGroup, dev: PciDev): bigint | null {
  const own = igroup.attached.find((device) => device.dev === dev) ?? igroup.attached[0];
  return own?.swMsiStart ?? null;
}

/** IOMMU_COOKIE_IOMMUFD: iommufd_sw_msi for the domain of a paging HWPT. */
export class IommufdCookie implements MsiCookie {
  readonly kind = 'iommufd';
  private readonly ctx: IommufdContext;
  private readonly hwpt: HwptPaging;

  constructor(ctx: IommufdContext, hwpt: HwptPaging) {
    this.ctx = ctx;
    this.hwpt = hwpt;
  }

  get pages(): readonly WindowPage[] {
    return [...this.hwpt.presentSwMsi.values()];
  }

  prepare(desc: MsiDesc, doorbell: number): number {
    const group = desc.dev.iommuGroup;
    const igroup = group === null ? null : this.ctx.groupOf(group);
    const start = igroup === null ? null : windowStart(igroup, desc.dev);
    if (igroup === null || start === null) return unprepared(desc);
    const map = this.ctx.swMsi.get(start, doorbell, (iova, size) => this.isTaken(iova, size));
    if (typeof map === 'number') return map;
    const error = install(this.ctx, this.hwpt, map);
    if (error < 0) return error;
    igroup.requiredSwMsi.add(map.id);
    return prepared(desc, map.iova, this.ctx.context.pageSize);
  }

  /** Pages stay until the page table goes. */
  unprepare(_desc: MsiDesc): void {}

  /** The window's pages are the same in every IOAS of the file, so none may have given the place away. */
  private isTaken(iova: number, size: number): boolean {
    return this.ctx.ioases.some((ioas) => doorbellRanges(this.ctx.context, ioas).takenEnd(iova, iova + size - 1) >= 0);
  }
}
