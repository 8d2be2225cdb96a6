/** The unit's registers as software sees them, and both ways to invalidate: registers and the queue (VT-d 6.5, 11.4). */
import { bits32, getInPlace, getNumber, hi32, lo32 } from '../../arch/bits.ts';
import { QI_INDEX_MASK, QiType } from '../../arch/vtd/queue.ts';
import { CCMD, FECTL_IM, Gcmd, Granularity, IOTLB, IVA, VtdReg } from '../../arch/vtd/registers.ts';
import type { MmioTarget } from '../../ports/bus.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { FaultRecording } from './faults.ts';
import { InvalidationQueue } from './invalidation-queue.ts';
import type { RemappingPart } from './vtd.ts';

export interface VtdEffects {
  readonly enable: (on: boolean) => void;
  readonly contextCache: (granularity: number, domain: number, source: number, functionMask: number) => void;
  readonly iotlb: (granularity: number, domain: number, hi: number, lo: number, pages: number) => void;
}

export class VtdRegisters implements MmioTarget {
  readonly name = 'VT-d registers';
  enabled = false;
  /** Base of the root table, as SRTP latched it. */
  root = 0n;
  private status = 0;
  private rootRegister = 0n;
  private ccmd = 0n;
  private iva = 0n;
  private iotlb = 0n;
  private readonly cap: bigint;
  private readonly ecap: bigint;
  private readonly queue: InvalidationQueue;
  private readonly faults: FaultRecording;
  private readonly remapping: RemappingPart | null;
  private readonly effects: VtdEffects;

  constructor(
    capabilities: { readonly cap: bigint; readonly ecap: bigint },
    memory: PhysicalMemory,
    faults: FaultRecording,
    remapping: RemappingPart | null,
    effects: VtdEffects,
  ) {
    this.cap = capabilities.cap;
    this.ecap = capabilities.ecap;
    this.queue = new InvalidationQueue(memory);
    this.faults = faults;
    this.remapping = remapping;
    this.effects = effects;
  }

  read(offset: number, size: number): number {
    const word = this.readWord(offset & ~3);
    return size === 4 ? word : (word >>> ((offset & 3) * 8)) & (size === 1 ? 0xff : 0xffff);
  }

  /** Only whole words are written. */
  write(offset: number, size: number, value: number): void {
    if (size === 4 && (offset & 3) === 0) this.writeWord(offset, value | 0);
  }

  private readWord(offset: number): number {
    const { faults } = this;
    switch (offset) {
      case VtdReg.VER:
        return 0x10;
      case VtdReg.GSTS:
        return this.status | (this.remapping?.status ?? 0);
      case VtdReg.FSTS:
        return faults.status;
      case VtdReg.FECTL:
        return faults.control;
      case VtdReg.FEDATA:
        return faults.data;
      case VtdReg.FEADDR:
        return faults.address;
      case VtdReg.FEUADDR:
        return faults.upperAddress;
      case VtdReg.IQH:
        return this.queue.head;
      case VtdReg.IQT:
        return this.queue.tail;
      case VtdReg.IRTA:
      case VtdReg.IRTA + 4:
        return this.remapping?.read(offset) ?? 0;
      default:
        return this.readWide(offset);
    }
  }

  private readWide(offset: number): number {
    const half = (register: bigint): number => ((offset & 4) === 0 ? lo32(register) : hi32(register));
    switch (offset & ~7) {
      case VtdReg.CAP:
        return half(this.cap);
      case VtdReg.ECAP:
        return half(this.ecap);
      case VtdReg.RTADDR:
        return half(this.rootRegister);
      case VtdReg.CCMD:
        return half(this.ccmd);
      case VtdReg.IQA:
        return half(this.queue.address);
      case VtdReg.IVA:
        return half(this.iva);
      case VtdReg.IOTLB:
        return half(this.iotlb);
      case VtdReg.FRCD:
        return half(this.faults.record[0]);
      case VtdReg.FRCD + 8:
        return half(this.faults.record[1]);
      default:
        return 0;
    }
  }

  private writeWord(offset: number, value: number): void {
    const { faults } = this;
    switch (offset) {
      case VtdReg.GCMD:
        this.command(value);
        break;
      case VtdReg.FSTS:
        faults.clearStatus(value);
        break;
      case VtdReg.FECTL:
        faults.control = value & FECTL_IM;
        break;
      case VtdReg.FEDATA:
        faults.data = value & 0xffff;
        break;
      case VtdReg.FEADDR:
        faults.address = value & ~3;
        break;
      case VtdReg.FEUADDR:
        faults.upperAddress = value;
        break;
      case VtdReg.FRCD + 12:
        faults.writeHighest(value);
        break;
      case VtdReg.IQT:
        this.queue.tail = value & QI_INDEX_MASK;
        this.consume();
        break;
      case VtdReg.IRTA:
      case VtdReg.IRTA + 4:
        this.remapping?.write(offset, value);
        break;
      default:
        this.writeWide(offset, value);
    }
  }

  private writeWide(offset: number, value: number): void {
    const high = (offset & 4) !== 0;
    const merge = (register: bigint): bigint => {
      const half = BigInt(value >>> 0);
      return high ? (register & 0xffffffffn) | (half << 32n) : (register & ~0xffffffffn) | half;
    };
    switch (offset & ~7) {
      case VtdReg.RTADDR:
        this.rootRegister = merge(this.rootRegister);
        break;
      case VtdReg.IQA:
        if (!this.queue.enabled) this.queue.address = merge(this.queue.address);
        break;
      case VtdReg.IVA:
        this.iva = merge(this.iva);
        break;
      case VtdReg.CCMD:
        this.ccmd = merge(this.ccmd);
        if (high && value < 0) this.contextCommand();
        break;
      case VtdReg.IOTLB:
        this.iotlb = merge(this.iotlb);
        if (high && value < 0) this.iotlbCommand();
        break;
    }
  }

  private command(value: number): void {
    if ((value & Gcmd.SRTP) !== 0) {
      this.root = getInPlace([this.rootRegister], IVA.ADDR);
      this.status |= Gcmd.SRTP;
    }
    this.queue.enable((value & Gcmd.QIE) !== 0);
    const on = (value & Gcmd.TE) !== 0;
    if (on !== this.enabled) {
      this.enabled = on;
      this.effects.enable(on);
    }
    this.status = (this.status & ~(Gcmd.QIE | Gcmd.TE)) | (value & (Gcmd.QIE | Gcmd.TE));
    this.remapping?.command(value);
    if (this.queue.enabled) this.consume();
  }

  /** Register-based invalidation completes at once: ICC reads as 0, CAIG says what was done. */
  private contextCommand(): void {
    const words = [this.ccmd];
    const granularity = getNumber(words, CCMD.CIRG);
    this.effects.contextCache(
      granularity,
      getNumber(words, CCMD.DID),
      getNumber(words, CCMD.SID),
      getNumber(words, CCMD.FM),
    );
    this.ccmd = (this.ccmd & ~((1n << 63n) | (3n << 59n))) | (BigInt(granularity) << 59n);
  }

  private iotlbCommand(): void {
    const words = [this.iotlb];
    const granularity = getNumber(words, IOTLB.IIRG);
    const address = getInPlace([this.iva], IVA.ADDR);
    const pages = 2 ** getNumber([this.iva], IVA.AM);
    this.effects.iotlb(granularity, getNumber(words, IOTLB.DID), hi32(address), alignDown(lo32(address), pages), pages);
    this.iotlb = (this.iotlb & ~((1n << 63n) | (3n << 57n))) | (BigInt(granularity) << 57n);
  }

  private consume(): void {
    if (!this.queue.consume((w0lo, w0hi, w1lo, w1hi) => this.descriptor(w0lo, w0hi, w1lo, w1hi)))
      this.faults.queueError();
  }

  private descriptor(w0lo: number, w0hi: number, w1lo: number, w1hi: number): boolean {
    const granularity = bits32(w0lo, 5, 4);
    const domain = bits32(w0lo, 31, 16);
    switch (bits32(w0lo, 3, 0)) {
      case QiType.CONTEXT:
        this.effects.contextCache(granularity, domain, bits32(w0hi, 15, 0), bits32(w0hi, 17, 16));
        return granularity !== 0;
      case QiType.IOTLB: {
        const pages = granularity === Granularity.PAGE ? 2 ** bits32(w1lo, 5, 0) : 1;
        this.effects.iotlb(granularity, domain, w1hi, alignDown(w1lo & -4096, pages), pages);
        return granularity !== 0;
      }
      case QiType.INTERRUPT_ENTRY:
        this.remapping?.invalidate(w0lo, w0hi);
        return this.remapping !== null;
      case QiType.WAIT:
        if ((w0lo & (1 << 5)) !== 0) this.queue.writeStatus(w1hi, w1lo, w0hi);
        return true;
      default:
        // Device TLBs do not exist here.
        return false;
    }
  }
}

/** The low half of an address rounded down to 2^AM pages; ranges of 4 GiB and more begin at its start. */
const alignDown = (lo: number, pages: number): number => (pages >= 0x100000 ? 0 : lo & -(pages * 4096));
