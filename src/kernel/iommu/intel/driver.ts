/** The VT-d driver in legacy mode: root and context tables, second-level domains, the invalidation queue (intel/iommu.c). */
import { getNumber, hi32, lo32, pack, word64 } from '../../../arch/bits.ts';
import { decodeFault, faultReasonText } from '../../../arch/vtd/faults.ts';
import { CAP, ECAP, Fsts, Gcmd, VtdReg } from '../../../arch/vtd/registers.ts';
import {
  CONTEXT_ENTRY,
  CONTEXT_ENTRY_SIZE,
  encodeAddressWidth,
  ROOT_ENTRY_SIZE,
  TranslationType,
} from '../../../arch/vtd/tables.ts';
import type { VtdSpec } from '../../../machine/spec.ts';
import { highHalf } from '../../../ports/address.ts';
import type { Iommu, IommuDomain, IommuDriver, ReservedRegion } from '../../../ports/iommu.ts';
import { pciName } from '../../../ports/pci.ts';
import type { Job } from '../../../ports/work.ts';
import type { KernelContext } from '../../context.ts';
import { PagingDomain } from '../paging-domain.ts';
import { RateLimit } from '../rate-limit.ts';
import { sortRegions } from '../reserved.ts';
import { StaticDomain } from '../static-domain.ts';
import { TagAllocator } from '../tag-allocator.ts';
import { secondLevelFormat } from './format.ts';
import { VtdInvalidation } from './invalidation-queue.ts';

/** IOAPIC_RANGE_START and _END: what the unit does not translate. */
export const IOAPIC_RANGE: ReservedRegion = { start: 0xfee0_0000, end: 0xfeef_ffff, type: 'msi' };

export class IntelVtdDriver implements IommuDriver {
  readonly name = 'intel-iommu';
  readonly iommu: Iommu;
  /** IOMMU_CAP_CACHE_COHERENCY is always there on x86. */
  readonly coherent = true;
  readonly identity: IommuDomain;
  readonly blocked: IommuDomain;
  /** Physical base of the registers. */
  readonly base: number;
  /** CAP and ECAP as read: what IOMMU_GET_HW_INFO shows. */
  readonly cap: bigint;
  readonly ecap: bigint;
  /** Logs and clears the recorded fault: what the fault event's handler does. */
  readonly eventJob: Job = { run: () => this.handleFault() };
  private readonly context: KernelContext;
  private readonly logLimit: RateLimit;
  private readonly spec: VtdSpec;
  private readonly width: number;
  private readonly domains: TagAllocator;
  private readonly identityId: number;
  private readonly invalidation: VtdInvalidation;
  private readonly root: number;
  private readonly contextTables = new Map<number, number>();
  private readonly attached = new Map<number, IommuDomain>();

  /**
   * Takes over the unit whose registers the bus has at `spec.base` and turns translation on; `spec` stands for what firmware
   * says (RMRRs). @throws RangeError when memory is exhausted.
   */
  constructor(context: KernelContext, spec: VtdSpec, iommu: Iommu) {
    this.context = context;
    this.logLimit = new RateLimit(context.clock);
    this.spec = spec;
    this.iommu = iommu;
    this.base = spec.base;
    this.cap = this.read64(VtdReg.CAP);
    this.ecap = this.read64(VtdReg.ECAP);
    this.width = (getNumber([this.cap], CAP.SAGAW) & 0b100) !== 0 ? 48 : 39;
    this.domains = new TagAllocator(4 + 2 * getNumber([this.cap], CAP.ND));
    this.identityId = this.domains.take();
    this.invalidation = new VtdInvalidation(context, spec.base, getNumber([this.cap], CAP.MAMV), this.domains);
    const root = context.memory.allocate(4096);
    if (root === null) throw new RangeError('no memory for the root table');
    this.root = root;
    this.identity = new StaticDomain(context, 'identity', 2 ** this.width - 1);
    this.blocked = new StaticDomain(context, 'blocked', 2 ** this.width - 1);
    this.enable();
  }

  reservedRegions(_requester: number): readonly ReservedRegion[] {
    return sortRegions([...this.spec.reserved, IOAPIC_RANGE]);
  }

  allocate(_requester: number, stage?: 1 | 2, type: 'dma' | 'unmanaged' = 'unmanaged'): PagingDomain | number {
    const { context, invalidation } = this;
    const { refusals } = context;
    // Scalable mode, which has a stage 1, is not what this unit offers.
    if (stage === 1) return refusals.refuse('EOPNOTSUPP', `${this.iommu.name} has second-level tables only`);
    const tag = this.domains.take();
    if (tag < 0) return refusals.refuse('ENOSPC', 'all domain ids are in use');
    const enforceCoherency = getNumber([this.ecap], ECAP.SC) === 1;
    const format = secondLevelFormat(this.width);
    try {
      return new PagingDomain({ context, owner: this, type, stage: 2, format, tag, invalidation, enforceCoherency });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.domains.give(tag);
      return refusals.refuse('ENOMEM', error.message);
    }
  }

  attach(requester: number, domain: IommuDomain): number {
    const { refusals } = this.context;
    const mine =
      domain === this.blocked || domain === this.identity || (domain instanceof PagingDomain && domain.owner === this);
    if (!mine) return refusals.refuse('EINVAL', `the domain is not one of ${this.iommu.name}`);
    const at = this.entryOf(requester) === -1 ? this.makeEntry(requester) : this.entryOf(requester);
    if (at === -1) return refusals.refuse('ENOMEM', 'no memory for a context table');
    const before = this.attached.get(requester);
    this.store(at, this.contextEntry(domain));
    // Caches hold the old entry under its old domain id.
    if (before !== undefined && before !== this.blocked) {
      const id = before instanceof PagingDomain ? before.tag : this.identityId;
      this.invalidation.source(id, requester);
      this.invalidation.domain(id);
    }
    this.attached.set(requester, domain);
    return 0;
  }

  private logFault(record: readonly bigint[]): void {
    this.logLine(describeFault(record));
  }

  /** dmar_fault: what it announces, each record, and the look that finds no further one count towards one limit. */
  private handleFault(): void {
    const status = this.context.bus.read32(this.base + VtdReg.FSTS) >>> 0;
    if (status === 0) return;
    this.logLine(`DMAR: DRHD: handling fault status reg ${status.toString(16)}`);
    if (this.drainEvents((record) => this.logFault(record)) > 0) this.logLimit.allows();
  }

  private logLine(line: string): void {
    if (!this.logLimit.allows()) return;
    const missed = this.logLimit.takeMissed();
    if (missed > 0) this.context.log(`dmar_fault: ${missed} callbacks suppressed`);
    this.context.log(line);
  }

  drainEvents(each: (record: readonly bigint[]) => void): number {
    const { bus } = this.context;
    const status = bus.read32(this.base + VtdReg.FSTS);
    let count = 0;
    if ((status & Fsts.PPF) !== 0) {
      each([this.read64(VtdReg.FRCD), this.read64(VtdReg.FRCD + 8)]);
      bus.write32(this.base + VtdReg.FRCD + 12, 1 << 31);
      count = 1;
    }
    if ((status & Fsts.PFO) !== 0) bus.write32(this.base + VtdReg.FSTS, Fsts.PFO);
    return count;
  }

  domainOf(requester: number): IommuDomain | null {
    return this.attached.get(requester) ?? null;
  }

  /** Physical address of a source's context entry: for people and for tests that tamper with it. -1 while there is no table. */
  entryOf(requester: number): number {
    const table = this.contextTables.get((requester >>> 8) & 0xff);
    return table === undefined ? -1 : table + (requester & 0xff) * CONTEXT_ENTRY_SIZE;
  }

  /** For interrupt remapping, which shares the queue: `index` -1 is all entries, else 2^maskLog2 from it on (qi_flush_iec). */
  flushInterruptEntries(index: number, maskLog2: number): void {
    if (index < 0) this.invalidation.submit(4, 0);
    else this.invalidation.submit(4 | (1 << 4) | (maskLog2 << 27), index & 0xffff);
  }

  private contextEntry(domain: IommuDomain): bigint[] {
    if (domain === this.blocked) return [0n, 0n];
    if (!(domain instanceof PagingDomain)) {
      const TT = TranslationType.PASS_THROUGH;
      return pack(CONTEXT_ENTRY, 2, { P: 1, TT, AW: encodeAddressWidth(this.width), DID: this.identityId });
    }
    return pack(CONTEXT_ENTRY, 2, {
      P: 1,
      TT: TranslationType.SECOND_LEVEL,
      SLPTPTR: BigInt(domain.table.base) >> 12n,
      AW: encodeAddressWidth(this.width),
      DID: domain.tag,
    });
  }

  /** The high word first: an entry is present only with its domain id. */
  private store(at: number, words: readonly bigint[]): void {
    const { memory } = this.context;
    memory.write64(at + 8, lo32(words[1]), hi32(words[1]));
    memory.write64(at, lo32(words[0]), hi32(words[0]));
  }

  private makeEntry(requester: number): number {
    const { memory } = this.context;
    const table = memory.allocate(4096);
    if (table === null) return -1;
    const bus = (requester >>> 8) & 0xff;
    this.contextTables.set(bus, table);
    memory.write64(this.root + bus * ROOT_ENTRY_SIZE, table | 1, highHalf(table));
    return this.entryOf(requester);
  }

  /** init_dmars: root table, caches, queue, translation. Interrupt remapping's bits stay as they are. */
  private enable(): void {
    this.write64(VtdReg.IQA, this.invalidation.base);
    this.write(VtdReg.IQT, 0);
    this.command(Gcmd.QIE);
    this.write64(VtdReg.RTADDR, this.root);
    this.command(Gcmd.SRTP);
    this.invalidation.everything();
    this.write(VtdReg.FECTL, 0);
    this.command(Gcmd.TE);
  }

  /** One bit more than is on; one-shot bits are not repeated. */
  private command(bit: number): void {
    const on = this.context.bus.read32(this.base + VtdReg.GSTS) & 0x96ff_ffff;
    this.write(VtdReg.GCMD, on | bit);
  }

  private write(offset: number, value: number): void {
    this.context.bus.write32(this.base + offset, value | 0);
  }

  private write64(offset: number, value: number): void {
    this.write(offset, value | 0);
    this.write(offset + 4, highHalf(value));
  }

  private read64(offset: number): bigint {
    const { bus } = this.context;
    return word64(bus.read32(this.base + offset), bus.read32(this.base + offset + 4));
  }
}

/** The line that Linux logs for a fault (dmar_fault_do_one). */
export function describeFault(record: readonly bigint[]): string {
  const fault = decodeFault(record);
  const sid = fault.sourceId;
  const device = pciName({ segment: 0, bus: sid >> 8, device: (sid >> 3) & 31, function: sid & 7 });
  const reason = `[fault reason 0x${fault.reason.toString(16).padStart(2, '0')}] ${faultReasonText(fault.reason)}`;
  if (fault.reason >= 0x20) {
    const index = (fault.information >> 48n).toString(16);
    return `DMAR: [INTR-REMAP] Request device [${device}] fault index 0x${index} ${reason}`;
  }
  const way = fault.read ? 'DMA Read' : 'DMA Write';
  return `DMAR: [${way} NO_PASID] Request device [${device}] fault addr 0x${fault.information.toString(16)} ${reason}`;
}
