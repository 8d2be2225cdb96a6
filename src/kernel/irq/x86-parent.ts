/**
 * MSIs straight to a CPU's vector, without interrupt remapping (arch/x86/kernel/apic/msi.c). The address range is a platform's reserved one
 * that no IOMMU translates: nothing is ever prepared. Any device can send any vector to any CPU: not isolated.
 */
import { compatibilityAddress, intidCpu, intidVector, MSI_RANGE_BASE, MSI_RANGE_SIZE } from '../../arch/x86/index.ts';
import type { DoorbellPage } from '../../ports/bus.ts';
import type { KernelContext } from '../context.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { MsiDesc, MsiMessage } from './msi-desc.ts';
import type { MsiParent, PrepareMsi } from './msi-parent.ts';
import type { X86Vectors } from './x86-vectors.ts';

export class X86MsiParent implements MsiParent {
  readonly name = 'x86-vector';
  readonly isolated = false;
  readonly msix = true;
  /** One address and one vector number for all messages would need the same vector block on one CPU. */
  readonly multiMsi = false;
  readonly dynamicMsix = true;
  readonly doorbells: readonly DoorbellPage[] = [
    { base: MSI_RANGE_BASE, size: MSI_RANGE_SIZE, register: 0, isolated: false },
  ];
  private readonly context: KernelContext;
  private readonly vectors: X86Vectors;

  constructor(context: KernelContext, vectors: X86Vectors) {
    this.context = context;
    this.vectors = vectors;
  }

  prepareDevice(_dev: PciDev, _vectors: number): number {
    return 0;
  }
  releaseDevice(_dev: PciDev): void {}

  /** EINVAL: several messages of plain MSI. ENOSPC: no vector is left on any CPU. */
  allocate(dev: PciDev, descs: readonly MsiDesc[], _prepare: PrepareMsi): number {
    if (descs.length > 1 && descs[0]?.msix === false) {
      const why = `${descs.length} messages of plain MSI need interrupt remapping, which is off`;
      return this.context.refusals.refuse('EINVAL', why, 'count');
    }
    for (const [k, desc] of descs.entries()) {
      const intid = this.vectors.allocate();
      if (intid < 0) {
        this.free(dev, descs.slice(0, k));
        return refuseVectors(this.context, this.vectors);
      }
      desc.hwirq = intid;
    }
    return 0;
  }

  free(_dev: PciDev, descs: readonly MsiDesc[]): void {
    for (const desc of descs) this.vectors.release(desc.hwirq);
  }

  activate(_desc: MsiDesc): void {}
  deactivate(_desc: MsiDesc): void {}

  /** x86_vector_msi_compose_msg. */
  compose(desc: MsiDesc, into: MsiMessage): void {
    into.addressHi = 0;
    into.addressLo = compatibilityAddress(intidCpu(desc.hwirq)) | 0;
    into.data = intidVector(desc.hwirq);
  }

  /** A local APIC cannot mask one vector: the function's own mask bits do it. */
  mask(_desc: MsiDesc): void {}
  unmask(_desc: MsiDesc): void {}
}

export function refuseVectors(context: KernelContext, vectors: X86Vectors): number {
  return context.refusals.refuse('ENOSPC', `every vector of all ${vectors.cpus} CPUs is in use`, 'count');
}
