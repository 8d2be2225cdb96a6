/** What a domain has for MSIs: Linux's iommu_domain cookie (iommu_dma_sw_msi, iommufd_sw_msi), and belfry's user doorbell before it. */
import type { IommuDomain } from '../../ports/iommu.ts';
import type { MsiDesc } from './msi-desc.ts';

export interface MsiCookie {
  readonly kind: 'dma' | 'type1-window' | 'iommufd';
  /** Called under the group's lock with the doorbell's physical address; see PrepareMsi. */
  prepare(desc: MsiDesc, doorbell: number): number;
  /** The vector was freed (a no-op for the kernel window, whose pages live as long as the domain). */
  unprepare(desc: MsiDesc): void;
  /** Doorbell pages that the kernel placed in this domain; a user-given range must not cover one. */
  readonly pages?: readonly { readonly iova: number; readonly pa: number }[];
}

const cookies = new WeakMap<IommuDomain, MsiCookie>();

export const msiCookie = (domain: IommuDomain): MsiCookie | null => cookies.get(domain) ?? null;

export function setMsiCookie(domain: IommuDomain, cookie: MsiCookie | null): void {
  if (cookie === null) cookies.delete(domain);
  else cookies.set(domain, cookie);
}
