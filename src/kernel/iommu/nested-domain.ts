/** A stage 1 in user space's memory over a stage 2 of the kernel's: struct arm_smmu_nested_domain. */
import { getNumber } from '../../arch/bits.ts';
import { STE, SteConfig } from '../../arch/smmuv3/ste.ts';
import type { IommuDomain } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import type { PagingDomain } from './paging-domain.ts';

export class NestedDomain implements IommuDomain {
  readonly type = 'nested';
  /** Stage 2. */
  readonly parent: PagingDomain;
  /** The two words of a stream table entry that user space may say, checked. */
  readonly entry: readonly [bigint, bigint];
  readonly apertureStart = 0;
  readonly apertureEnd: number;
  readonly pageSizes: readonly number[] = [];
  private readonly context: KernelContext;

  constructor(context: KernelContext, parent: PagingDomain, entry: readonly [bigint, bigint]) {
    this.context = context;
    this.parent = parent;
    this.entry = entry;
    this.apertureEnd = parent.apertureEnd;
  }

  /** Is there a stage 1 at all? Else everything is refused, or passes to stage 2 as it is. */
  get translates(): boolean {
    return getNumber(this.entry, STE.V) === 1 && getNumber(this.entry, STE.Config) === SteConfig.S1;
  }

  map(): number {
    return this.context.refusals.refuse('EINVAL', 'user space owns the tables of this stage 1');
  }

  unmap(): number {
    return 0;
  }

  sync(): void {}

  /** What an IOVA means is in user space's tables, which the kernel does not read. */
  lookup(): number {
    return -1;
  }

  enforceCoherency(): boolean {
    return this.parent.enforceCoherency();
  }

  /** Nothing of it is the kernel's. */
  free(): void {}
}
