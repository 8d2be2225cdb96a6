/** GICR: a CPU's redistributor, 64 KiB of control and LPI registers and 64 KiB of private interrupts (IHI 0069 12.11). */
import type { IoDevice } from '../io-bus.ts';
import { affinity } from './distributor.ts';
import { readIrqRegisters, writeIrqRegisters } from './irq-registers.ts';
import type { Vgic } from './vgic.ts';
import type { VgicCpu } from './vgic-cpu.ts';
import { GIC_LPI_OFFSET, type VgicIrq } from './vgic-irq.ts';

const CTLR = 0x0;
const IIDR = 0x4;
const TYPER = 0x8;
const PROPBASER = 0x70;
const PENDBASER = 0x78;
const PIDR2 = 0xffe8;
const SGI_FRAME = 0x1_0000;
const ENABLE_LPIS = 1;
const PTZ = 1n << 62n;

export class Redistributor implements IoDevice {
  readonly name = 'GICR';
  private readonly vgic: Vgic;
  private readonly cpu: VgicCpu;
  private readonly last: boolean;
  private readonly bank = (intid: number): VgicIrq | undefined => this.cpu.privates[intid];

  constructor(vgic: Vgic, cpu: VgicCpu, last: boolean) {
    this.vgic = vgic;
    this.cpu = cpu;
    this.last = last;
  }

  read(offset: number, size: number): number {
    if (offset >= SGI_FRAME) return readIrqRegisters(this.bank, offset - SGI_FRAME, size) ?? 0;
    switch (offset) {
      case CTLR:
        return this.cpu.lpisEnabled ? ENABLE_LPIS : 0;
      case IIDR:
        return 0x4b00_343b;
      case TYPER:
        return (this.cpu.index << 8) | (this.last ? 1 << 4 : 0) | (this.vgic.hasIts ? 1 : 0);
      case TYPER + 4:
        return affinity(this.cpu.index);
      case PROPBASER:
      case PROPBASER + 4:
        return half(this.vgic.propbaser, offset - PROPBASER);
      case PENDBASER:
      case PENDBASER + 4:
        return half(this.cpu.pendbaser & ~PTZ, offset - PENDBASER);
      case PIDR2:
        return 0x30;
      default:
        return 0;
    }
  }

  write(offset: number, size: number, value: number): void {
    if (offset >= SGI_FRAME) {
      writeIrqRegisters(this.bank, offset - SGI_FRAME, size, value);
      return;
    }
    if (offset === CTLR) {
      if (this.vgic.hasIts) this.enableLpis((value & ENABLE_LPIS) !== 0);
      return;
    }
    // Both are fixed while LPIs are enabled.
    if (this.cpu.lpisEnabled) return;
    if (offset === PROPBASER || offset === PROPBASER + 4) {
      this.vgic.propbaser = withHalf(this.vgic.propbaser, offset - PROPBASER, value);
    } else if (offset === PENDBASER || offset === PENDBASER + 4) {
      this.cpu.pendbaser = withHalf(this.cpu.pendbaser, offset - PENDBASER, value);
    }
  }

  /** vgic_mmio_write_v3r_ctlr: off loses what is pending, on reads the pending table. */
  private enableLpis(enabled: boolean): void {
    if (enabled === this.cpu.lpisEnabled) return;
    this.cpu.lpisEnabled = enabled;
    if (enabled) this.readPendingTable();
    else {
      for (const irq of this.vgic.lpis.values()) if (irq.cpu === this.cpu) irq.clear();
      this.vgic.invalidate();
    }
  }

  private readPendingTable(): void {
    const base = Number(this.cpu.pendbaser & 0xf_ffff_ffff_0000n);
    for (const irq of this.vgic.lpis.values()) {
      if (irq.cpu !== this.cpu || irq.intid < GIC_LPI_OFFSET) continue;
      const byte = this.vgic.vm.memory.readByte(base + (irq.intid >> 3)) ?? 0;
      if ((byte & (1 << (irq.intid & 7))) !== 0) irq.raise();
    }
  }
}

/** The low (offset 0) or high (offset 4) half of a 64-bit register, unsigned. */
export const half = (value: bigint, offset: number): number => Number((value >> BigInt(offset * 8)) & 0xffff_ffffn);

/** A 64-bit register with one half replaced. */
export function withHalf(value: bigint, offset: number, part: number): bigint {
  const shift = BigInt(offset * 8);
  return (value & ~(0xffff_ffffn << shift)) | (BigInt(part >>> 0) << shift);
}
