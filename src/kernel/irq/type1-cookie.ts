/** The MSI cookie of a VFIO type1 domain (dma-iommu.c, IOMMU_COOKIE_DMA_MSI): the kernel's own doorbell window. */

import { hex } from '../../ports/address.ts';
import { type IommuDomain, Prot } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import type { MsiCookie } from './msi-cookie.ts';
import type { MsiDesc } from './msi-desc.ts';
import { prepared } from './msi-desc-iova.ts';

/** Where user space has asked for something else: the window's allocator steps over these. */
export interface TakenRanges {
  /** The last address of a taken range that touches [start, end], or -1. */
  takenEnd(start: number, end: number): number;
}

/** A doorbell page that the kernel placed in its window. */
export interface WindowPage {
  readonly iova: number;
  readonly pa: number;
}

/**
 * Linux's window as it is: each distinct doorbell page takes the next page from `base` on (0x8000000 with the Arm drivers), without an upper
 * bound; it is looked up by physical page, shared by all devices of the domain, and stays until the domain dies. It steps over
 * the ranges of `taken`, which Linux has not.
 */
export class Type1WindowCookie implements MsiCookie {
  readonly kind = 'type1-window';
  readonly pages: readonly WindowPage[];
  private readonly list: WindowPage[] = [];
  private readonly context: KernelContext;
  private readonly domain: IommuDomain;
  private readonly taken: TakenRanges | null;
  private next: number;

  constructor(context: KernelContext, domain: IommuDomain, base: number, taken: TakenRanges | null) {
    this.context = context;
    this.domain = domain;
    this.next = base;
    this.taken = taken;
    this.pages = this.list;
  }

  prepare(desc: MsiDesc, doorbell: number): number {
    const size = this.context.pageSize;
    const pa = doorbell - (doorbell % size);
    const known = this.list.find((page) => page.pa === pa);
    if (known !== undefined) return prepared(desc, known.iova, size);
    const iova = this.firstFree(size);
    const error = this.domain.map(iova, pa, size, Prot.WRITE | Prot.NOEXEC | Prot.MMIO);
    if (error < 0) {
      return this.context.refusals.refuse(
        'ENOMEM',
        `the doorbell page ${hex(pa)} could not be mapped at ${hex(iova)} in the kernel's window`,
        'doorbell',
      );
    }
    this.next = iova + size;
    this.list.push({ iova, pa });
    return prepared(desc, iova, size);
  }

  /** Window pages live as long as the domain. */
  unprepare(_desc: MsiDesc): void {}

  private firstFree(size: number): number {
    let iova = this.next;
    for (let end = this.takenEnd(iova, size); end >= 0; end = this.takenEnd(iova, size)) {
      iova = Math.ceil((end + 1) / size) * size;
    }
    return iova;
  }

  private takenEnd(iova: number, size: number): number {
    return this.taken === null ? -1 : this.taken.takenEnd(iova, iova + size - 1);
  }
}

/** iommu_get_msi_cookie: `base` is the start of the group's SW_MSI window. The caller sets it on the domain. */
export function createType1WindowCookie(
  context: KernelContext,
  domain: IommuDomain,
  base: number,
  taken: TakenRanges | null = null,
): Type1WindowCookie {
  return new Type1WindowCookie(context, domain, base, taken);
}
