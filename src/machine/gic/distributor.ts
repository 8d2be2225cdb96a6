/**
 * The distributor's registers and the state of every shared interrupt. A host CPU acknowledges at once, so that an
 * interrupt is *active* only when software makes it so; what cannot be delivered stays pending here.
 */
import {
  distributorType,
  GIC_PIDR2_ARCH_GICv2,
  GIC_PIDR2_ARCH_GICv3,
  GICD_CTLR,
  GICD_CTLR_ARE,
  GICD_CTLR_DS,
  GICD_CTLR_ENABLE_GRP0,
  GICD_CTLR_ENABLE_GRP1,
  GICD_ICACTIVER,
  GICD_ICENABLER,
  GICD_ICFGR,
  GICD_ICPENDR,
  GICD_IGROUPR,
  GICD_IGRPMODR,
  GICD_IIDR,
  GICD_IPRIORITYR,
  GICD_IROUTER,
  GICD_IROUTER_SPI_MODE_ANY,
  GICD_ISACTIVER,
  GICD_ISENABLER,
  GICD_ISPENDR,
  GICD_ITARGETSR,
  GICD_PIDR2,
  GICD_SIZE,
  GICD_TYPER,
  GICD_V2_PIDR2,
  SPI_END,
  SPI_FIRST,
} from '../../arch/gic/index.ts';
import type { MmioTarget } from '../../ports/bus.ts';
import { ARM_IIDR } from './redistributor.ts';

/** Interrupt ids that the registers have room for. */
const INTIDS = 1024;
const WORDS = INTIDS / 32;

/** What the distributor tells the rest of the GIC. */
export interface DistributorOwner {
  /** An SPI may have become deliverable. */
  reconsider(intid: number): void;
  /** Software withdrew a pending SPI. */
  withdrawn(intid: number): void;
  /** GICD_CTLR changed. */
  controlChanged(): void;
}

export class Distributor implements MmioTarget {
  readonly name: string;
  readonly size = GICD_SIZE;
  readonly version: 2 | 3;
  /** SPIs are 32 to end - 1. */
  readonly end: number;
  /** For an edge SPI that can be delivered now, its CPU + 1; else 0. Hot: one load says it all. */
  readonly edgeTarget = new Int32Array(INTIDS);
  readonly pending = new Int32Array(WORDS);
  readonly active = new Int32Array(WORDS);
  private readonly owner: DistributorOwner;
  private readonly cpus: number;
  private readonly type: number;
  private control: number;
  private readonly enabled = new Int32Array(WORDS);
  private readonly group = new Int32Array(WORDS);
  private readonly modifier = new Int32Array(WORDS);
  private readonly edge = new Int32Array(WORDS);
  private readonly priority = new Uint8Array(INTIDS);
  private readonly targets = new Uint8Array(INTIDS);
  private readonly route = new Int32Array(INTIDS);

  constructor(owner: DistributorOwner, version: 2 | 3, spis: number, cpus: number, lpiBits: number) {
    this.owner = owner;
    this.version = version;
    this.cpus = cpus;
    this.end = SPI_FIRST + spis;
    this.name = version === 3 ? 'GICv3 distributor' : 'GICv2 distributor';
    this.type = distributorType(spis, cpus, version === 3 ? lpiBits : 0);
    this.control = version === 3 ? GICD_CTLR_ARE | GICD_CTLR_DS : 0;
  }

  isImplemented(intid: number): boolean {
    return intid >= SPI_FIRST && intid < this.end;
  }
  isEdge(intid: number): boolean {
    return test(this.edge, intid);
  }
  /** Group 1 is where LPIs and, on GICv3, Linux's interrupts are. */
  get group1Enabled(): boolean {
    return (this.control & GICD_CTLR_ENABLE_GRP1) !== 0;
  }

  /** The CPU that would take the SPI now, or -1: it is disabled, its group is, it is active, or it has no target. */
  target(intid: number): number {
    if (!this.isImplemented(intid) || !test(this.enabled, intid) || test(this.active, intid)) return -1;
    const bit = test(this.group, intid) ? GICD_CTLR_ENABLE_GRP1 : GICD_CTLR_ENABLE_GRP0;
    if ((this.control & bit) === 0) return -1;
    if (this.version === 2) {
      const mask = this.targets[intid] & ((1 << this.cpus) - 1);
      return mask === 0 ? -1 : 31 - Math.clz32(mask & -mask);
    }
    const route = this.route[intid];
    if ((route & GICD_IROUTER_SPI_MODE_ANY) !== 0) return 0;
    const cpu = route & 0xffff;
    return cpu < this.cpus ? cpu : -1;
  }

  read(offset: number, size: number): number {
    const byte = this.bytesAt(offset);
    if (byte !== null) {
      const first = offset & (INTIDS - 1);
      let value = 0;
      for (let i = 0; i < size; i++) value |= byte[first + i] << (i * 8);
      return value;
    }
    const at = offset & ~3;
    if (at === GICD_CTLR) return this.control;
    if (at === GICD_TYPER) return this.type;
    if (at === GICD_IIDR) return ARM_IIDR;
    if (at === (this.version === 3 ? GICD_PIDR2 : GICD_V2_PIDR2)) {
      return this.version === 3 ? GIC_PIDR2_ARCH_GICv3 : GIC_PIDR2_ARCH_GICv2;
    }
    if (at >= GICD_ICFGR && at < GICD_ICFGR + 0x100) return this.readConfig(at - GICD_ICFGR);
    if (this.version === 3 && at >= GICD_IROUTER && at < GICD_IROUTER + 8 * SPI_END) {
      return (at & 4) === 0 ? this.route[(at - GICD_IROUTER) >>> 3] : 0;
    }
    return this.bitmapAt(at)?.[(at & 0x7f) >>> 2] ?? 0;
  }

  write(offset: number, size: number, value: number): void {
    const bytes = this.bytesAt(offset);
    if (bytes !== null) {
      const first = offset & (INTIDS - 1);
      for (let i = 0; i < size; i++) {
        bytes[first + i] = value >>> (i * 8);
        this.refresh(first + i);
      }
      return;
    }
    const at = offset & ~3;
    if (at === GICD_CTLR) this.writeControl(value);
    else if (at >= GICD_ICFGR && at < GICD_ICFGR + 0x100) this.writeConfig(at - GICD_ICFGR, value);
    else if (this.version === 3 && at >= GICD_IROUTER + 8 * SPI_FIRST && at < GICD_IROUTER + 8 * SPI_END) {
      if ((at & 4) !== 0) return;
      const intid = (at - GICD_IROUTER) >>> 3;
      this.route[intid] = value;
      this.refresh(intid);
    } else this.writeBits(at, value);
  }

  private writeControl(value: number): void {
    const writable = GICD_CTLR_ENABLE_GRP0 | GICD_CTLR_ENABLE_GRP1;
    this.control = (this.control & ~writable) | (value & writable);
    for (let intid = SPI_FIRST; intid < this.end; intid++) this.refresh(intid);
    this.owner.controlChanged();
  }

  /** The register that holds a byte for each interrupt, or null. */
  private bytesAt(offset: number): Uint8Array | null {
    if (offset >= GICD_IPRIORITYR && offset < GICD_IPRIORITYR + INTIDS) return this.priority;
    if (this.version === 2 && offset >= GICD_ITARGETSR && offset < GICD_ITARGETSR + INTIDS) return this.targets;
    return null;
  }

  private bitmapAt(at: number): Int32Array | null {
    switch (at & ~0x7f) {
      case GICD_IGROUPR:
        return this.group;
      case GICD_ISENABLER:
      case GICD_ICENABLER:
        return this.enabled;
      case GICD_ISPENDR:
      case GICD_ICPENDR:
        return this.pending;
      case GICD_ISACTIVER:
      case GICD_ICACTIVER:
        return this.active;
      case GICD_IGRPMODR:
        return this.modifier;
      default:
        return null;
    }
  }

  private writeBits(at: number, value: number): void {
    const bits = this.bitmapAt(at);
    if (bits === null) return;
    const block = at & ~0x7f;
    const word = (at & 0x7f) >>> 2;
    const before = bits[word];
    if (block === GICD_IGROUPR || block === GICD_IGRPMODR) bits[word] = value;
    else if (block === GICD_ICENABLER || block === GICD_ICPENDR || block === GICD_ICACTIVER) bits[word] &= ~value;
    else bits[word] |= value;
    for (let changed = before ^ bits[word]; changed !== 0; changed &= changed - 1) {
      const intid = word * 32 + 31 - Math.clz32(changed & -changed);
      if (block === GICD_ICPENDR) this.owner.withdrawn(intid);
      else this.refresh(intid);
    }
  }

  private readConfig(offset: number): number {
    let value = 0;
    const first = offset * 4;
    for (let i = 0; i < 16; i++) if (test(this.edge, first + i)) value |= 2 << (i * 2);
    return value;
  }

  private writeConfig(offset: number, value: number): void {
    const first = offset * 4;
    for (let i = 0; i < 16; i++) {
      const intid = first + i;
      if (intid < SPI_FIRST) continue;
      assign(this.edge, intid, (value & (2 << (i * 2))) !== 0);
      this.refresh(intid);
    }
  }

  /** Brings `edgeTarget` up to date and lets the GIC look at what is pending. */
  private refresh(intid: number): void {
    const target = this.target(intid);
    this.edgeTarget[intid] = this.isEdge(intid) ? target + 1 : 0;
    if (target >= 0) this.owner.reconsider(intid);
  }
}

export const test = (bits: Int32Array, n: number): boolean => (bits[n >>> 5] & (1 << (n & 31))) !== 0;
export function assign(bits: Int32Array, n: number, on: boolean): void {
  if (on) bits[n >>> 5] |= 1 << (n & 31);
  else bits[n >>> 5] &= ~(1 << (n & 31));
}
