/** Reads a stream's configuration from memory: stream table, STE, CD table, CD (IHI 0070 3.3, 5, 7.3). */
import { getInPlace, getNumber, hi32, lo32, word64 } from '../../arch/bits.ts';
import { stage1Geometry, stage2FromSte } from '../../arch/lpae/geometry.ts';
import { CD, CD_SIZE, CD_WORDS, granuleShiftOfTg0, granuleShiftOfTg1, L1CD, l2CdBits } from '../../arch/smmuv3/cd.ts';
import { Event, EventClass } from '../../arch/smmuv3/events.ts';
import { ADDRESS_SIZES } from '../../arch/smmuv3/registers.ts';
import { S1Dss, S1Fmt, STE, STE_SIZE, STE_WORDS, SteConfig } from '../../arch/smmuv3/ste.ts';
import { L1STD, l1Entries } from '../../arch/smmuv3/stream-table.ts';
import { fromHalves, type Hpa } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { WalkStep } from '../../ports/outcome.ts';
import { StreamContext } from './context.ts';
import type { Features } from './features.ts';
import { Stage } from './stage.ts';
import type { TableWalker } from './walker.ts';

/** Where the stream table is: STRTAB_BASE and STRTAB_BASE_CFG. */
export interface StreamTable {
  readonly base: bigint;
  readonly log2size: number;
  readonly twoLevel: boolean;
  readonly split: number;
}

/** Why there is no context. */
export interface ConfigurationFault {
  readonly event: number;
  readonly why: string;
  /** F_STE_FETCH, F_CD_FETCH. */
  readonly fetch: bigint;
  /** A stage 2 refused the fetch of a CD: class and IPA of the record. */
  readonly stage2: boolean;
  readonly class: number;
  readonly ipa: bigint;
}

/** Configuration structures that the SMMU holds; CFGI commands take them out. */
export class ConfigurationCache {
  readonly stes = new Map<number, bigint[]>();
  /** By stream, then by substream. */
  readonly cds = new Map<number, Map<number, bigint[]>>();
}

export class ConfigurationReader {
  fault: ConfigurationFault | null = null;
  /** Set for a person who wants the steps. */
  trace: WalkStep[] | null = null;
  private readonly memory: PhysicalMemory;
  private readonly features: Features;
  private readonly walker: TableWalker;
  private readonly cache: ConfigurationCache;
  private readonly keep: boolean;

  /** `keep`: structures that were read enter the cache. */
  constructor(
    memory: PhysicalMemory,
    features: Features,
    walker: TableWalker,
    cache: ConfigurationCache,
    keep: boolean,
  ) {
    this.memory = memory;
    this.features = features;
    this.walker = walker;
    this.cache = cache;
    this.keep = keep;
  }

  /** The context, or null with `fault` set. */
  read(table: StreamTable, sid: number, ssid: number): StreamContext | null {
    this.fault = null;
    const ste = this.cache.stes.get(sid) ?? this.fetchSte(table, sid);
    if (ste === null) return null;
    if (getNumber(ste, STE.V) === 0) return this.refuse(Event.C_BAD_STE, 'STE.V is 0');
    const config = getNumber(ste, STE.Config);
    if (config < SteConfig.BYPASS) return new StreamContext(sid, ssid, { kind: 'abort' });
    const s2 = (config & 2) === 0 ? null : this.stage2(ste);
    if (this.fault !== null) return null;
    if ((config & 1) !== 0) return this.withStage1(ste, sid, ssid, s2);
    if (s2 === null) return new StreamContext(sid, ssid, { kind: 'bypass' });
    return new StreamContext(sid, ssid, { kind: 'translate', ...this.secondStage(ste, s2) });
  }

  private fetchSte(table: StreamTable, sid: number): bigint[] | null {
    const { features } = this;
    const bits = Math.min(table.log2size, features.sidBits);
    if (sid >= 2 ** bits)
      return this.refuse(Event.C_BAD_STREAMID, `stream id is beyond the table of 2^${bits} entries`);
    let at = table.base + BigInt(sid * STE_SIZE);
    if (table.twoLevel) {
      const l1at = table.base + BigInt(Math.floor(sid / 2 ** table.split) * 8);
      const l1 = this.fetch(l1at, 1, Event.F_STE_FETCH, 'stream table');
      if (l1 === null) return null;
      const index = sid % 2 ** table.split;
      const entries = l1Entries(l1);
      if (index >= entries) {
        return this.refuse(Event.C_BAD_STREAMID, `first-level descriptor spans ${entries} entries, index is ${index}`);
      }
      at = getInPlace(l1, L1STD.L2Ptr) + BigInt(index * STE_SIZE);
    }
    const ste = this.fetch(at, STE_WORDS, Event.F_STE_FETCH, 'stream table');
    if (ste !== null && this.keep) this.cache.stes.set(sid, ste);
    return ste;
  }

  private stage2(ste: readonly bigint[]): Stage | null {
    const { features } = this;
    const bad = (why: string): null => this.refuse(Event.C_BAD_STE, why);
    if (!features.stage2) return bad('STE.Config wants stage 2, which this SMMU lacks');
    if (getNumber(ste, STE.S2AA64) === 0) return bad('STE.S2AA64 is 0: only AArch64 tables exist');
    if (getNumber(ste, STE.S2ENDI) !== 0) return bad('STE.S2ENDI is 1: only little-endian tables exist');
    if (getNumber(ste, STE.S2S) !== 0 && !features.stall) return bad('STE.S2S is 1, and this SMMU cannot stall');
    const updates = updatesOf(getNumber(ste, STE.S2HA), getNumber(ste, STE.S2HD), features.httu);
    if (updates === null)
      return bad(`STE.S2HA or S2HD wants updates of descriptors that IDR0.HTTU ${features.httu} lacks`);
    const granule = granuleShiftOfTg0(getNumber(ste, STE.S2TG));
    if (!features.granuleShifts.includes(granule)) return bad('STE.S2TG names a granule that this SMMU lacks');
    const t0sz = getNumber(ste, STE.S2T0SZ);
    const outputBits = Math.min(ADDRESS_SIZES[getNumber(ste, STE.S2PS)] ?? 52, features.oas);
    if (t0sz > 39 || 64 - t0sz > features.oas) return bad(`STE.S2T0SZ ${t0sz} is out of range`);
    const geometry = stage2FromSte(granule, 64 - t0sz, getNumber(ste, STE.S2SL0));
    if (geometry === null) return bad(`STE.S2SL0 does not go with S2T0SZ ${t0sz}`);
    const base = getInPlace(ste, STE.S2TTB);
    return new Stage(2, geometry, {
      tableHi: hi32(base),
      tableLo: lo32(base),
      outputBits,
      accessFlagOff: getNumber(ste, STE.S2AFFD) === 1,
      protectWalk: getNumber(ste, STE.S2PTW) === 1,
      ...updates,
    });
  }

  private secondStage(ste: readonly bigint[], s2: Stage | null) {
    return {
      s2,
      vmid: this.features.stage2 ? getNumber(ste, STE.S2VMID) : 0,
      record2: getNumber(ste, STE.S2R) === 1,
      stall2: getNumber(ste, STE.S2S) === 1,
    };
  }

  private withStage1(ste: bigint[], sid: number, ssid: number, s2: Stage | null): StreamContext | null {
    const bad = (why: string): null => this.refuse(Event.C_BAD_STE, why);
    const { features } = this;
    if (!features.stage1) return bad('STE.Config wants stage 1, which this SMMU lacks');
    if (getNumber(ste, STE.STRW) !== 0) return bad('STE.STRW is not NS-EL1: this SMMU has no EL2 worlds');
    const bits = getNumber(ste, STE.S1CDMax);
    if (bits > features.ssidBits) return bad(`STE.S1CDMax ${bits} is beyond SSIDSIZE ${features.ssidBits}`);
    const format = getNumber(ste, STE.S1Fmt);
    if (bits > 0 && (format === 3 || (format !== S1Fmt.LINEAR && !features.twoLevelContexts)))
      return bad(`STE.S1Fmt ${format} is reserved here`);
    const dss = getNumber(ste, STE.S1DSS);
    if (bits > 0 && dss === 3) return bad('STE.S1DSS 3 is reserved');
    let index = ssid;
    if (ssid < 0) {
      index = 0;
      if (bits > 0 && dss === S1Dss.TERMINATE)
        return this.refuse(Event.F_STREAM_DISABLED, 'no substream id, and STE.S1DSS terminates such');
      if (bits > 0 && dss === S1Dss.BYPASS) {
        if (s2 === null) return new StreamContext(sid, ssid, { kind: 'bypass' });
        return new StreamContext(sid, ssid, { kind: 'translate', ...this.secondStage(ste, s2) });
      }
    } else if (bits === 0 || ssid >= 2 ** bits) {
      return this.refuse(Event.C_BAD_SUBSTREAMID, `substream ${ssid} with STE.S1CDMax ${bits}`);
    } else if (ssid === 0 && dss === S1Dss.SSID0) {
      return this.refuse(Event.F_STREAM_DISABLED, 'substream 0 belongs to transactions without one (STE.S1DSS)');
    }
    const cd = this.cache.cds.get(sid)?.get(index) ?? this.fetchCd(ste, sid, index, s2);
    return cd === null ? null : this.context(ste, cd, sid, ssid, s2);
  }

  private fetchCd(ste: readonly bigint[], sid: number, index: number, s2: Stage | null): bigint[] | null {
    let at = getInPlace(ste, STE.S1ContextPtr);
    const format = getNumber(ste, STE.S1Fmt);
    if (getNumber(ste, STE.S1CDMax) > 0 && format !== S1Fmt.LINEAR) {
      const bits = l2CdBits(format);
      const l1at = this.throughStage2(at + BigInt((index >>> bits) * 8), s2);
      const l1 = l1at === null ? null : this.fetch(l1at, 1, Event.F_CD_FETCH, 'context descriptor table');
      if (l1 === null) return null;
      if (getNumber(l1, L1CD.V) === 0)
        return this.refuse(Event.C_BAD_SUBSTREAMID, 'first-level context descriptor is not valid');
      at = getInPlace(l1, L1CD.L2Ptr) + BigInt((index & ((1 << bits) - 1)) * CD_SIZE);
    } else {
      at += BigInt(index * CD_SIZE);
    }
    const physical = this.throughStage2(at, s2);
    const cd = physical === null ? null : this.fetch(physical, CD_WORDS, Event.F_CD_FETCH, 'context descriptor');
    if (cd !== null && this.keep) {
      const ofStream = this.cache.cds.get(sid);
      if (ofStream === undefined) this.cache.cds.set(sid, new Map([[index, cd]]));
      else ofStream.set(index, cd);
    }
    return cd;
  }

  private context(ste: bigint[], cd: bigint[], sid: number, ssid: number, s2: Stage | null): StreamContext | null {
    const { features } = this;
    const bad = (why: string): null => this.refuse(Event.C_BAD_CD, why);
    if (getNumber(cd, CD.V) === 0) return bad('CD.V is 0');
    if (getNumber(cd, CD.AA64) === 0) return bad('CD.AA64 is 0: only AArch64 tables exist');
    if (getNumber(cd, CD.ENDI) !== 0) return bad('CD.ENDI is 1: only little-endian tables exist');
    const stall = getNumber(cd, CD.S) === 1;
    if (stall && !features.stall) return bad('CD.S is 1, and this SMMU cannot stall');
    if (stall && getNumber(ste, STE.S1STALLD) === 1) return bad('CD.S is 1, and STE.S1STALLD forbids stalls');
    const lower = this.stage1(cd, false);
    const upper = this.fault === null ? this.stage1(cd, true) : null;
    if (this.fault !== null) return null;
    return new StreamContext(sid, ssid, {
      kind: 'translate',
      ...this.secondStage(ste, s2),
      s1: lower,
      s1Upper: upper,
      topByteIgnored: getNumber(cd, CD.TBI0) === 1,
      asid: getNumber(cd, CD.ASID),
      record1: getNumber(cd, CD.R) === 1,
      stall1: stall,
    });
  }

  /** TTB0's or TTB1's tables; null when the half is disabled (EPD) or malformed (then `fault` is set). */
  private stage1(cd: readonly bigint[], upper: boolean): Stage | null {
    const { features } = this;
    if (getNumber(cd, upper ? CD.EPD1 : CD.EPD0) === 1) return null;
    const which = upper ? 1 : 0;
    const granule = upper ? granuleShiftOfTg1(getNumber(cd, CD.TG1)) : granuleShiftOfTg0(getNumber(cd, CD.TG0));
    if (!features.granuleShifts.includes(granule))
      return this.refuse(Event.C_BAD_CD, `CD.TG${which} names a granule that this SMMU lacks`);
    const size = getNumber(cd, upper ? CD.T1SZ : CD.T0SZ);
    if (size < 16 || size > 39) return this.refuse(Event.C_BAD_CD, `CD.T${which}SZ ${size} is out of range`);
    const updates = updatesOf(getNumber(cd, CD.HA), getNumber(cd, CD.HD), features.httu);
    if (updates === null) {
      return this.refuse(
        Event.C_BAD_CD,
        `CD.HA or HD wants updates of descriptors that IDR0.HTTU ${features.httu} lacks`,
      );
    }
    const base = getInPlace(cd, upper ? CD.TTB1 : CD.TTB0);
    return new Stage(1, stage1Geometry(granule, 64 - size), {
      tableHi: hi32(base),
      tableLo: lo32(base),
      outputBits: Math.min(ADDRESS_SIZES[getNumber(cd, CD.IPS)] ?? 52, features.oas),
      accessFlagOff: getNumber(cd, CD.AFFD) === 1,
      hierarchical: getNumber(cd, upper ? CD.HAD1 : CD.HAD0) === 0,
      writeNoExec: getNumber(cd, CD.WXN) === 1,
      ...updates,
    });
  }

  /** A CD's address is an IPA under a stage 2. */
  private throughStage2(at: bigint, s2: Stage | null): bigint | null {
    if (s2 === null) return at;
    const { walker } = this;
    const event = walker.fetchThrough(s2, hi32(at), lo32(at), EventClass.CD);
    if (event === 0) return word64(walker.outLo, walker.outHi);
    this.fault = {
      event,
      why: 'stage 2 refuses the fetch of the context descriptor',
      fetch: 0n,
      stage2: true,
      class: EventClass.CD,
      ipa: at,
    };
    return null;
  }

  private fetch(at: bigint, count: number, event: number, table: string): bigint[] | null {
    const { memory } = this;
    const words: bigint[] = [];
    for (let i = 0; i < count; i++) {
      const address = at + BigInt(i * 8);
      if (!memory.locate(hi32(address), lo32(address))) {
        this.fault = {
          event,
          why: `no memory at the ${table}`,
          fetch: at,
          stage2: false,
          class: EventClass.IN,
          ipa: 0n,
        };
        return null;
      }
      words.push(word64(memory.words[memory.at], memory.words[memory.at + 1]));
    }
    this.trace?.push({ table, level: -1, at: fromHalves(hi32(at), lo32(at)) as Hpa, entry: words[0] });
    return words;
  }

  private refuse(event: number, why: string): null {
    this.fault = { event, why, fetch: 0n, stage2: false, class: EventClass.IN, ipa: 0n };
    return null;
  }
}

/** What {HA, HD} enable, or null where the SMMU cannot (ILLEGAL). HD without HA is reserved, and enables nothing (IHI 0070 5.4). */
function updatesOf(ha: number, hd: number, httu: number): { updatesAccess: boolean; updatesDirty: boolean } | null {
  if ((ha === 1 && httu === 0) || (hd === 1 && httu < 2)) return null;
  return { updatesAccess: ha === 1, updatesDirty: ha === 1 && hd === 1 };
}
