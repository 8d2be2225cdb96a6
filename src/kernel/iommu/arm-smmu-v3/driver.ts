/** The SMMUv3 driver: programs the SMMU through its registers and through tables and queues in memory (arm-smmu-v3.c). */

import { CFGI, command, Op } from '../../../arch/smmuv3/commands.ts';
import { decodeEvent, Event } from '../../../arch/smmuv3/events.ts';
import { CR0, CR2, GBPA_ABORT, GBPA_UPDATE, IRQ_CTRL, Reg } from '../../../arch/smmuv3/registers.ts';
import { S1Dss } from '../../../arch/smmuv3/ste.ts';
import type { SmmuSpec } from '../../../machine/spec.ts';
import { hex, highHalf } from '../../../ports/address.ts';
import type { Iommu, IommuDomain, IommuDriver, ReservedRegion } from '../../../ports/iommu.ts';
import type { Job } from '../../../ports/work.ts';
import type { KernelContext } from '../../context.ts';
import { NestedDomain } from '../nested-domain.ts';
import { PagingDomain } from '../paging-domain.ts';
import { chooseGranule, lpaeFormat } from '../pgtable-format.ts';
import { RateLimit } from '../rate-limit.ts';
import { sortRegions } from '../reserved.ts';
import { StaticDomain } from '../static-domain.ts';
import { TagAllocator } from '../tag-allocator.ts';
import { SmmuCommandQueue } from './command-queue.ts';
import { SmmuContextTable } from './context-table.ts';
import { SmmuDirtyOps } from './dirty-ops.ts';
import { type EntryFeatures, nestedEntry, stage1Descriptor, stage1Entry, stage2Entry } from './entries.ts';
import { describeEvent, SmmuEventQueue } from './event-queue.ts';
import { SmmuInvalidation } from './invalidation.ts';
import { probeSmmu, type SmmuProbe } from './probe.ts';
import { abortEntry, bypassEntry, SmmuStreamTable } from './stream-table.ts';

/** MSI_IOVA_BASE and MSI_IOVA_LENGTH. */
export const SW_MSI: ReservedRegion = { start: 0x800_0000, end: 0x80f_ffff, type: 'sw-msi' };

const VA_BITS = 48;
/** Linux's queues end at 2^(PAGE_SHIFT + MAX_PAGE_ORDER) bytes. */
const EVENT_LOG2_LIMIT = 17;
/** One page of commands: the SMMU here never lags. */
const COMMAND_LOG2 = 8;

/** True: the record is taken, and not logged. */
export type EventSink = (record: readonly bigint[]) => boolean;

/** Events that a stage 1 of user space can have caused. */
const OF_STAGE1: ReadonlySet<number> = new Set([
  Event.C_BAD_STE,
  Event.F_STREAM_DISABLED,
  Event.C_BAD_SUBSTREAMID,
  Event.C_BAD_CD,
  Event.F_TRANSLATION,
  Event.F_ADDR_SIZE,
  Event.F_ACCESS,
  Event.F_PERMISSION,
]);

/** A stream as the driver knows it. */
interface Master {
  readonly sid: number;
  /** Physical address of the stream table entry. */
  readonly entry: number;
  /** What transactions without a substream id go through. */
  domain: IommuDomain;
  /** Bits of its substream ids: PASIDs that the function was enabled for, as far as the SMMU has room (ssid_bits). */
  ssidBits: number;
  /** Its context descriptors, while there is any. */
  table: SmmuContextTable | null;
}

export class ArmSmmuV3Driver implements IommuDriver {
  readonly name = 'arm-smmu-v3';
  readonly iommu: Iommu;
  readonly coherent: boolean;
  readonly dirtyTracking: boolean;
  readonly identity: IommuDomain;
  readonly blocked: IommuDomain;
  readonly probe: SmmuProbe;
  readonly commands: SmmuCommandQueue;
  /** Logs and drops the events that wait: what the interrupt's thread does. Post it when the SMMU asserts `eventq`. */
  readonly eventJob: Job = { run: () => this.drainEvents((record) => this.handleEvent(record)) };
  private readonly context: KernelContext;
  private readonly logLimit: RateLimit;
  private readonly spec: SmmuSpec;
  private readonly base: number;
  private readonly granule: number;
  private readonly streams: SmmuStreamTable;
  private readonly events: SmmuEventQueue;
  private readonly invalidation: SmmuInvalidation;
  private readonly asids: TagAllocator;
  private readonly vmids: TagAllocator;
  private readonly masters = new Map<number, Master>();
  /** Who gets the stage-1 events of a stream, before the log. */
  private readonly sinks = new Map<number, EventSink>();

  /**
   * Probes and resets the SMMU whose registers the bus has at `spec.base`; `spec` stands for what firmware says of it
   * (reserved regions, CANWBS). @throws RangeError when memory is exhausted, as a probe that fails.
   */
  constructor(context: KernelContext, spec: SmmuSpec, iommu: Iommu) {
    this.context = context;
    this.logLimit = new RateLimit(context.clock);
    this.spec = spec;
    this.base = spec.base;
    this.iommu = iommu;
    const probe = probeSmmu(context.bus, spec.base);
    this.probe = probe;
    this.coherent = probe.coherent;
    // arm_smmu_dbm_capable: the SMMU's updates have to be seen by the CPUs.
    this.dirtyTracking = probe.dirty && probe.coherent;
    this.granule = chooseGranule(probe.granules, context.pageSize);
    this.asids = new TagAllocator(probe.asidBits);
    this.vmids = new TagAllocator(probe.vmidBits);
    this.commands = new SmmuCommandQueue(context, spec.base, Math.min(COMMAND_LOG2, probe.commandQueueLog2));
    this.events = new SmmuEventQueue(context, spec.base, Math.min(EVENT_LOG2_LIMIT, probe.eventQueueLog2));
    this.streams = new SmmuStreamTable(context, probe.sidBits, probe.twoLevelStreams);
    this.invalidation = new SmmuInvalidation(this.commands, probe.rangeInvalidation, this.asids, this.vmids);
    this.identity = new StaticDomain(context, 'identity', 2 ** probe.oas - 1);
    this.blocked = new StaticDomain(context, 'blocked', 2 ** probe.oas - 1);
    this.reset();
  }

  /** The window for the kernel's own doorbell mappings, then what firmware says. */
  reservedRegions(_requester: number): readonly ReservedRegion[] {
    return sortRegions([SW_MSI, ...this.spec.reserved]);
  }

  allocate(
    _requester: number,
    stage?: 1 | 2,
    type: 'dma' | 'unmanaged' = 'unmanaged',
    dirty = false,
  ): PagingDomain | number {
    const { probe, context } = this;
    const chosen = stage ?? (probe.stage1 ? 1 : 2);
    if (dirty && chosen === 2) {
      return context.refusals.refuse('EOPNOTSUPP', `${this.iommu.name} tracks dirty pages in a stage 1 only`);
    }
    if (!(chosen === 1 ? probe.stage1 : probe.stage2)) {
      return context.refusals.refuse('EOPNOTSUPP', `${this.iommu.name} has no stage ${chosen}`);
    }
    const tags = chosen === 1 ? this.asids : this.vmids;
    const tag = tags.take();
    if (tag < 0) return context.refusals.refuse('ENOSPC', `all ${chosen === 1 ? 'ASIDs' : 'VMIDs'} are in use`);
    const format = lpaeFormat(chosen, Math.log2(this.granule), chosen === 1 ? VA_BITS : probe.oas, probe.oas, dirty);
    const { invalidation } = this;
    try {
      return new PagingDomain({
        context,
        owner: this,
        type,
        stage: chosen,
        format,
        tag,
        invalidation,
        enforceCoherency: this.spec.canwbs,
        dirtyOps: dirty ? (table) => new SmmuDirtyOps(table) : undefined,
      });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      tags.give(tag);
      return context.refusals.refuse('ENOMEM', error.message);
    }
  }

  attach(requester: number, domain: IommuDomain): number {
    const { refusals } = this.context;
    const master = this.masters.get(requester) ?? this.addMaster(requester);
    if (typeof master === 'number') return master;
    const fixed = domain === this.blocked || domain === this.identity;
    const mine =
      (domain instanceof NestedDomain && domain.parent.owner === this) ||
      (domain instanceof PagingDomain && domain.owner === this);
    if (!fixed && !mine) return refusals.refuse('EINVAL', `the domain is not one of ${this.iommu.name}`);
    if (domain instanceof PagingDomain && domain.stage === 1) {
      const error = this.describe(master, 0, domain);
      if (error < 0) return error;
      this.install(master, domain);
      return 0;
    }
    // A stage 2 has no place for context descriptors of the kernel's; those of a nested stage 1 are user space's.
    if (!fixed && master.table !== null && master.table.used > 0) {
      const why = `stream ${hex(requester)} has ${master.table.used} PASIDs with page tables of their own`;
      return refusals.refuse('EBUSY', why);
    }
    this.install(master, domain);
    master.table?.clear(0);
    this.dropUnusedTable(master);
    return 0;
  }

  /** iommu_device.max_pasids: the substreams that the SMMU can tell apart, 0 among them. */
  get maxPasids(): number {
    return 2 ** this.probe.ssidBits;
  }

  /** A function comes whose PASIDs, of `bits`, are enabled; before its first attach (the end of arm_smmu_enable_pasid). */
  enablePasids(requester: number, bits: number): void {
    const master = this.masters.get(requester) ?? this.addMaster(requester);
    if (typeof master !== 'number') master.ssidBits = Math.min(bits, this.probe.ssidBits);
  }

  /** arm_smmu_s1_set_dev_pasid, and arm_smmu_blocking_set_dev_pasid for the blocked domain. The core has checked the PASID. */
  setPasid(requester: number, pasid: number, domain: IommuDomain): number {
    const { refusals } = this.context;
    const master = this.masters.get(requester);
    if (domain === this.blocked) {
      master?.table?.clear(pasid);
      if (master !== undefined) this.leaveTable(master);
      return 0;
    }
    if (!(domain instanceof PagingDomain) || domain.owner !== this || domain.stage !== 1 || master === undefined) {
      return refusals.refuse('EINVAL', `the domain is no stage 1 of ${this.iommu.name}`);
    }
    const { domain: own } = master;
    if (own !== this.blocked && own !== this.identity && !(own instanceof PagingDomain && own.stage === 1)) {
      return refusals.refuse(
        'EINVAL',
        `stream ${hex(requester)} goes through a stage 2, beside which there are no PASIDs`,
      );
    }
    // The function's PASIDs could not be turned on; Linux 7.2 would write behind its table.
    if (pasid >= 2 ** master.ssidBits) {
      const why = `PASID ${pasid} is not below 2^${master.ssidBits}: no more are enabled for stream ${hex(requester)}`;
      return refusals.refuse('EINVAL', why);
    }
    const error = this.describe(master, pasid, domain);
    if (error < 0) return error;
    // From an entry without descriptors: the same for what has no PASID, by S1DSS (arm_smmu_update_ste).
    this.install(master, own);
    return 0;
  }

  /** Physical address of a substream's context descriptor, or -1: for people and for tests that tamper with it. */
  descriptorOf(requester: number, pasid: number): number {
    return this.masters.get(requester)?.table?.at(pasid) ?? -1;
  }

  /** CANWBS, as firmware says it (IORT): devices cannot bypass what the CPUs cache, so that user space may own a stage 1. */
  get canwbs(): boolean {
    return this.spec.canwbs;
  }

  drainEvents(each: (record: readonly bigint[]) => void): number {
    return this.events.drain(each);
  }

  /** One record as dmesg shows it, within the limit that keeps a flood out of the log. */
  /** arm_smmu_handle_event: `sink` says whether it took a record of the stream's stage 1; null takes it away. */
  setEventSink(requester: number, sink: EventSink | null): void {
    if (sink === null) this.sinks.delete(requester);
    else this.sinks.set(requester, sink);
  }

  logEvent(record: readonly bigint[]): void {
    if (!this.logLimit.allows()) return;
    const missed = this.logLimit.takeMissed();
    if (missed > 0) this.context.log(`arm_smmu_evtq_thread: ${missed} callbacks suppressed`);
    for (const line of describeEvent(this.iommu.name, record)) this.context.log(line);
  }

  /** What a stream translates through; null before its first attach. */
  domainOf(requester: number): IommuDomain | null {
    return this.masters.get(requester)?.domain ?? null;
  }

  /** Physical address of a stream's table entry: for people and for tests that tamper with it. -1 before its first attach. */
  entryOf(requester: number): number {
    return this.masters.get(requester)?.entry ?? -1;
  }

  /** Gives a substream the descriptor of a stage 1: 0 or -ENOMEM. */
  private describe(master: Master, ssid: number, domain: PagingDomain): number {
    try {
      master.table ??= this.newTable(master);
      master.table.set(ssid, stage1Descriptor(domain, this.features));
      return 0;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.dropUnusedTable(master);
      return this.context.refusals.refuse('ENOMEM', error.message);
    }
  }

  private newTable(master: Master): SmmuContextTable {
    const { sid: StreamID, ssidBits } = master;
    const invalidate = (SSID: number, leaf: boolean): void => {
      this.commands.pushWords(command(CFGI, { Opcode: Op.CFGI_CD, StreamID, SSID, Leaf: leaf ? 1 : 0 }));
      this.commands.sync();
    };
    const owner = { invalidate, moved: () => this.install(master, master.domain) };
    return new SmmuContextTable(this.context.memory, owner, ssidBits, this.probe.twoLevelContexts);
  }

  private handleEvent(record: readonly bigint[]): void {
    const { id, streamId, stage2 } = decodeEvent(record);
    const taken = OF_STAGE1.has(id) && !stage2 && (this.sinks.get(streamId)?.(record) ?? false);
    if (!taken) this.logEvent(record);
  }

  private install(master: Master, domain: IommuDomain): void {
    master.domain = domain;
    this.streams.write(master.entry, this.entryFor(master), () => {
      this.commands.pushWords(command(CFGI, { Opcode: Op.CFGI_STE, StreamID: master.sid, Leaf: 1 }));
      this.commands.sync();
    });
  }

  /** The entry of a stream in its domain. While PASIDs are in use it leads to the descriptors, whatever goes without a PASID. */
  private entryFor({ domain, table }: Master): bigint[] {
    const { features } = this;
    if (domain instanceof NestedDomain) return nestedEntry(domain, features);
    if (domain instanceof PagingDomain && domain.stage === 2) return stage2Entry(domain, features);
    const passes = domain === this.identity;
    const through = domain instanceof PagingDomain ? S1Dss.SSID0 : passes ? S1Dss.BYPASS : S1Dss.TERMINATE;
    if (table !== null && (through === S1Dss.SSID0 || table.used > 0)) return stage1Entry(table, through, features);
    return passes ? bypassEntry() : abortEntry();
  }

  /** The last PASID went: a stream that passes or aborts everything needs no descriptors. */
  private leaveTable(master: Master): void {
    if (master.table === null || master.table.used > 0) return;
    if (master.domain !== this.blocked && master.domain !== this.identity) return;
    this.install(master, master.domain);
    this.dropUnusedTable(master);
  }

  private dropUnusedTable(master: Master): void {
    const { table, domain } = master;
    if (table === null || table.used > 0 || (domain instanceof PagingDomain && domain.stage === 1)) return;
    table.free();
    master.table = null;
  }

  private get features(): EntryFeatures {
    return { oas: this.probe.oas, stall: false };
  }

  private addMaster(sid: number): Master | number {
    const { refusals } = this.context;
    const entry = this.streams.entry(sid);
    if (entry === -1) return refusals.refuse('ERANGE', `stream id ${hex(sid)} is beyond ${this.probe.sidBits} bits`);
    if (entry < 0) return refusals.refuse('ENOMEM', 'no memory for a stream table');
    const master: Master = { sid, entry, domain: this.blocked, ssidBits: 0, table: null };
    this.masters.set(sid, master);
    return master;
  }

  /** arm_smmu_device_reset: nothing passes until the tables stand. */
  private reset(): void {
    this.write(Reg.GBPA, GBPA_ABORT | GBPA_UPDATE);
    this.write(Reg.CR0, 0);
    this.write(Reg.CR2, CR2.RECINVSID | CR2.PTM);
    this.write64(Reg.STRTAB_BASE, this.streams.base);
    this.write(Reg.STRTAB_BASE_CFG, this.streams.configuration);
    this.write64(Reg.CMDQ_BASE, this.commands.base + this.commands.log2);
    this.write(Reg.CMDQ_PROD, 0);
    this.write(Reg.CMDQ_CONS, 0);
    this.write(Reg.CR0, CR0.CMDQEN);
    this.commands.pushWords(command(CFGI, { Opcode: Op.CFGI_STE_RANGE, Range: 31 }));
    this.commands.push(Op.TLBI_NSNH_ALL, 0, 0, 0);
    this.commands.sync();
    this.write64(Reg.EVTQ_BASE, this.events.base + this.events.log2);
    this.write(Reg.EVTQ_PROD, 0);
    this.write(Reg.EVTQ_CONS, 0);
    this.write(Reg.CR0, CR0.CMDQEN | CR0.EVENTQEN);
    this.write(Reg.IRQ_CTRL, IRQ_CTRL.EVENTQ | IRQ_CTRL.GERROR);
    this.write(Reg.CR0, CR0.CMDQEN | CR0.EVENTQEN | CR0.SMMUEN);
  }

  private write(offset: number, value: number): void {
    this.context.bus.write32(this.base + offset, value | 0);
  }

  private write64(offset: number, value: number): void {
    this.write(offset, value | 0);
    this.write(offset + 4, highHalf(value));
  }
}
