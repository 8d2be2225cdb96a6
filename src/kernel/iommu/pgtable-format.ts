/** What a page table looks like, apart from who owns it: Arm LPAE stage 1 and 2, and VT-d's second level, in one description. */
import { type Halves, stage1Attributes, stage2Attributes } from '../../arch/lpae/descriptor.ts';
import {
  allowsBlock,
  type Geometry,
  levelShift,
  pageSizesOf,
  stage1Geometry,
  stage2Geometry,
} from '../../arch/lpae/geometry.ts';
import { Prot } from '../../ports/iommu.ts';

/** Levels count as Arm's: the pages stand at level 3, whatever the first level is. */
export interface PageTableFormat {
  /** `ARM_64_LPAE_S1`, `ARM_64_LPAE_S2`, `INTEL_IOMMU_SL`. */
  readonly name: string;
  readonly granuleShift: number;
  readonly levelBits: number;
  readonly startLevel: number;
  readonly startBits: number;
  /** Bits of input and output addresses. */
  readonly inputBits: number;
  readonly outputBits: number;
  /** Page and block sizes in bytes, smallest first. */
  readonly pageSizes: readonly number[];
  /** Low half: any of these bits makes an entry present. */
  readonly presentMask: number;
  /** Low half of an entry above level 3: a block when (entry & mask) === value. */
  readonly blockMask: number;
  readonly blockValue: number;
  /** Low bits of a table descriptor, of a page, of a block. */
  readonly tableBits: number;
  readonly pageBits: number;
  readonly blockBits: number;
  /** Everything of a leaf but its type and address, from the bits of Prot. */
  readonly attributes: (prot: number) => Halves;
}

const lpaeProt = (prot: number) => ({
  read: (prot & Prot.READ) !== 0,
  write: (prot & Prot.WRITE) !== 0,
  cache: (prot & Prot.CACHE) !== 0,
  noexec: (prot & Prot.NOEXEC) !== 0,
  mmio: (prot & Prot.MMIO) !== 0,
});

/** Arm LPAE as io-pgtable-arm.c lays it out. `inputBits` up to 48; `dirty` is IO_PGTABLE_QUIRK_ARM_HD, of a stage 1. */
export function lpaeFormat(
  stage: 1 | 2,
  granuleShift: number,
  inputBits: number,
  outputBits: number,
  dirty = false,
): PageTableFormat {
  const geometry: Geometry =
    stage === 1 ? stage1Geometry(granuleShift, inputBits) : stage2Geometry(granuleShift, inputBits);
  return {
    ...geometry,
    name: `ARM_64_LPAE_S${stage}`,
    outputBits,
    pageSizes: pageSizesOf(granuleShift).filter((size) => size < 2 ** inputBits && fits(geometry, size)),
    presentMask: 1,
    blockMask: 2,
    blockValue: 0,
    tableBits: 3,
    pageBits: 3,
    blockBits: 1,
    attributes: (prot) => (stage === 1 ? stage1Attributes(lpaeProt(prot), dirty) : stage2Attributes(lpaeProt(prot))),
  };
}

/** A block exists only at a level that the table has. */
const fits = (geometry: Geometry, size: number): boolean => {
  for (let level = geometry.startLevel; level <= 3; level++) {
    const isLeaf = level === 3 || allowsBlock(geometry.granuleShift, level);
    if (isLeaf && size === 2 ** levelShift(geometry.granuleShift, level)) return true;
  }
  return false;
};

/**
 * The granule that Linux chooses: the kernel's page if the SMMU has it, else the largest below it, else the smallest
 * above (io-pgtable-arm.c arm_lpae_restrict_pgsizes).
 */
export function chooseGranule(supported: readonly number[], pageSize: number): number {
  const sorted = [...supported].sort((a, b) => a - b);
  if (sorted.includes(pageSize)) return pageSize;
  return sorted.filter((size) => size < pageSize).pop() ?? sorted[0];
}
