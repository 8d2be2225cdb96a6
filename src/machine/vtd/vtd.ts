/** An Intel VT-d unit: DMA remapping with second-level tables in legacy mode, and the place of interrupt remapping's registers. */
import { pack } from '../../arch/bits.ts';
import { encodeFault, type FaultEntry, faultReasonText } from '../../arch/vtd/faults.ts';
import { CAP, ECAP, Granularity, VTD_FRAME, VtdReg } from '../../arch/vtd/registers.ts';
import { fromHalves, type Hpa, hex, type Iova } from '../../ports/address.ts';
import type { Bus, MmioTarget } from '../../ports/bus.ts';
import type { Iommu } from '../../ports/iommu.ts';
import { Count } from '../../ports/ledger.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { TranslationOutcome, WalkStep } from '../../ports/outcome.ts';
import type { Tap } from '../../ports/tap.ts';
import { Access, Status, type StatusCode, type Transaction } from '../../ports/transaction.ts';
import type { VtdSpec } from '../spec.ts';
import { contextSlot, contextSlots, Regime, Tlb, tlbIndex } from '../tlb.ts';
import { ContextReader, NO_CONTEXT, type SourceContext } from './context.ts';
import { FaultRecording } from './faults.ts';
import { VtdRegisters } from './registers.ts';
import { SecondLevelWalker } from './walker.ts';

const slotOf = (sid: number): number => contextSlot(sid, -1);
const WRITE = Access.WRITE;

/** Interrupt remapping, which sits in the same register page and takes its invalidations from the same queue. */
export interface RemappingPart {
  read(offset: number): number;
  write(offset: number, value: number): void;
  /** A write of GCMD. */
  command(value: number): void;
  /** Its bits of GSTS. */
  readonly status: number;
  invalidate(lo: number, hi: number): void;
  faults: { remapFault(reason: number, requester: number, index: number): void } | null;
}

export class Vtd implements Iommu {
  declare readonly name: string;
  declare readonly tap: Tap;
  declare readonly memory: PhysicalMemory;
  readonly tlb = new Tlb();
  private readonly tlbWords = this.tlb.words;
  declare readonly faults: FaultRecording;
  declare readonly registers: MmioTarget;
  /** Called when the fault event is not masked and a fault was recorded. */
  onInterrupt: (() => void) | null = null;

  declare private readonly base: number;
  declare private readonly width: number;
  declare private readonly state: VtdRegisters;
  private readonly cached: SourceContext[] = contextSlots(NO_CONTEXT);
  private readonly nothing: SourceContext[] = contextSlots(NO_CONTEXT);
  /** What the hot path looks at: the cache, or nothing while translation is off. */
  private contexts: SourceContext[] = this.nothing;
  declare private readonly reader: ContextReader;
  declare private readonly walker: SecondLevelWalker;

  /** @throws RangeError when the spec describes no unit. */
  constructor(spec: VtdSpec, memory: PhysicalMemory, tap: Tap, remapping: RemappingPart | null = null) {
    if (spec.addressWidth !== 39 && spec.addressWidth !== 48) {
      throw new RangeError(`vtd addressWidth: expected 39 or 48, got ${spec.addressWidth}`);
    }
    this.name = 'dmar0';
    this.base = spec.base;
    this.width = spec.addressWidth;
    this.memory = memory;
    this.tap = tap;
    this.reader = new ContextReader(memory, this.width);
    this.walker = new SecondLevelWalker(memory);
    this.faults = new FaultRecording(() => this.onInterrupt?.());
    this.state = new VtdRegisters(capabilities(spec, remapping !== null), memory, this.faults, remapping, {
      enable: (on) => {
        this.contexts = on ? this.cached : this.nothing;
      },
      contextCache: (granularity, domain, source, mask) => this.dropContexts(granularity, domain, source, mask),
      iotlb: (granularity, domain, hi, lo, pages) => this.dropTranslations(granularity, domain, hi, lo, pages),
    });
    this.registers = this.state;
    if (remapping !== null) {
      remapping.faults = {
        remapFault: (reason, requester, index) => {
          this.record({ reason, sourceId: requester & 0xffff, information: BigInt(index) << 48n, read: false });
        },
      };
    }
  }

  /** Puts the registers at their physical address. */
  attach(bus: Bus): void {
    bus.map(this.base, VTD_FRAME, this.registers);
  }

  translate(tx: Transaction): StatusCode {
    if (this.tap.observer !== null) return this.translateObserved(tx);
    const { requester, iovaHi, iovaLo } = tx;
    const context = this.contexts[contextSlot(requester, -1)];
    // Nothing of the interrupt range is ever in the TLB.
    if (context.sid === requester) {
      const at = tlbIndex(iovaHi, iovaLo, context.hash);
      const words = this.tlbWords;
      if (
        words[at] === ((iovaLo & -4096) | context.regime) &&
        words[at + 1] === iovaHi &&
        words[at + 2] === context.id
      ) {
        const page = words[at + 3];
        if ((tx.access & 3 & ~page) === 0) {
          tx.paHi = words[at + 4];
          tx.paLo = (page & -4096) | (iovaLo & 4095);
          return 0;
        }
      }
    }
    return this.miss(tx);
  }

  explain(tx: Transaction): TranslationOutcome {
    const pa = fromHalves(tx.iovaHi, tx.iovaLo);
    const through = (why: string): TranslationOutcome => ({ kind: 'bypass', pa: pa as Hpa, why });
    if (isInterruptRange(tx)) return through('the interrupt range is not translated (VT-d 3.14)');
    if (!this.state.enabled) return through('DMA remapping is off');
    const steps: WalkStep[] = [];
    const reader = new ContextReader(this.memory, this.width);
    reader.trace = steps;
    const held = this.contexts[slotOf(tx.requester)];
    const context = held.sid === tx.requester ? held : reader.read(this.state.root, tx.requester);
    if (context === null) return this.refused(tx, reader.reason, 0, reader.silent, steps);
    if (context.passThrough) return through('the context entry passes everything through');
    return this.explainWalk(tx, context, steps);
  }

  private explainWalk(tx: Transaction, context: SourceContext, steps: WalkStep[]): TranslationOutcome {
    const { tlb } = this;
    const { iovaHi: hi, iovaLo: lo } = tx;
    const walker = new SecondLevelWalker(this.memory);
    walker.trace = steps;
    const reason = walker.walk(context.tableHi, context.tableLo, context.width, hi, lo, tx.access);
    const index = tlbIndex(hi, lo, context.hash);
    if (tlb.holds(index, hi, lo, context.regime, context.id)) {
      const refusal = this.refusalOfEntry(index, tx.access);
      if (refusal !== 0) return this.refused(tx, refusal, 2, context.silent, steps);
      return {
        kind: 'translated',
        pa: fromHalves(tlb.paHi(index), tlb.paLo(index) | (lo & 4095)) as Hpa,
        steps,
        tlbHit: true,
      };
    }
    if (reason !== 0) return this.refused(tx, reason, 2, context.silent, steps);
    return { kind: 'translated', pa: fromHalves(walker.outHi, walker.outLo) as Hpa, steps, tlbHit: false };
  }

  private refused(
    tx: Transaction,
    reason: number,
    stage: 0 | 2,
    silent: boolean,
    steps: WalkStep[],
  ): TranslationOutcome {
    const iova = fromHalves(tx.iovaHi, tx.iovaLo) as Iova;
    const name = faultReasonText(reason);
    const why = `${(tx.access & WRITE) !== 0 ? 'DMA write' : 'DMA read'} of ${hex(iova)}: ${name}`;
    if (silent) return { kind: 'abort', why: `${why} (the context entry disables fault processing)`, steps };
    return {
      kind: 'fault',
      record: { name, id: reason, words: encodeFault(faultOf(tx, reason)), stage },
      iova,
      why,
      steps,
    };
  }

  private translateObserved(tx: Transaction): StatusCode {
    const outcome = this.explain(tx);
    const iova = fromHalves(tx.iovaHi, tx.iovaLo) as Iova;
    const status = this.miss(tx);
    this.tap.observer?.hop({ at: 'iommu', name: this.name, requester: tx.requester, iova, outcome });
    return status;
  }

  private miss(tx: Transaction): StatusCode {
    if (isInterruptRange(tx) || !this.state.enabled) return pass(tx);
    const slot = slotOf(tx.requester);
    let context: SourceContext | null = this.contexts[slot];
    if (context.sid !== tx.requester) {
      context = this.reader.read(this.state.root, tx.requester);
      if (context === null) return this.refuse(tx, this.reader.reason, this.reader.silent);
      this.contexts[slot] = context;
    }
    if (context.passThrough) return pass(tx);
    const reason = this.walk(tx, context);
    return reason === 0 ? Status.OK : this.refuse(tx, reason, context.silent);
  }

  private walk(tx: Transaction, context: SourceContext): number {
    const { tlb, walker } = this;
    const { iovaHi: hi, iovaLo: lo } = tx;
    const index = tlbIndex(hi, lo, context.hash);
    if (tlb.holds(index, hi, lo, context.regime, context.id)) {
      // The entry is there: hardware does not walk again to see whether the tables changed.
      tx.paHi = tlb.paHi(index);
      tx.paLo = tlb.paLo(index) | (lo & 4095);
      return this.refusalOfEntry(index, tx.access);
    }
    const reason = walker.walk(context.tableHi, context.tableLo, context.width, hi, lo, tx.access);
    if (reason !== 0) return reason;
    tlb.fill(index, hi, lo, Regime.S2, context.id, walker.leafShift, false);
    tlb.fillOutput(index, walker.outHi, walker.outLo, walker.perms);
    tx.paHi = walker.outHi;
    tx.paLo = walker.outLo;
    return 0;
  }

  private refusalOfEntry(index: number, access: number): number {
    if ((access & 3 & ~this.tlb.perms(index)) === 0) return 0;
    return (access & WRITE) !== 0 ? 5 : 6;
  }

  private refuse(tx: Transaction, reason: number, silent: boolean): StatusCode {
    if (silent) return Status.ABORT;
    this.record(faultOf(tx, reason));
    return Status.FAULT;
  }

  private record(fault: FaultEntry): void {
    this.tap.ledger[this.faults.write(fault) ? Count.FAULTS : Count.FAULTS_OVERFLOWED]++;
  }

  private dropContexts(granularity: number, domain: number, source: number, functionMask: number): void {
    const { cached } = this;
    const ignored = [0, 4, 6, 7][functionMask];
    for (let i = 0; i < this.cached.length; i++) {
      const context = cached[i];
      const matches =
        granularity === Granularity.GLOBAL ||
        (context.domain === domain &&
          (granularity === Granularity.DOMAIN || ((context.sid ^ source) & 0xffff & ~ignored) === 0));
      if (matches) cached[i] = NO_CONTEXT;
    }
  }

  private dropTranslations(granularity: number, domain: number, hi: number, lo: number, pages: number): void {
    if (granularity === Granularity.GLOBAL) this.tlb.invalidateAll();
    else if (granularity === Granularity.DOMAIN) this.tlb.invalidateVmid(domain, 1 << Regime.S2);
    else this.tlb.invalidateRange(domain, 0, hi, lo, pages, 1 << Regime.S2);
  }
}

/** 0xfee00000 to 0xfeefffff: interrupts, whatever the tables say. */
const isInterruptRange = (tx: Transaction): boolean => tx.iovaHi === 0 && tx.iovaLo >>> 20 === 0xfee;

function pass(tx: Transaction): StatusCode {
  tx.paHi = tx.iovaHi;
  tx.paLo = tx.iovaLo;
  return Status.OK;
}

/** Fault addresses are pages. */
function faultOf(tx: Transaction, reason: number): FaultEntry {
  const information = (BigInt(tx.iovaHi >>> 0) << 32n) | BigInt((tx.iovaLo & -4096) >>> 0);
  return { reason, sourceId: tx.requester & 0xffff, information, read: (tx.access & WRITE) === 0 };
}

/** CAP and ECAP: one fault recording register at 0x220, invalidation registers at 0xf0, domain ids of 16 bits. */
function capabilities(spec: VtdSpec, remapping: boolean): { cap: bigint; ecap: bigint } {
  const cap = pack(CAP, 1, {
    ND: 6,
    SAGAW: spec.addressWidth === 48 ? 0b110 : 0b10,
    MGAW: spec.addressWidth - 1,
    ZLR: 1,
    FRO: VtdReg.FRCD / 16,
    SLLPS: 0b11,
    PSI: 1,
    NFR: 0,
    MAMV: 18,
    DWD: 1,
    DRD: 1,
  });
  const ecap = pack(ECAP, 1, {
    C: spec.coherent ? 1 : 0,
    QI: 1,
    IR: remapping ? 1 : 0,
    PT: 1,
    IRO: VtdReg.IVA / 16,
    MHMV: 15,
  });
  return { cap: cap[0], ecap: ecap[0] };
}
