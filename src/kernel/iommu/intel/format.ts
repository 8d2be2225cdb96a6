/** VT-d's second-level tables as a page table format: three or four levels of 512 entries, pages of 4 KiB, 2 MiB and 1 GiB. */
import { SL_PAGE_SIZE, SL_READ, SL_WRITE } from '../../../arch/vtd/tables.ts';
import { Prot } from '../../../ports/iommu.ts';
import type { PageTableFormat } from '../pgtable-format.ts';

/** `addressWidth` 39 or 48. */
export function secondLevelFormat(addressWidth: number): PageTableFormat {
  return {
    name: 'INTEL_IOMMU_SL',
    granuleShift: 12,
    levelBits: 9,
    startLevel: addressWidth === 48 ? 0 : 1,
    startBits: 9,
    inputBits: addressWidth,
    outputBits: 48,
    pageSizes: [0x1000, 0x20_0000, 0x4000_0000],
    presentMask: SL_READ | SL_WRITE,
    blockMask: SL_PAGE_SIZE,
    blockValue: SL_PAGE_SIZE,
    tableBits: SL_READ | SL_WRITE,
    pageBits: 0,
    blockBits: SL_PAGE_SIZE,
    attributes: (prot) => ({
      lo: ((prot & Prot.READ) !== 0 ? SL_READ : 0) | ((prot & Prot.WRITE) !== 0 ? SL_WRITE : 0),
      hi: 0,
    }),
  };
}
