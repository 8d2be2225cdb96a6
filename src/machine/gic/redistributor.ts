/**
 * One CPU's redistributor: the registers that matter to LPIs, and its view of the two LPI tables in memory. Private
 * interrupts (0 to 31) have no source in these machines; their registers hold what is written.
 */
import {
  affinityOf,
  GIC_PIDR2_ARCH_GICv3,
  GICR_CTLR,
  GICR_CTLR_ENABLE_LPIS,
  GICR_IIDR,
  GICR_PENDBASER,
  GICR_PENDBASER_PTZ_HI,
  GICR_PIDR2,
  GICR_PROPBASER,
  GICR_SGI_BASE,
  GICR_STRIDE,
  GICR_TYPER,
  GICR_WAKER,
  GICR_WAKER_ChildrenAsleep,
  GICR_WAKER_ProcessorSleep,
  LPI_FIRST,
  LPI_PROP_ENABLED,
  pendBaseAddress,
  propBaseAddress,
  propBaseIdBits,
  redistributorType,
} from '../../arch/gic/index.ts';
import { highHalf } from '../../ports/address.ts';
import type { MmioTarget } from '../../ports/bus.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';

/** JEDEC implementer 0x43b (Arm), as software expects of a GIC. */
export const ARM_IIDR = 0x0000_043b;

/** What a redistributor tells the rest of the GIC. */
export interface RedistributorOwner {
  /** EnableLPIs changed: whatever was cached of this CPU's LPIs is void; pending ones may fire. */
  lpisSwitched(redistributor: Redistributor): void;
}

export class Redistributor implements MmioTarget {
  readonly name: string;
  readonly cpu: number;
  readonly size = GICR_STRIDE;
  readonly affinity: number;
  /** GICR_CTLR.EnableLPIs. */
  enabled = false;
  /** LPIs are below this: the smaller of PROPBASER.IDbits and the distributor's. */
  limit = 0;
  /** Bits that are set in the pending table because of a message of ours. */
  pendingCount = 0;
  /** Set when EnableLPIs went up without PTZ: the table may hold bits that software left there. */
  restored = false;
  private readonly memory: PhysicalMemory;
  private readonly owner: RedistributorOwner;
  private readonly idBits: number;
  private readonly last: boolean;
  private waker = GICR_WAKER_ProcessorSleep | GICR_WAKER_ChildrenAsleep;
  private propLo = 0;
  private propHi = 0;
  private pendLo = 0;
  private pendHi = 0;
  /** Address of LPI 0's property byte (the table starts at LPI 8192), and of the pending table. */
  private properties = 0;
  private pending = 0;
  private readonly privateWords = new Map<number, number>();

  constructor(memory: PhysicalMemory, owner: RedistributorOwner, cpu: number, last: boolean, idBits: number) {
    this.memory = memory;
    this.owner = owner;
    this.cpu = cpu;
    this.last = last;
    this.idBits = idBits;
    this.affinity = affinityOf(cpu);
    this.name = `GICR${cpu}`;
  }

  /** The LPI's property byte, or -1 when the table's byte is not memory. */
  property(lpi: number): number {
    const pa = this.properties + lpi;
    if (!this.memory.locate(highHalf(pa), pa | 0)) return -1;
    return (this.memory.words[this.memory.at + ((pa >>> 2) & 1)] >>> ((pa & 3) << 3)) & 0xff;
  }

  isEnabled(lpi: number): boolean {
    const byte = this.property(lpi);
    return byte >= 0 && (byte & LPI_PROP_ENABLED) !== 0;
  }

  isPending(lpi: number): boolean {
    const pa = this.pending + (lpi >>> 5) * 4;
    if (!this.memory.locate(highHalf(pa), pa | 0)) return false;
    return (this.memory.words[this.memory.at + ((pa >>> 2) & 1)] & (1 << (lpi & 31))) !== 0;
  }

  /** Writes the LPI's bit of the pending table; false when it is not memory. */
  setPending(lpi: number, on: boolean): boolean {
    const pa = this.pending + (lpi >>> 5) * 4;
    const { memory } = this;
    if (!memory.locate(highHalf(pa), pa | 0)) return false;
    const word = memory.words[memory.at + ((pa >>> 2) & 1)];
    const bit = 1 << (lpi & 31);
    if (!memory.write32(pa, on ? word | bit : word & ~bit)) return false;
    this.pendingCount += on ? 1 : -1;
    return true;
  }

  /** All LPIs whose pending bit is set, lowest first. */
  pendingLpis(): number[] {
    const found: number[] = [];
    for (let lpi = LPI_FIRST; lpi < this.limit; lpi += 32) {
      const pa = this.pending + (lpi >>> 5) * 4;
      if (!this.memory.locate(highHalf(pa), pa | 0)) break;
      const word = this.memory.words[this.memory.at + ((pa >>> 2) & 1)];
      if (word === 0) continue;
      for (let bit = 0; bit < 32; bit++) if ((word & (1 << bit)) !== 0) found.push(lpi + bit);
    }
    return found;
  }

  read(offset: number, _size: number): number {
    if (offset >= GICR_SGI_BASE) return this.privateWords.get(offset & ~3) ?? 0;
    const type = redistributorType(this.cpu, this.last);
    switch (offset & ~3) {
      case GICR_CTLR:
        return this.enabled ? GICR_CTLR_ENABLE_LPIS : 0;
      case GICR_IIDR:
        return ARM_IIDR;
      case GICR_TYPER:
        return type.lo;
      case GICR_TYPER + 4:
        return type.hi;
      case GICR_WAKER:
        return this.waker;
      case GICR_PROPBASER:
        return this.propLo;
      case GICR_PROPBASER + 4:
        return this.propHi;
      case GICR_PENDBASER:
        return this.pendLo;
      case GICR_PENDBASER + 4:
        // PTZ reads as zero.
        return this.pendHi & ~GICR_PENDBASER_PTZ_HI;
      case GICR_PIDR2:
        return GIC_PIDR2_ARCH_GICv3;
      default:
        return 0;
    }
  }

  write(offset: number, _size: number, value: number): void {
    if (offset >= GICR_SGI_BASE) {
      this.privateWords.set(offset & ~3, value | 0);
      return;
    }
    const at = offset & ~3;
    if (at === GICR_CTLR) this.switchLpis((value & GICR_CTLR_ENABLE_LPIS) !== 0);
    else if (at === GICR_WAKER) {
      const asleep = (value & GICR_WAKER_ProcessorSleep) !== 0;
      this.waker = asleep ? GICR_WAKER_ProcessorSleep | GICR_WAKER_ChildrenAsleep : 0;
    } else if (!this.enabled) this.writeTableBase(at, value | 0);
  }

  /** Changing a table's address while EnableLPIs is set is UNPREDICTABLE (IHI 0069 12.11.34); here it has no effect. */
  private writeTableBase(at: number, value: number): void {
    if (at === GICR_PROPBASER) this.propLo = value;
    else if (at === GICR_PROPBASER + 4) this.propHi = value;
    else if (at === GICR_PENDBASER) this.pendLo = value;
    else if (at === GICR_PENDBASER + 4) this.pendHi = value;
  }

  private switchLpis(on: boolean): void {
    if (on === this.enabled) return;
    this.enabled = on;
    if (on) {
      const bits = Math.min(propBaseIdBits(this.propLo), this.idBits);
      // Fewer than 14 bits: "the GIC behaves as if all physical LPIs are out of range" (IHI 0069 12.11.33).
      this.limit = bits < 14 ? 0 : 2 ** bits;
      this.properties = propBaseAddress(this.propLo, this.propHi) - LPI_FIRST;
      this.pending = pendBaseAddress(this.pendLo, this.pendHi);
      this.restored = (this.pendHi & GICR_PENDBASER_PTZ_HI) === 0;
    }
    this.owner.lpisSwitched(this);
  }
}
