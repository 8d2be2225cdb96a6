/** GICD: the distributor's registers as a guest sees them (IHI 0069 12.9, IHI 0048 4.3; vgic-mmio-v2.c, vgic-mmio-v3.c). */
import type { IoDevice } from '../io-bus.ts';
import { readIrqRegisters, writeIrqRegisters } from './irq-registers.ts';
import type { Vgic } from './vgic.ts';
import type { VgicIrq } from './vgic-irq.ts';

const CTLR = 0x0;
const TYPER = 0x4;
const IIDR = 0x8;
const ITARGETSR = 0x800;
const SGIR = 0xf00;
const IROUTER = 0x6000;
const PIDR2 = 0xffe8;
/** KVM's: implementer Arm, product "K", implementation revision 3. */
const KVM_IIDR = 0x4b00_343b;

const V2_ENABLE = 1;
/** v3 with one security state: EnableGrp1, ARE and DS. */
const V3_ENABLE_GRP1 = 1 << 1;
const V3_ARE = 1 << 4;
const V3_DS = 1 << 6;

abstract class Distributor implements IoDevice {
  readonly name = 'GICD';
  protected readonly vgic: Vgic;

  constructor(vgic: Vgic) {
    this.vgic = vgic;
  }

  abstract read(offset: number, size: number, cpu: number): number;
  abstract write(offset: number, size: number, value: number, cpu: number): void;

  protected enable(enabled: boolean): void {
    if (this.vgic.enabled === enabled) return;
    this.vgic.enabled = enabled;
    this.vgic.refreshAll();
  }

  /** TYPER.ITLinesNumber: 32 interrupts for each. */
  protected get lines(): number {
    return ((this.vgic.nrSpis + 32) >> 5) - 1;
  }

  protected spi(intid: number): VgicIrq | undefined {
    return this.vgic.spis[intid - 32];
  }
}

/** Private interrupts are in the redistributors; SPIs are routed by affinity. */
export class DistributorV3 extends Distributor {
  private readonly bank = (intid: number): VgicIrq | undefined => this.spi(intid);

  read(offset: number, size: number): number {
    if (offset === CTLR) return (this.vgic.enabled ? V3_ENABLE_GRP1 : 0) | V3_ARE | V3_DS;
    if (offset === TYPER) {
      // IDbits, and LPIS with an ITS.
      return this.lines | (this.vgic.hasIts ? (15 << 19) | (1 << 17) : 9 << 19);
    }
    if (offset === IIDR) return KVM_IIDR;
    if (offset === PIDR2) return 0x30;
    if (offset >= IROUTER && offset < IROUTER + 1020 * 8) {
      return offset % 8 === 0 ? affinity(this.spi((offset - IROUTER) / 8)?.cpu?.index ?? 0) : 0;
    }
    return readIrqRegisters(this.bank, offset, size) ?? 0;
  }

  write(offset: number, size: number, value: number): void {
    if (offset === CTLR) this.enable((value & V3_ENABLE_GRP1) !== 0);
    else if (offset >= IROUTER && offset < IROUTER + 1020 * 8) {
      if (offset % 8 === 0) this.spi((offset - IROUTER) / 8)?.retarget(this.vgic.cpus[fromAffinity(value)] ?? null);
    } else writeIrqRegisters(this.bank, offset, size, value);
  }
}

/** Private interrupts are banked here by CPU; SPIs have a target mask of up to eight CPUs. */
export class DistributorV2 extends Distributor {
  read(offset: number, size: number, cpu: number): number {
    if (offset === CTLR) return this.vgic.enabled ? V2_ENABLE : 0;
    if (offset === TYPER) return this.lines | ((this.vgic.cpus.length - 1) << 5);
    if (offset === IIDR) return KVM_IIDR;
    if (offset >= ITARGETSR && offset < ITARGETSR + 1020) return this.targets(offset - ITARGETSR, size, cpu);
    return readIrqRegisters((intid) => this.banked(intid, cpu), offset, size) ?? 0;
  }

  write(offset: number, size: number, value: number, cpu: number): void {
    if (offset === CTLR) this.enable((value & V2_ENABLE) !== 0);
    else if (offset === SGIR) this.softwareInterrupt(value, cpu);
    else if (offset >= ITARGETSR && offset < ITARGETSR + 1020) {
      for (let i = 0; i < size; i += 1) this.target(offset - ITARGETSR + i, (value >>> (8 * i)) & 0xff);
    } else writeIrqRegisters((intid) => this.banked(intid, cpu), offset, size, value);
  }

  private banked(intid: number, cpu: number): VgicIrq | undefined {
    return intid < 32 ? this.vgic.cpus[cpu]?.privates[intid] : this.spi(intid);
  }

  private targets(intid: number, size: number, cpu: number): number {
    let value = 0;
    for (let i = 0; i < size; i += 1) {
      const to = intid + i < 32 ? cpu : this.spi(intid + i)?.cpu?.index;
      if (to !== undefined) value += 2 ** (8 * i + to);
    }
    return value;
  }

  /** The lowest CPU of the mask takes the interrupt, as in KVM. */
  private target(intid: number, mask: number): void {
    const lowest = mask === 0 ? -1 : 31 - Math.clz32(mask & -mask);
    this.spi(intid)?.retarget(this.vgic.cpus[lowest] ?? null);
  }

  private softwareInterrupt(value: number, cpu: number): void {
    const filter = (value >>> 24) & 3;
    for (const { index, privates } of this.vgic.cpus) {
      const listed = ((value >>> 16) & (1 << index)) !== 0;
      if (filter === 0 ? listed : filter === 1 ? index !== cpu : index === cpu) privates[value & 0xf].raise();
    }
  }
}

/** Aff0 counts to 16, the rest is in Aff1 (kvm's reset value of MPIDR). */
export const affinity = (index: number): number => ((index >> 4) << 8) | (index & 0xf);
const fromAffinity = (value: number): number => ((value >>> 8) & 0xff) * 16 + (value & 0xf);
