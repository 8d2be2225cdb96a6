/** A translation told in full, without side effects: no event, no stall, nothing enters a cache. */
import { Event, type EventRecord, encodeEvent, eventName } from '../../arch/smmuv3/events.ts';
import { fromHalves, type Hpa, hex, type Iova } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { TranslationOutcome, WalkStep } from '../../ports/outcome.ts';
import type { Transaction } from '../../ports/transaction.ts';
import { Regime, type Tlb, tlbIndex } from '../tlb.ts';
import { type ConfigurationCache, ConfigurationReader } from './configuration.ts';
import { type StreamContext, stage1Of, walkHi } from './context.ts';
import type { Features } from './features.ts';
import { configurationEvent, translationEvent } from './record.ts';
import type { SmmuRegisters } from './registers.ts';
import { exceeds } from './stage.ts';
import { permits, TableWalker, WRITE_WALKS } from './walker.ts';

export interface Explained {
  readonly state: SmmuRegisters;
  readonly features: Features;
  readonly memory: PhysicalMemory;
  readonly tlb: Tlb;
  readonly configuration: ConfigurationCache;
  /** The context that the SMMU holds for the stream, if it does. */
  readonly cached: StreamContext | null;
  readonly nextTag: number;
}

export function explain(smmu: Explained, tx: Transaction): TranslationOutcome {
  const { state, features } = smmu;
  const iova = fromHalves(tx.iovaHi, tx.iovaLo) as Iova;
  if (!state.enabled) {
    if (state.aborts) return { kind: 'abort', why: 'the SMMU is disabled, and GBPA.ABORT is set', steps: [] };
    if (exceeds(tx.iovaHi, tx.iovaLo, features.oas))
      return { kind: 'abort', why: `beyond ${features.oas} bits`, steps: [] };
    return { kind: 'bypass', pa: fromHalves(tx.iovaHi, tx.iovaLo) as Hpa, why: 'the SMMU is disabled' };
  }
  const steps: WalkStep[] = [];
  const walker = new TableWalker(smmu.memory);
  const reader = new ConfigurationReader(smmu.memory, features, walker, smmu.configuration, false);
  reader.trace = steps;
  walker.trace = steps;
  const context = smmu.cached ?? reader.read(state.streamTable, tx.requester, tx.ssid);
  if (context === null) {
    const fault = reader.fault!;
    if (fault.event === Event.C_BAD_STREAMID && !state.recordsBadStreams) {
      return { kind: 'abort', why: `C_BAD_STREAMID, not recorded (CR2.RECINVSID is 0): ${fault.why}`, steps };
    }
    return refused(configurationEvent(tx, fault), fault.stage2 ? 2 : 0, iova, fault.why, steps);
  }
  if (context.kind === 'abort') return { kind: 'abort', why: 'STE.Config aborts the stream', steps };
  if (context.kind === 'bypass') return bypass(smmu, walker, tx, steps);
  return translated(smmu, context, walker, tx, steps);
}

function bypass(smmu: Explained, walker: TableWalker, tx: Transaction, steps: WalkStep[]): TranslationOutcome {
  const pa = fromHalves(tx.iovaHi, tx.iovaLo);
  if (!exceeds(tx.iovaHi, tx.iovaLo, smmu.features.oas)) {
    return { kind: 'bypass', pa: pa as Hpa, why: 'STE.Config bypasses translation' };
  }
  const event = translationEvent(walker, tx, Event.F_ADDR_SIZE, -1);
  return refused(event, 1, pa as Iova, `the address is beyond ${smmu.features.oas} bits`, steps);
}

/** On a TLB hit the address is the TLB's and the steps are what a walk would find now: they differ when the entry is stale. */
function translated(
  smmu: Explained,
  context: StreamContext,
  walker: TableWalker,
  tx: Transaction,
  steps: WalkStep[],
): TranslationOutcome {
  const { tlb } = smmu;
  const { iovaHi: hi, iovaLo: lo } = tx;
  const iova = fromHalves(hi, lo) as Iova;
  const s1 = stage1Of(context, hi);
  let event: number = Event.F_TRANSLATION;
  if (s1 !== undefined) event = walker.walk(s1, context.s2, walkHi(context, s1, hi), lo, tx.access);
  const index = tlbIndex(hi, lo, context.hash);
  if (tlb.holds(index, hi, lo, context.regime, context.id)) {
    if (permits(tlb.perms(index), tx.access)) {
      const pa = fromHalves(tlb.paHi(index), tlb.paLo(index) | (lo & 4095)) as Hpa;
      return { kind: 'translated', pa, steps, tlbHit: true };
    }
    const final = context.regime !== Regime.NESTED && (tlb.perms(index) & WRITE_WALKS) === 0;
    if (final) event = walker.refuseByEntry(context.regime === Regime.S2, hi, lo);
  }
  if (event === 0) {
    return { kind: 'translated', pa: fromHalves(walker.outHi, walker.outLo) as Hpa, steps, tlbHit: false };
  }
  const stage = walker.stage2 ? 2 : 1;
  const why = reason(event, stage, walker, iova, s1 === undefined);
  if (event >= Event.F_TRANSLATION) {
    if (stage === 2 ? context.stall2 : context.stall1) {
      const record = recordOf(translationEvent(walker, tx, event, smmu.nextTag), stage);
      return { kind: 'stall', record, tag: smmu.nextTag, why };
    }
    if (!(stage === 2 ? context.record2 : context.record1))
      return { kind: 'abort', why: `${why} (not recorded)`, steps };
  }
  return refused(translationEvent(walker, tx, event, -1), stage, iova, why, steps);
}

const recordOf = (event: EventRecord, stage: 0 | 1 | 2) => ({
  name: eventName(event.id),
  id: event.id,
  words: encodeEvent(event),
  stage,
});

function refused(event: EventRecord, stage: 0 | 1 | 2, iova: Iova, why: string, steps: WalkStep[]): TranslationOutcome {
  return { kind: 'fault', record: recordOf(event, stage), iova, why, steps };
}

function reason(event: number, stage: number, walker: TableWalker, iova: number, halfOff: boolean): string {
  const where = stage === 2 ? `stage 2, IPA ${hex(fromHalves(walker.ipaHi, walker.ipaLo))}` : 'stage 1';
  switch (event) {
    case Event.F_TRANSLATION:
      return halfOff
        ? 'this half of the address space is disabled (CD.EPD)'
        : `${where}: nothing is mapped at ${hex(iova)}`;
    case Event.F_ADDR_SIZE:
      return `${where}: an output address is beyond the configured size`;
    case Event.F_ACCESS:
      return `${where}: the access flag is clear`;
    case Event.F_PERMISSION:
      return `${where}: the mapping does not permit this access`;
    default:
      return `${where}: no memory at table ${hex(fromHalves(walker.fetchHi, walker.fetchLo))}`;
  }
}
