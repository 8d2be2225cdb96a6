/** VFIO_IRQ_SET_ACTION_PREPARE as posted for Linux: a nested device's owner names each vector's stage-1 address, and maps it itself. */
import type { KernelContext } from '../context.ts';
import { msiCookie } from '../irq/msi-cookie.ts';
import type { MsiDesc } from '../irq/msi-desc.ts';
import type { MsiMode } from '../irq/pci-irqs.ts';
import type { PciDev } from '../pci/pci-dev.ts';

/** What the posts keep for a vector without an address. */
const UNSET = 2n ** 64n - 1n;
/** The widest stage 1 (IHI 0070 3.4.1, 52 bits). */
const REACH = 2n ** 52n;

export class Stage1Doorbells {
  private readonly context: KernelContext;
  private readonly given = { msi: new Map<number, number>(), msix: new Map<number, number>() };

  constructor(context: KernelContext) {
    this.context = context;
  }

  /**
   * Vectors [start, start + iovas.length) are programmed with these stage-1 addresses at their next allocation. The low bits are the physical
   * doorbell's, whatever an address says there; one of all ones un-sets. 0, or -EINVAL for an address that no format of stage 1 can hold.
   */
  set(mode: MsiMode, start: number, iovas: readonly bigint[]): number {
    const wrong = iovas.findIndex((iova) => iova >= REACH && iova !== UNSET);
    if (wrong >= 0) {
      const why = `vector ${start + wrong}: stage-1 iova 0x${iovas[wrong]!.toString(16)} is not below 2^52`;
      return this.context.refusals.refuse('EINVAL', why, 'data');
    }
    const page = BigInt(this.context.pageSize);
    for (const [i, iova] of iovas.entries()) {
      if (iova === UNSET) this.given[mode].delete(start + i);
      else this.given[mode].set(start + i, Number(iova - (iova % page)));
    }
    return 0;
  }

  /** Vectors [start, start + count) get the window's page at their next allocation. Always 0. */
  unset(mode: MsiMode, start: number, count: number): number {
    const given = this.given[mode];
    for (const vector of [...given.keys()]) if (vector >= start && vector - start < count) given.delete(vector);
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
