/**
 * GICv2m frames as the parent of PCI MSI domains (irq-gic-v2m.c). The message's data is the SPI, and the frame believes any writer:
 * the domain is not isolated.
 */
import {
  SPI_END,
  SPI_FIRST,
  V2M_MSI_SETSPI_NS,
  V2M_MSI_TYPER,
  V2M_SIZE,
  v2mTypeBase,
  v2mTypeCount,
} from '../../arch/gic/index.ts';
import { hex } from '../../ports/address.ts';
import type { DoorbellPage } from '../../ports/bus.ts';
import type { KernelContext } from '../context.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { GicIrqChip } from './gic-chip.ts';
import { IRQ_TYPE } from './irq-chip.ts';
import type { MsiDesc, MsiMessage } from './msi-desc.ts';
import { type MsiParent, type PrepareMsi, setMessageAddress } from './msi-parent.ts';
import { countOrder, RegionBitmap } from './region-bitmap.ts';

/** Linux's struct v2m_data. */
interface Frame {
  readonly base: number;
  readonly spiStart: number;
  readonly spis: RegionBitmap;
}

export class GicV2mMsiParent implements MsiParent {
  readonly name = 'GICv2m';
  readonly isolated = false;
  readonly msix = true;
  readonly multiMsi = true;
  readonly dynamicMsix = false;
  private readonly context: KernelContext;
  private readonly chip: GicIrqChip;
  private readonly frames: Frame[] = [];

  constructor(context: KernelContext, chip: GicIrqChip) {
    this.context = context;
    this.chip = chip;
  }

  get doorbells(): readonly DoorbellPage[] {
    return this.frames.map(({ base }) => ({ base, size: V2M_SIZE, register: V2M_MSI_SETSPI_NS, isolated: false }));
  }

  /** gicv2m_init_one: a frame whose MSI_TYPER says which SPIs it has. 0, or EINVAL when they are not SPIs. */
  addFrame(base: number): number {
    const typer = this.context.bus.read32(base + V2M_MSI_TYPER);
    const spiStart = v2mTypeBase(typer);
    const count = v2mTypeCount(typer);
    if (spiStart < SPI_FIRST || count === 0 || spiStart + count > SPI_END) {
      return this.context.refusals.refuse(
        'EINVAL',
        `the frame at ${hex(base)} has ${count} SPIs from ${spiStart} on, and SPIs are ${SPI_FIRST} to ${SPI_END - 1}`,
      );
    }
    this.frames.push({ base, spiStart, spis: new RegionBitmap(count) });
    return 0;
  }

  prepareDevice(_dev: PciDev, _vectors: number): number {
    return 0;
  }

  releaseDevice(_dev: PciDev): void {}

  /** gicv2m_irq_domain_alloc. SPIs whose `prepare` failed stay taken, as in Linux 7.2. */
  allocate(dev: PciDev, descs: readonly MsiDesc[], prepare: PrepareMsi): number {
    if (descs[0] === undefined) return 0;
    if (!descs[0].msix) return this.allocateBlock(descs, prepare);
    for (let k = 0; k < descs.length; k++) {
      const error = this.allocateBlock(descs.slice(k, k + 1), prepare);
      if (error < 0) {
        this.free(dev, descs.slice(0, k));
        return error;
      }
    }
    return 0;
  }

  /** gicv2m_unalloc_msi. */
  free(_dev: PciDev, descs: readonly MsiDesc[]): void {
    const first = descs[0];
    if (first === undefined) return;
    if (first.msix) for (const desc of descs) this.release(desc.hwirq, 1);
    else this.release(Math.min(...descs.map((desc) => desc.hwirq)), descs.length);
  }

  activate(_desc: MsiDesc): void {}

  deactivate(desc: MsiDesc): void {
    this.chip.mask(desc.hwirq);
  }

  compose(desc: MsiDesc, into: MsiMessage): void {
    setMessageAddress(desc, this.frameOf(desc.hwirq).base + V2M_MSI_SETSPI_NS, into);
    into.data = desc.hwirq;
  }

  mask(desc: MsiDesc): void {
    this.chip.mask(desc.hwirq);
  }

  unmask(desc: MsiDesc): void {
    this.chip.unmask(desc.hwirq);
  }

  /** The SPI's target; the message stays as it is. 0 or -EINVAL. */
  setAffinity(desc: MsiDesc, cpu: number): number {
    return this.chip.setAffinity(desc.hwirq, cpu);
  }

  private allocateBlock(descs: readonly MsiDesc[], prepare: PrepareMsi): number {
    const order = countOrder(descs.length);
    for (const frame of this.frames) {
      const offset = frame.spis.take(order);
      if (offset < 0) continue;
      for (const [k, desc] of descs.entries()) {
        const error = prepare(desc, frame.base + V2M_MSI_SETSPI_NS);
        if (error < 0) return error;
        desc.hwirq = frame.spiStart + offset + k;
        this.chip.setType(desc.hwirq, IRQ_TYPE.EDGE_RISING);
      }
      return 0;
    }
    const used = this.frames.reduce((sum, frame) => sum + frame.spis.used, 0);
    const all = this.frames.reduce((sum, frame) => sum + frame.spis.size, 0);
    return this.context.refusals.refuse(
      'ENOSPC',
      `no ${2 ** order} free SPIs in a row: ${used} of ${all} are in use`,
      'count',
    );
  }

  private release(spi: number, count: number): void {
    const frame = this.frameOf(spi);
    frame.spis.release(spi - frame.spiStart, countOrder(count));
  }

  private frameOf(spi: number): Frame {
    const frame = this.frames.find(({ spiStart, spis }) => spi >= spiStart && spi < spiStart + spis.size);
    if (frame === undefined) throw new Error(`SPI ${spi} belongs to no GICv2m frame; its vector was not allocated`);
    return frame;
  }
}
