/**
 * MSIs through VT-d's interrupt remapping (drivers/iommu/intel/irq_remapping.c). The message names an entry of the table, and the entry
 * says vector, CPU and who may send it: isolated. The address carries the handle, so that every MSI-X vector has an address of its own; the
 * messages of plain MSI share one, and their number in the data is added to the handle (SHV).
 */
import { intidCpu, intidVector, MSI_RANGE_BASE, MSI_RANGE_SIZE, remappableAddress } from '../../arch/x86/index.ts';
import type { DoorbellPage } from '../../ports/bus.ts';
import type { KernelContext } from '../context.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { MsiDesc, MsiMessage } from './msi-desc.ts';
import type { MsiParent, PrepareMsi } from './msi-parent.ts';
import { countOrder } from './region-bitmap.ts';
import type { IrTable } from './x86-ir-table.ts';
import { refuseVectors } from './x86-parent.ts';
import type { X86Vectors } from './x86-vectors.ts';

/** struct irq_2_iommu. */
interface Entry {
  readonly handle: number;
  /** Added by the sender's data. */
  readonly subHandle: number;
}

export class IntelIrMsiParent implements MsiParent {
  readonly name = 'INTEL-IR';
  readonly isolated = true;
  readonly msix = true;
  readonly multiMsi = true;
  readonly dynamicMsix = true;
  readonly doorbells: readonly DoorbellPage[] = [
    { base: MSI_RANGE_BASE, size: MSI_RANGE_SIZE, register: 0, isolated: true },
  ];
  private readonly context: KernelContext;
  private readonly vectors: X86Vectors;
  private readonly table: IrTable;
  private readonly entries = new Map<MsiDesc, Entry>();

  /** `table` has been initialised. */
  constructor(context: KernelContext, vectors: X86Vectors, table: IrTable) {
    this.context = context;
    this.vectors = vectors;
    this.table = table;
  }

  prepareDevice(_dev: PciDev, _vectors: number): number {
    return 0;
  }
  releaseDevice(_dev: PciDev): void {}

  /** intel_irq_remapping_alloc. ENOSPC: no entries in a row, or no vector on any CPU. */
  allocate(dev: PciDev, descs: readonly MsiDesc[], _prepare: PrepareMsi): number {
    const first = descs[0];
    if (first === undefined) return 0;
    const blocks = first.msix ? descs.map((desc) => [desc]) : [descs];
    for (const [k, block] of blocks.entries()) {
      const error = this.allocateBlock(block);
      if (error < 0) {
        this.free(dev, descs.slice(0, k));
        return error;
      }
    }
    return 0;
  }

  free(_dev: PciDev, descs: readonly MsiDesc[]): void {
    const first = descs[0];
    if (first === undefined) return;
    const order = first.msix ? 0 : countOrder(descs.length);
    for (const desc of descs) {
      const entry = this.entries.get(desc);
      if (entry === undefined) continue;
      if (entry.subHandle === 0) this.table.handles.release(entry.handle, order);
      this.entries.delete(desc);
      this.vectors.release(desc.hwirq);
    }
  }

  /** intel_irq_remapping_activate. */
  activate(desc: MsiDesc): void {
    this.table.write(this.indexOf(desc), {
      vector: intidVector(desc.hwirq),
      apicId: intidCpu(desc.hwirq),
      requester: desc.dev.requester,
    });
  }

  deactivate(desc: MsiDesc): void {
    this.table.clear(this.indexOf(desc));
  }

  /** fill_msi_msg: handle in the address, SHV always set, subhandle as data. */
  compose(desc: MsiDesc, into: MsiMessage): void {
    const { handle, subHandle } = this.entryOf(desc);
    into.addressHi = 0;
    into.addressLo = remappableAddress(handle, true) | 0;
    into.data = subHandle;
  }

  /** A local APIC cannot mask one vector: the function's own mask bits do it. */
  mask(_desc: MsiDesc): void {}
  unmask(_desc: MsiDesc): void {}

  /** The vector's entry in the table. */
  indexOf(desc: MsiDesc): number {
    const { handle, subHandle } = this.entryOf(desc);
    return handle + subHandle;
  }

  private allocateBlock(block: readonly MsiDesc[]): number {
    const order = countOrder(block.length);
    const handle = this.table.handles.take(order);
    if (handle < 0) {
      const { used, size } = this.table.handles;
      const why = `no ${2 ** order} free remapping entries in a row: ${used} of ${size} are in use`;
      return this.context.refusals.refuse('ENOSPC', why, 'count');
    }
    for (const [k, desc] of block.entries()) {
      const intid = this.vectors.allocate();
      if (intid < 0) {
        for (const done of block.slice(0, k)) {
          this.entries.delete(done);
          this.vectors.release(done.hwirq);
        }
        this.table.handles.release(handle, order);
        return refuseVectors(this.context, this.vectors);
      }
      desc.hwirq = intid;
      this.entries.set(desc, { handle, subHandle: k });
    }
    return 0;
  }

  private entryOf(desc: MsiDesc): Entry {
    const entry = this.entries.get(desc);
    if (entry === undefined) throw new Error(`vector ${desc.index} of ${desc.dev.name} has no remapping entry`);
    return entry;
  }
}
