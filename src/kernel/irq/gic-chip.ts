/** The GIC as a chip of wired interrupts: irq-gic-v3.c (gic_chip, gic_dist_init, gic_cpu_init) and irq-gic.c for GICv2. */
import {
  affinityOf,
  distributorLines,
  GICD_CTLR,
  GICD_CTLR_ENABLE_GRP0,
  GICD_CTLR_ENABLE_GRP1,
  GICD_ICACTIVER,
  GICD_ICENABLER,
  GICD_ICFGR,
  GICD_IGROUPR,
  GICD_IPRIORITYR,
  GICD_IROUTER,
  GICD_ISENABLER,
  GICD_ITARGETSR,
  GICD_TYPER,
  GICR_STRIDE,
  GICR_WAKER,
  SPI_END,
  SPI_FIRST,
} from '../../arch/gic/index.ts';
import type { KernelContext } from '../context.ts';
import { IRQ_TYPE, type IrqChip, type IrqType } from './irq-chip.ts';

export interface GicChipOptions {
  readonly version: 2 | 3;
  /** Host-physical base of the distributor. */
  readonly distributor: number;
  /** GICv3: base of the first redistributor. */
  readonly redistributors?: number;
  readonly cpus: number;
}

/** GICD_INT_DEF_PRI in every byte. */
const DEFAULT_PRIORITY = 0xa0a0a0a0 | 0;

export class GicIrqChip implements IrqChip {
  readonly name: string;
  /** Interrupt ids are below this. */
  lines = 0;
  private readonly context: KernelContext;
  private readonly options: GicChipOptions;

  constructor(context: KernelContext, options: GicChipOptions) {
    this.context = context;
    this.options = options;
    this.name = options.version === 3 ? 'GICv3' : 'GICv2';
  }

  /** Every SPI disabled, level triggered and targeted at CPU 0; then the distributor on. */
  init(): void {
    const { version, cpus, redistributors } = this.options;
    this.write(GICD_CTLR, 0);
    this.lines = distributorLines(this.context.bus.read32(this.at(GICD_TYPER)));
    for (let intid = SPI_FIRST; intid < this.lines; intid += 32) {
      this.write(GICD_ICENABLER + intid / 8, -1);
      this.write(GICD_ICACTIVER + intid / 8, -1);
      if (version === 3) this.write(GICD_IGROUPR + intid / 8, -1);
    }
    for (let intid = SPI_FIRST; intid < this.lines; intid += 16) this.write(GICD_ICFGR + intid / 4, 0);
    for (let intid = SPI_FIRST; intid < this.lines; intid += 4) this.write(GICD_IPRIORITYR + intid, DEFAULT_PRIORITY);
    for (let intid = SPI_FIRST; intid < this.lines; intid++) this.setAffinity(intid, 0);
    this.write(GICD_CTLR, version === 3 ? GICD_CTLR_ENABLE_GRP1 : GICD_CTLR_ENABLE_GRP0);
    if (version === 2 || redistributors === undefined) return;
    // gic_enable_redist: out of sleep.
    for (let cpu = 0; cpu < cpus; cpu++) this.context.bus.write32(redistributors + cpu * GICR_STRIDE + GICR_WAKER, 0);
  }

  mask(hwirq: number): void {
    this.write(GICD_ICENABLER + (hwirq >>> 5) * 4, 1 << (hwirq & 31));
  }

  unmask(hwirq: number): void {
    this.write(GICD_ISENABLER + (hwirq >>> 5) * 4, 1 << (hwirq & 31));
  }

  setType(hwirq: number, type: IrqType): number {
    if (!this.isSpi(hwirq)) return this.refuse(hwirq);
    const offset = GICD_ICFGR + (hwirq >>> 4) * 4;
    const edge = 2 << ((hwirq & 15) * 2);
    const config = this.context.bus.read32(this.at(offset));
    this.write(offset, type === IRQ_TYPE.EDGE_RISING ? config | edge : config & ~edge);
    return 0;
  }

  setAffinity(hwirq: number, cpu: number): number {
    if (!this.isSpi(hwirq)) return this.refuse(hwirq);
    if (!(cpu >= 0 && cpu < this.options.cpus)) {
      return this.context.refusals.refuse('EINVAL', `there is no CPU ${cpu}`, 'cpu');
    }
    if (this.options.version === 3) this.write(GICD_IROUTER + hwirq * 8, affinityOf(cpu));
    else this.context.bus.write(this.at(GICD_ITARGETSR + hwirq), 1, 1 << cpu);
    return 0;
  }

  private isSpi(hwirq: number): boolean {
    return hwirq >= SPI_FIRST && hwirq < this.lines;
  }

  private refuse(hwirq: number): number {
    const last = Math.min(this.lines, SPI_END) - 1;
    return this.context.refusals.refuse('EINVAL', `interrupt ${hwirq} is no SPI (${SPI_FIRST} to ${last})`, 'hwirq');
  }

  private at(offset: number): number {
    return this.options.distributor + offset;
  }

  private write(offset: number, value: number): void {
    this.context.bus.write32(this.at(offset), value);
  }
}
