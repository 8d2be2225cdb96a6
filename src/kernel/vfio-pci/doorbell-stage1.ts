/** VFIO_IRQ_SET_ACTION_PREPARE as posted for Linux: a nested device's owner names each vector's stage-1 address, and maps it itself. */
import type { KernelContext } from '../context.ts';
import { msiCookie } from '../irq/msi-cookie.ts';
import type { MsiDesc } from '../irq/msi-desc.ts';
import type { MsiMode } from '../irq/pci-irqs.ts';
import type { PciDev } from '../pci/pci-dev.ts';

export class Stage1Doorbells {
  private readonly context: KernelContext;
  private readonly given = { msi: new Map<number, number>(), msix: new Map<number, number>() };

  constructor(context: KernelContext) {
    this.context = context;
  }

  /**
   * Vectors [start, start + iovas.length) are programmed with these stage-1 pages at their next enable; null un-sets them all. 0 or -EINVAL: an
   * address that is no multiple of the page (the low bits are the physical doorbell's), or one that no format can hold.
   */
  set(mode: MsiMode, start: number, iovas: readonly bigint[] | null): number {
    if (iovas === null) {
      this.given[mode].clear();
      return 0;
    }
    const page = BigInt(this.context.pageSize);
    const wrong = iovas.findIndex((iova) => iova % page !== 0n || iova >= 2n ** 52n);
    if (wrong >= 0) {
      const why = `vector ${start + wrong}: stage-1 iova 0x${iovas[wrong]!.toString(16)} is no page of 0x${page.toString(16)} below 2^52`;
      return this.context.refusals.refuse('EINVAL', why, 'data');
    }
    for (const [i, iova] of iovas.entries()) this.given[mode].set(start + i, Number(iova));
    return 0;
  }

  /** Installs the physical doorbell in stage 2 as always, then names the stage-1 page. null: this vector has none. */
  prepare(dev: PciDev, desc: MsiDesc, doorbell: number): number | null {
    const iova = this.given[desc.msix ? 'msix' : 'msi'].get(desc.index);
    const domain = dev.iommuGroup?.domain;
    if (iova === undefined || domain?.type !== 'nested') return null;
    const error = msiCookie(domain)?.prepare(desc, doorbell) ?? 0;
    if (error < 0) return error;
    desc.doorbellIova = iova;
    desc.doorbellShift = Math.log2(this.context.pageSize);
    return 0;
  }

  clear(): void {
    this.given.msi.clear();
    this.given.msix.clear();
  }
}
