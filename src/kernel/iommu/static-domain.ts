/** Domains without tables: everything passes unchanged, or nothing passes. */
import type { IommuDomain } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';

export class StaticDomain implements IommuDomain {
  readonly type: 'identity' | 'blocked';
  readonly apertureStart = 0;
  readonly apertureEnd: number;
  readonly pageSizes: readonly number[] = [];
  private readonly context: KernelContext;

  constructor(context: KernelContext, type: 'identity' | 'blocked', apertureEnd: number) {
    this.context = context;
    this.type = type;
    this.apertureEnd = apertureEnd;
  }

  map(): number {
    return this.context.refusals.refuse('EINVAL', `a domain of type ${this.type} has no page tables`);
  }

  unmap(): number {
    return 0;
  }

  sync(): void {}

  lookup(iova: number): number {
    return this.type === 'identity' ? iova : -1;
  }

  enforceCoherency(): boolean {
    return false;
  }

  /** It belongs to the driver and lives as long. */
  free(): void {}
}
