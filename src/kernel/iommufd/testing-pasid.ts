/** Two bells with PASIDs behind an SMMU with substreams, and address spaces that map the same IOVA to pages of their own. */
import * as uapi from '../../uapi/iommufd.ts';
import { allocate } from './testing.ts';
import { CdevLab, type CdevLabOptions } from './testing-machine.ts';

export const IOVA = 0x10_0000;
const PAGE = 4096;
export const PASID_BITS = 4;

export class PasidLab extends CdevLab {
  /** The page of each IOAS that was made with `space`. */
  readonly memory;
  private pages = 0;
  private word = 0;

  constructor({ machine, bell, ...options }: CdevLabOptions & { readonly ssidBits?: number } = {}) {
    const smmu = { type: 'smmuv3' as const, base: 0x5200_0000, ssidBits: options.ssidBits ?? 8 };
    super('arm-its', { machine: { iommu: smmu, ...machine }, bell: { pasid: PASID_BITS, ...bell }, ...options });
    this.memory = allocate(this.client, 8 * PAGE);
  }

  /** An IOAS with a page table of these flags for device `dev`, which must be bound: both ids, and its page, the next one unless it is given. */
  space(flags: number = uapi.IOMMU_HWPT_ALLOC_PASID, dev = 1, page = this.pages) {
    const ioas = this.iommufd.ioas();
    this.pages = page + 1;
    const mapped = this.iommufd.mapAt(ioas, IOVA, this.memory.address + page * PAGE, PAGE);
    const hwpt = this.iommufd.hwpt(dev, ioas, flags);
    if (mapped !== 0 || typeof hwpt === 'string') throw new Error(`space: ${mapped} ${hwpt}`);
    return { ioas, hwpt, page };
  }

  /** The page that DMA of a device now reaches, -1: none. */
  reach(n: number, pasid: number | null = null): number {
    this.word += 1;
    const ok = this.dma(n, IOVA, this.word, pasid);
    const words = new DataView(this.memory.bytes.buffer, this.memory.bytes.byteOffset);
    const found = Array.from({ length: 8 }, (_, page) => page).filter(
      (page) => words.getUint32(page * PAGE, true) === this.word,
    );
    if (found.length > 1 || ok !== (found.length === 1)) throw new Error(`DMA ${ok}, and pages ${found}`);
    return found[0] ?? -1;
  }

  hwInfo(dev_id: number) {
    const answer = this.iommufd.call(uapi.IOMMU_GET_HW_INFO, uapi.iommu_hw_info, { dev_id });
    return { result: answer.result, bits: answer.out_max_pasid_log2, capabilities: answer.out_capabilities };
  }
}
