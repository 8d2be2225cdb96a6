/** One domain of a type1 container and the groups that share it: struct vfio_domain. */
import type { IommuDomain } from '../../ports/iommu.ts';
import { Prot } from '../../ports/iommu.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import { setMsiCookie } from '../irq/msi-cookie.ts';
import type { VfioDma } from './dma-list.ts';
import { setDmaContext } from './doorbell-context.ts';

export class Type1Domain {
  readonly domain: IommuDomain;
  readonly groups: IommuGroup[] = [];
  /** IOMMU_CACHE is enforced for what devices do (VFIO_DMA_CC_IOMMU). */
  readonly enforcesCoherency: boolean;

  constructor(domain: IommuDomain, enforcesCoherency: boolean) {
    this.domain = domain;
    this.enforcesCoherency = enforcesCoherency;
  }

  /** Maps the pinned pages of a mapping: 0, or the driver's -errno with nothing left mapped. */
  map(dma: VfioDma): number {
    let iova = dma.iova;
    for (const run of dma.pinned?.runs ?? []) {
      const error = this.domain.map(iova, run.pa, run.length, dma.prot | Prot.CACHE);
      if (error < 0) {
        this.unmapRange(dma.iova, iova - dma.iova);
        return error;
      }
      iova += run.length;
    }
    return 0;
  }

  /** Takes the mapping out of the tables, and waits until no device can use it. */
  unmap(dma: VfioDma): void {
    this.unmapRange(dma.iova, dma.size);
  }

  free(): void {
    setDmaContext(this.domain, null);
    setMsiCookie(this.domain, null);
    this.domain.free();
  }

  private unmapRange(iova: number, size: number): void {
    let done = 0;
    while (done < size) {
      const step = this.domain.unmap(iova + done, size - done);
      if (step === 0) break;
      done += step;
    }
    if (done > 0) this.domain.sync();
  }
}
