/** An Arm SMMUv3: translates what the streams of its devices emit. All its state beyond registers and caches lies in memory. */
import { bits32 } from '../../arch/bits.ts';
import { Op, SyncSignal } from '../../arch/smmuv3/commands.ts';
import { Event, EventClass, encodeEvent } from '../../arch/smmuv3/events.ts';
import { CommandError, GERROR, IRQ_CTRL, SMMU_FRAME } from '../../arch/smmuv3/registers.ts';
import { fromHalves, type Iova } from '../../ports/address.ts';
import type { Bus, MmioTarget } from '../../ports/bus.ts';
import type { Iommu } from '../../ports/iommu.ts';
import { Count } from '../../ports/ledger.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { TranslationOutcome } from '../../ports/outcome.ts';
import type { Tap } from '../../ports/tap.ts';
import { Access, Status, type StatusCode, type Transaction } from '../../ports/transaction.ts';
import type { SmmuSpec } from '../spec.ts';
import { contextSlot, contextSlots, Regime, Tlb, tlbIndex } from '../tlb.ts';
import { ConfigurationCache, type ConfigurationFault, ConfigurationReader } from './configuration.ts';
import { NO_CONTEXT, type StreamContext, stage1Of, walkHi } from './context.ts';
import { EventQueue, Written } from './event-queue.ts';
import { explain } from './explain.ts';
import { type Features, featuresOf } from './features.ts';
import { Invalidation } from './invalidation.ts';
import { configurationEvent, translationEvent } from './record.ts';
import { SmmuRegisters } from './registers.ts';
import { exceeds } from './stage.ts';
import { type Stalled, Stalls } from './stalls.ts';
import { permits, TableWalker, WRITE_WALKS } from './walker.ts';

/** The wires of an SMMU: `eventq` when records wait, `gerror` when GERROR changed, `sync` for a CMD_SYNC that asks for one. */
export type SmmuInterrupt = 'eventq' | 'gerror' | 'sync';

export class Smmu implements Iommu {
  declare readonly name: string;
  declare readonly features: Features;
  declare readonly tap: Tap;
  declare readonly memory: PhysicalMemory;
  readonly tlb = new Tlb();
  private readonly tlbWords = this.tlb.words;
  declare readonly events: EventQueue;
  readonly stalls = new Stalls();
  /** The 128 KiB of registers, for the bus. */
  declare readonly registers: MmioTarget;
  /** Called when an enabled interrupt is asserted. */
  onInterrupt: ((line: SmmuInterrupt) => void) | null = null;
  /** Called when a stalled transaction went on (OK, after its write) or was refused. */
  onResume: ((tx: Transaction, status: StatusCode) => void) | null = null;

  declare private readonly base: number;
  /** Where a write that was stalled goes when software retries it. */
  private bus: Bus | null = null;
  declare private readonly state: SmmuRegisters;
  private readonly cached: StreamContext[] = contextSlots(NO_CONTEXT);
  private readonly nothing: StreamContext[] = contextSlots(NO_CONTEXT);
  /** What the hot path looks at: the cache, or nothing while SMMUEN is 0. */
  private contexts: StreamContext[] = this.nothing;
  private readonly configuration = new ConfigurationCache();
  declare private readonly walker: TableWalker;
  declare private readonly reader: ConfigurationReader;
  declare private readonly invalidation: Invalidation;

  /** @throws RangeError when the spec describes no SMMU (see featuresOf). */
  constructor(spec: SmmuSpec, memory: PhysicalMemory, tap: Tap) {
    this.name = `${spec.base.toString(16)}.smmuv3`;
    this.base = spec.base;
    this.memory = memory;
    this.tap = tap;
    this.features = featuresOf(spec);
    this.walker = new TableWalker(memory, this.features.tlbKeepsDirty);
    this.reader = new ConfigurationReader(memory, this.features, this.walker, this.configuration, true);
    this.invalidation = new Invalidation(this.features, this.tlb, this.configuration, this.cached);
    this.events = new EventQueue(memory, this.features.eventQueueLog2);
    this.state = new SmmuRegisters(this.features, memory, this.events, {
      name: `${this.name} registers`,
      enable: (on) => {
        this.contexts = on ? this.cached : this.nothing;
      },
      command: (op, w0lo, w0hi, w1lo, w1hi) => this.command(op, w0lo, w0hi, w1lo, w1hi),
      eventsConsumed: () => this.writeStalled(),
      interrupt: (line) => this.onInterrupt?.(line),
    });
    this.registers = this.state;
  }

  /** Puts the registers at their physical address. */
  attach(bus: Bus): void {
    this.bus = bus;
    bus.map(this.base, SMMU_FRAME, this.registers);
  }

  /**
   * The one path that every transaction takes: contextSlot, tlbIndex and permits are written out here, since a call of an import costs as
   * much as a comparison of the whole entry.
   */
  translate(tx: Transaction): StatusCode {
    if (this.tap.observer !== null) return this.translateObserved(tx);
    const { requester, ssid, iovaHi, iovaLo } = tx;
    const context = this.contexts[Math.imul(requester ^ Math.imul(ssid + 1, 0x9d), 0x9e3779b1) >>> 20];
    if (context.sid === requester && context.ssid === ssid) {
      const at = (((iovaLo >>> 12) ^ (iovaLo >>> 24) ^ (iovaHi << 3) ^ context.hash) & 0xfff) << 3;
      const words = this.tlbWords;
      if (
        words[at] === ((iovaLo & -4096) | context.regime) &&
        words[at + 1] === iovaHi &&
        words[at + 2] === context.id
      ) {
        const page = words[at + 3];
        const { access } = tx;
        if ((access & 7 & ~(page >>> ((access & 8) >>> 1))) === 0) {
          tx.paHi = words[at + 4];
          tx.paLo = (page & -4096) | (iovaLo & 4095);
          return 0;
        }
      }
    }
    return this.miss(tx);
  }

  explain(tx: Transaction): TranslationOutcome {
    const { state, features, memory, tlb, stalls, configuration } = this;
    const context = state.enabled ? this.contexts[contextSlot(tx.requester, tx.ssid)] : null;
    const cached = context !== null && context.sid === tx.requester && context.ssid === tx.ssid ? context : null;
    return explain({ state, features, memory, tlb, configuration, cached, nextTag: stalls.nextTag }, tx);
  }

  private translateObserved(tx: Transaction): StatusCode {
    const outcome = this.explain(tx);
    const iova = fromHalves(tx.iovaHi, tx.iovaLo) as Iova;
    const status = this.miss(tx);
    this.tap.observer?.hop({ at: 'iommu', name: this.name, requester: tx.requester, iova, outcome });
    return status;
  }

  /**
   * Everything that is no hit. One function on purpose, too long for V8 to inline (460 bytes of bytecode): what is inlined into `translate`
   * counts against its own inlining into the ways that interrupts take.
   */
  private miss(tx: Transaction): StatusCode {
    const { state, tlb, walker } = this;
    if (!state.enabled) return state.aborts ? Status.ABORT : this.pass(tx) ? Status.OK : Status.ABORT;
    const { requester, ssid, iovaHi, iovaLo, access } = tx;
    const slot = contextSlot(requester, ssid);
    let context = this.contexts[slot];
    if (context.sid !== requester || context.ssid !== ssid) {
      walker.updates.count = 0;
      const read = this.reader.read(state.streamTable, requester, ssid);
      if (read === null) return this.refuseConfiguration(tx, this.reader.fault!);
      context = read;
      this.contexts[slot] = context;
      if (walker.updates.count !== 0) walker.updates.commit(this.memory);
    }
    if (context.kind === 'abort') return Status.ABORT;
    if (context.kind === 'bypass') return this.pass(tx) ? Status.OK : this.refuse(context, tx, Event.F_ADDR_SIZE);
    const at = tlbIndex(iovaHi, iovaLo, context.hash);
    if (tlb.holds(at, iovaHi, iovaLo, context.regime, context.id)) {
      const perms = tlb.perms(at);
      if (permits(perms, access)) {
        tx.paHi = tlb.paHi(at);
        tx.paLo = tlb.paLo(at) | (iovaLo & 4095);
        return Status.OK;
      }
      // Hardware that has the entry does not walk again to see whether the tables changed. An entry of both stages does not
      // say which of them refuses: that takes a walk, as a write does that may make a page dirty.
      if (context.regime !== Regime.NESTED && (perms & WRITE_WALKS) === 0) {
        return this.refuse(context, tx, walker.refuseByEntry(context.regime === Regime.S2, iovaHi, iovaLo));
      }
    }
    const s1 = stage1Of(context, iovaHi);
    if (s1 === undefined) return this.refuse(context, tx, walker.refuseHalf());
    const event = walker.walk(s1, context.s2, walkHi(context, s1, iovaHi), iovaLo, access);
    if (event !== 0) return this.refuse(context, tx, event);
    if (walker.updates.count !== 0) walker.updates.commit(this.memory);
    tlb.fill(at, iovaHi, iovaLo, context.regime, context.id, walker.stage1Shift, walker.global);
    tlb.fillOutput(at, walker.outHi, walker.outLo, walker.entryPerms);
    tx.paHi = walker.outHi;
    tx.paLo = walker.outLo;
    return Status.OK;
  }

  /** Output equals input; false beyond the output size. */
  private pass(tx: Transaction): boolean {
    this.walker.stage2 = false;
    this.walker.class = EventClass.IN;
    if (exceeds(tx.iovaHi, tx.iovaLo, this.features.oas)) return false;
    tx.paHi = tx.iovaHi;
    tx.paLo = tx.iovaLo;
    return true;
  }

  private refuseConfiguration(tx: Transaction, fault: ConfigurationFault): StatusCode {
    if (fault.event === Event.C_BAD_STREAMID && !this.state.recordsBadStreams) return Status.ABORT;
    return this.record(encodeEvent(configurationEvent(tx, fault)));
  }

  private refuse(context: StreamContext, tx: Transaction, event: number): StatusCode {
    const { stalls } = this;
    const { stage2 } = this.walker;
    const stalls1 = event >= Event.F_TRANSLATION && (stage2 ? context.stall2 : context.stall1);
    if (stalls1 && !stalls.full) {
      const stalled = stalls.hold(tx);
      stalled.record = encodeEvent(translationEvent(this.walker, tx, event, stalled.tag));
      this.writeStalled();
      return Status.STALL;
    }
    if (event >= Event.F_TRANSLATION && !(stage2 ? context.record2 : context.record1)) return Status.ABORT;
    return this.record(encodeEvent(translationEvent(this.walker, tx, event, -1)));
  }

  /** FAULT when the record was written or lost to a full queue; ABORT when nobody could have seen it. */
  private record(words: readonly bigint[]): StatusCode {
    const written = this.events.write(words);
    if (written === Written.OFF) return Status.ABORT;
    this.tap.ledger[written === Written.YES ? Count.FAULTS : Count.FAULTS_OVERFLOWED]++;
    if (written === Written.ABORTED) this.state.raiseError(GERROR.EVENTQ_ABT_ERR);
    else this.state.assert('eventq', IRQ_CTRL.EVENTQ);
    return Status.FAULT;
  }

  /** Records of stalls wait for room: without them software could never resume. */
  private writeStalled(): void {
    for (const stalled of this.stalls.unrecorded()) {
      if (!this.events.enabled || this.events.full) return;
      const words = stalled.record!;
      stalled.record = null;
      this.record(words);
    }
  }

  private command(op: number, w0lo: number, w0hi: number, w1lo: number, w1hi: number): number {
    switch (op) {
      case Op.SYNC:
        return this.sync(w0lo, w0hi, w1lo, w1hi);
      case Op.PREFETCH_CONFIG:
      case Op.PREFETCH_ADDR:
        return CommandError.NONE;
      case Op.RESUME:
      case Op.STALL_TERM:
        return this.features.stall ? this.resume(op, w0lo, w0hi, w1lo) : CommandError.ILL;
      default:
        // ATC_INV and PRI_RESP are illegal without ATS and PRI, as EL2 invalidations are without HYP.
        return this.invalidation.run(op, w0lo, w0hi, w1lo, w1hi) ? CommandError.NONE : CommandError.ILL;
    }
  }

  private sync(w0lo: number, _w0hi: number, _w1lo: number, _w1hi: number): number {
    const signal = bits32(w0lo, 13, 12);
    if (signal === 3) return CommandError.ILL;
    // Without IDR0.MSI the completion interrupt is the wire.
    if (signal === SyncSignal.IRQ) this.onInterrupt?.('sync');
    return CommandError.NONE;
  }

  private resume(op: number, w0lo: number, sid: number, w1lo: number): number {
    if (op === Op.STALL_TERM) {
      for (const stalled of this.stalls.takeStream(sid >>> 0)) this.finish(stalled, Status.ABORT);
      return CommandError.NONE;
    }
    const stalled = this.stalls.take(sid >>> 0, bits32(w1lo, 15, 0));
    if (stalled === null) return CommandError.NONE;
    const retry = bits32(w0lo, 12, 12) === 1;
    this.finish(stalled, retry ? this.translate(stalled.tx) : Status.ABORT);
    return CommandError.NONE;
  }

  private finish(stalled: Stalled, status: StatusCode): void {
    const { tx } = stalled;
    // It stalled again, with a tag of its own.
    if (status === Status.STALL) return;
    const writes = status === Status.OK && (tx.access & Access.WRITE) !== 0 && this.bus !== null && tx.size <= 4;
    const result = writes ? this.bus!.store(tx) : status;
    this.onResume?.(tx, result);
  }
}
