/** msi_desc_set_iommu_msi_iova: what prepare leaves in a vector for compose. */
import type { MsiDesc } from './msi-desc.ts';

/** Notes that the doorbell's page of `size` bytes (a power of two) stands at `iova`. Answers 0. */
export function prepared(desc: MsiDesc, iova: number, size: number): 0 {
  desc.doorbellIova = iova;
  desc.doorbellShift = Math.log2(size);
  return 0;
}

/** The message carries the physical address: no IOMMU, identity, or a policy that maps nothing. Answers 0. */
export function unprepared(desc: MsiDesc): 0 {
  desc.doorbellIova = 0;
  desc.doorbellShift = 0;
  return 0;
}
