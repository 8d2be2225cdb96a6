/** Moving armed vectors to another doorbell page: all of them, or none (docs/doorbell.md, rule 16). */
import type { KernelContext } from '../context.ts';
import type { MsiDesc } from '../irq/msi-desc.ts';
import type { MsiVector } from '../irq/msi-vector.ts';
import type { PciMsi } from '../irq/pci-msi.ts';
import { iommuDmaPrepareMsi, iommuDmaUnprepareMsi } from '../irq/prepare.ts';
import type { DoorbellPages } from '../vfio/doorbell-pages.ts';

/** The page that a vector's message names. `pages` is null while the device is detached: nothing is mapped then. */
export interface OwnedPage {
  readonly pages: DoorbellPages | null;
  readonly iova: number;
  /** The physical doorbell. */
  readonly doorbell: number;
}

interface Before {
  readonly vector: MsiVector;
  readonly iova: number;
  readonly shift: number;
  readonly page: OwnedPage | undefined;
}

/**
 * Gives each vector the page that the settings now name. The new pages are mapped first, for all; then each vector is masked, rewritten and
 * unmasked; when every write has arrived the old pages are unmapped. 0, or -errno with every vector as it was.
 */
export function moveVectors(
  context: KernelContext,
  msi: PciMsi,
  owned: Map<MsiDesc, OwnedPage>,
  vectors: readonly MsiVector[],
): number {
  const done: Before[] = [];
  for (const vector of vectors) {
    const { desc } = vector;
    const before = { vector, iova: desc.doorbellIova, shift: desc.doorbellShift, page: owned.get(desc) };
    owned.delete(desc);
    const error = iommuDmaPrepareMsi(context, msi.doorbellPolicy, desc, vector.doorbell);
    if (error < 0) {
      for (const moved of done.reverse()) iommuDmaUnprepareMsi(moved.vector.desc);
      for (const entry of [...done, before]) putBack(owned, entry);
      return error;
    }
    done.push(before);
  }
  msi.readdress(vectors);
  for (const { page } of done) page?.pages?.release(page.iova);
  return 0;
}

function putBack(owned: Map<MsiDesc, OwnedPage>, before: Before): void {
  const { desc } = before.vector;
  desc.doorbellIova = before.iova;
  desc.doorbellShift = before.shift;
  if (before.page === undefined) owned.delete(desc);
  else owned.set(desc, before.page);
}
