/** An area in a domain's tables: iopt_area_fill_domain, iopt_area_unmap_domain. */
import { type IommuDomain, Prot } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import type { Area } from './area.ts';
import { showSpan } from './span.ts';

/** Maps the pinned pages of an area: 0, or the driver's -errno with nothing left mapped. Without `largePages` page by page. */
export function mapArea(context: KernelContext, domain: IommuDomain, area: Area, largePages: boolean): number {
  const step = largePages ? Infinity : context.pageSize;
  // Device memory is not to be cached, whatever the area says (batch_to_domain).
  const prot = area.pages.mmio ? (area.prot & ~Prot.CACHE) | Prot.MMIO : area.prot;
  let iova = Number(area.start);
  for (const run of area.pages.runs(area.startByte, area.length)) {
    for (let at = 0; at < run.length; at += step) {
      const bytes = Math.min(step, run.length - at);
      const error = domain.map(iova, run.pa + at, bytes, prot);
      if (error < 0) {
        unmapRange(domain, Number(area.start), iova - Number(area.start));
        return context.refusals.passOn(error, `the IOMMU driver could not map ${showSpan(area)}`);
      }
      iova += bytes;
    }
  }
  return 0;
}

/** Takes the area out of a domain's tables, and waits until no device can use it. */
export const unmapArea = (domain: IommuDomain, area: Area): void => {
  if (!area.pages.revoked) unmapRange(domain, Number(area.start), Number(area.length));
};

function unmapRange(domain: IommuDomain, iova: number, size: number): void {
  let done = 0;
  while (done < size) {
    const step = domain.unmap(iova + done, size - done);
    if (step === 0) break;
    done += step;
  }
  if (done > 0) domain.sync();
}
