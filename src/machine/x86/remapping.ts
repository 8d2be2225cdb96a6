/**
 * Interrupt remapping of a VT-d unit: handle → entry in memory → vector and CPU, with a check of who sends. It is a part of the unit:
 * the unit hands it its own registers' writes and the descriptors of its invalidation queue, and takes its faults.
 */
import {
  addressHandle,
  Delivery,
  DMA_GCMD_CFI,
  DMA_GCMD_IRE,
  DMA_GCMD_SIRTP,
  DMAR_IRTA_REG,
  IEC_SELECTIVE,
  IRTA_EIME,
  IRTE_FPD,
  IRTE_LOGICAL,
  IRTE_POSTED,
  IRTE_PRESENT,
  IRTE_RESERVED,
  IRTE_SIZE,
  irtaEntries,
  MSI_ADDR_SHV,
  RemapFault,
  type RemapFaultCode,
  sourceAllowed,
  VECTOR_FIRST,
} from '../../arch/x86/index.ts';
import { fromHalves, highHalf } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';

/** Who records a fault: the VT-d unit, in its fault recording registers. `index` is the entry's, or 0 without one. */
export interface RemapFaultSink {
  remapFault(reason: RemapFaultCode, requester: number, index: number): void;
}

export interface RemapFaultRecord {
  readonly reason: RemapFaultCode;
  readonly requester: number;
  readonly index: number;
}

/** Lines of the cache, direct mapped by entry. */
const LINES = 4096;

export class InterruptRemapping {
  /** GSTS.IRES. */
  enabled = false;
  /** GSTS.CFIS: compatibility format passes though remapping is on. */
  compatibility = false;
  faults: RemapFaultSink | null = null;
  /** Faults since the machine was made, recorded or not. */
  faultCount = 0;
  lastFault: RemapFaultRecord | null = null;
  /** Of the message last resolved. */
  vector = 0;
  destination = 0;
  logical = false;
  lowest = false;
  private readonly memory: PhysicalMemory;
  private irtaLo = 0;
  private irtaHi = 0;
  /** What SIRTP latched. */
  private table = 0;
  private entries = 0;
  private x2apic = false;
  private latched = false;
  /** Four words a line: entry's index + 1, its low words, and its source word. */
  private readonly lines = new Int32Array(LINES * 4);

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  /** IRTA_REG, for the unit: `offset` is 0xb8 or 0xbc. */
  read(offset: number): number {
    return offset === DMAR_IRTA_REG ? this.irtaLo : this.irtaHi;
  }
  write(offset: number, value: number): void {
    if (offset === DMAR_IRTA_REG) this.irtaLo = value | 0;
    else this.irtaHi = value | 0;
  }

  /** A write of GCMD, all bits of it: IRE, SIRTP and CFI are this part's. */
  command(value: number): void {
    if ((value & DMA_GCMD_SIRTP) !== 0) this.latch();
    this.enabled = (value & DMA_GCMD_IRE) !== 0;
    // Compatibility format is blocked where ids are extended (VT-d 5.1.4).
    this.compatibility = (value & DMA_GCMD_CFI) !== 0 && !this.x2apic;
  }

  /** This part's bits of GSTS. */
  get status(): number {
    return (
      (this.enabled ? DMA_GCMD_IRE : 0) | (this.latched ? DMA_GCMD_SIRTP : 0) | (this.compatibility ? DMA_GCMD_CFI : 0)
    );
  }

  /** An interrupt entry cache invalidation (descriptor type 4), as the halves of its first word. */
  invalidate(lo: number, hi: number): void {
    if ((lo & IEC_SELECTIVE) === 0) {
      this.lines.fill(0);
      return;
    }
    const mask = 2 ** (lo >>> 27) - 1;
    const first = hi & 0xffff & ~mask;
    for (let index = first; index <= first + mask && index < first + LINES; index++) this.lines[lineOf(index)] = 0;
  }

  /** A compatibility format message while remapping is on: is it let through? Records the fault when not. */
  allowCompatibility(requester: number): boolean {
    return this.compatibility || !this.refuse(RemapFault.COMPATIBILITY_BLOCKED, requester, 0, false);
  }

  /** A remappable message: true with vector, destination, logical and lowest set; false after a fault. */
  resolve(requester: number, addressLo: number, data: number): boolean {
    let index = addressHandle(addressLo);
    if ((addressLo & MSI_ADDR_SHV) !== 0) {
      if (data >>> 16 !== 0) return !this.refuse(RemapFault.RESERVED_REQUEST, requester, index, false);
      index += data & 0xffff;
    }
    if (index >= this.entries) return !this.refuse(RemapFault.INDEX_BEYOND_TABLE, requester, index, false);
    const at = lineOf(index);
    if (this.lines[at] !== index + 1 && !this.load(index)) {
      return !this.refuse(RemapFault.TABLE_UNREADABLE, requester, index, false);
    }
    const lo = this.lines[at + 1];
    const silent = (lo & IRTE_FPD) !== 0;
    if ((lo & IRTE_PRESENT) === 0) return !this.refuse(RemapFault.NOT_PRESENT, requester, index, silent);
    const source = this.lines[at + 3];
    const mode = (lo >>> 5) & 7;
    // Posted interrupts, and deliveries other than to a vector, are not what these machines have.
    const unfit = (lo & (IRTE_POSTED | IRTE_RESERVED)) !== 0 || mode > Delivery.LOWEST_PRIORITY || source >>> 18 === 3;
    if (unfit || source >>> 20 !== 0 || ((lo >>> 16) & 0xff) < VECTOR_FIRST) {
      return !this.refuse(RemapFault.RESERVED_ENTRY, requester, index, silent);
    }
    if (!sourceAllowed(source, requester)) {
      return !this.refuse(RemapFault.SOURCE_MISMATCH, requester, index, silent);
    }
    this.vector = (lo >>> 16) & 0xff;
    this.destination = this.x2apic ? this.lines[at + 2] : (this.lines[at + 2] >>> 8) & 0xff;
    this.logical = (lo & IRTE_LOGICAL) !== 0;
    this.lowest = mode === Delivery.LOWEST_PRIORITY;
    return true;
  }

  private latch(): void {
    this.table = fromHalves(this.irtaHi & 0xfffff, this.irtaLo & ~0xfff);
    this.entries = irtaEntries(this.irtaLo);
    this.x2apic = (this.irtaLo & IRTA_EIME) !== 0;
    this.latched = true;
    this.lines.fill(0);
  }

  /** Reads an entry into its line. One that is not present counts for this message only (VT-d 6.2.1: without CAP.CM none is cached). */
  private load(index: number): boolean {
    const { memory } = this;
    const pa = this.table + index * IRTE_SIZE;
    const at = lineOf(index);
    if (!memory.locate(highHalf(pa), pa | 0)) return false;
    this.lines[at + 1] = memory.words[memory.at];
    this.lines[at + 2] = memory.words[memory.at + 1];
    if (!memory.locate(highHalf(pa + 8), (pa + 8) | 0)) return false;
    this.lines[at + 3] = memory.words[memory.at];
    this.lines[at] = (this.lines[at + 1] & IRTE_PRESENT) !== 0 ? index + 1 : 0;
    return true;
  }

  private refuse(reason: RemapFaultCode, requester: number, index: number, silent: boolean): true {
    this.faultCount++;
    this.lastFault = { reason, requester, index };
    if (!silent) this.faults?.remapFault(reason, requester, index);
    return true;
  }
}

const lineOf = (index: number): number => (index & (LINES - 1)) << 2;
