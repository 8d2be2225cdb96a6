/** iommu_dma_prepare_msi (drivers/iommu/iommu.c): which IOVA stands for a vector's doorbell, mapped before anything is composed. */
import { hex } from '../../ports/address.ts';
import type { KernelContext } from '../context.ts';
import { msiCookie } from './msi-cookie.ts';
import type { MsiDesc } from './msi-desc.ts';
import { unprepared } from './msi-desc-iova.ts';
import { userDoorbell } from './user-doorbell.ts';

/** `none` is the kernel before 2016: the physical doorbell goes into the vector, and nothing is mapped. */
export type DoorbellPolicy = 'kernel' | 'none';

/** 0, with the vector's IOVA (or shift 0: the physical address) noted in `desc`; EOPNOTSUPP, ENOMEM, ENOSPC, EPERM as -errno. */
export function iommuDmaPrepareMsi(
  context: KernelContext,
  policy: DoorbellPolicy,
  desc: MsiDesc,
  doorbell: number,
): number {
  unprepared(desc);
  const group = desc.dev.iommuGroup;
  if (policy === 'none' || group === null) return 0;
  const domain = group.domain;
  if (domain.type === 'identity') return 0;
  if (domain.type !== 'blocked') {
    const own = userDoorbell(desc.dev)?.prepare(desc, doorbell) ?? null;
    if (own !== null) return own;
  }
  const cookie = msiCookie(domain);
  if (domain.type === 'blocked' || cookie === null) {
    return context.refusals.refuse(
      'EOPNOTSUPP',
      domain.type === 'blocked'
        ? `group ${group.id} of ${desc.dev.name} is attached to nothing, so no IOVA can stand for the doorbell ${hex(doorbell)}`
        : `the domain of group ${group.id} has no place for doorbells: no MSI cookie`,
      'vector',
      'attach the device before enabling its interrupts',
    );
  }
  return cookie.prepare(desc, doorbell);
}

/** The vector was freed, or its allocation failed behind prepare. */
export function iommuDmaUnprepareMsi(desc: MsiDesc): void {
  const own = userDoorbell(desc.dev)?.unprepare(desc) ?? false;
  if (own || desc.doorbellShift === 0) return;
  const domain = desc.dev.iommuGroup?.domain ?? null;
  if (domain !== null) msiCookie(domain)?.unprepare(desc);
}
