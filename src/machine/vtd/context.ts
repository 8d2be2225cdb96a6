/** What a VT-d unit does with the requests of one source: a context entry, decoded. */
import { getInPlace, getNumber, hi32, lo32, word64 } from '../../arch/bits.ts';
import { DmaFault } from '../../arch/vtd/faults.ts';
import {
  CONTEXT_ENTRY,
  CONTEXT_ENTRY_SIZE,
  decodeAddressWidth,
  ROOT_ENTRY,
  ROOT_ENTRY_SIZE,
  TranslationType,
} from '../../arch/vtd/tables.ts';
import { fromHalves, type Hpa } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { WalkStep } from '../../ports/outcome.ts';
import { Regime, tlbHash, tlbId } from '../tlb.ts';

export class SourceContext {
  declare readonly sid: number;
  declare readonly domain: number;
  declare readonly passThrough: boolean;
  /** FPD: its faults are not recorded. */
  declare readonly silent: boolean;
  declare readonly tableHi: number;
  declare readonly tableLo: number;
  /** 39 or 48; 0 with pass-through. */
  declare readonly width: number;
  declare readonly regime: number;
  declare readonly id: number;
  declare readonly hash: number;

  constructor(sid: number, words: readonly bigint[], passThrough: boolean) {
    this.sid = sid;
    this.domain = getNumber(words, CONTEXT_ENTRY.DID);
    this.passThrough = passThrough;
    this.silent = getNumber(words, CONTEXT_ENTRY.FPD) === 1;
    const table = getInPlace(words, CONTEXT_ENTRY.SLPTPTR);
    this.tableHi = hi32(table);
    this.tableLo = lo32(table);
    this.width = decodeAddressWidth(getNumber(words, CONTEXT_ENTRY.AW));
    this.regime = passThrough ? Regime.NONE : Regime.S2;
    this.id = tlbId(this.domain, 0);
    this.hash = tlbHash(this.id);
  }
}

/** Stands in every empty slot of the context cache: no request has this source id. */
export const NO_CONTEXT = new SourceContext(-2, [0n, 0n], true);

/** Reads context entries from memory. A refusal leaves its reason in `reason`, and whether it is recorded in `silent`. */
export class ContextReader {
  reason = 0;
  silent = false;
  trace: WalkStep[] | null = null;
  private readonly memory: PhysicalMemory;
  private readonly maximumWidth: number;

  constructor(memory: PhysicalMemory, maximumWidth: number) {
    this.memory = memory;
    this.maximumWidth = maximumWidth;
  }

  /** `root`: physical base of the root table. */
  read(root: bigint, sid: number): SourceContext | null {
    this.silent = false;
    const rootEntry = this.fetch(root + BigInt(((sid >>> 8) & 0xff) * ROOT_ENTRY_SIZE), 'root table');
    if (rootEntry === null) return this.refuse(DmaFault.ROOT_UNREADABLE);
    if (getNumber(rootEntry, ROOT_ENTRY.P) === 0) return this.refuse(DmaFault.ROOT_NOT_PRESENT);
    const table = getInPlace(rootEntry, ROOT_ENTRY.CTP);
    const words = this.fetch(table + BigInt((sid & 0xff) * CONTEXT_ENTRY_SIZE), 'context table');
    if (words === null) return this.refuse(DmaFault.CONTEXT_UNREADABLE);
    this.silent = getNumber(words, CONTEXT_ENTRY.FPD) === 1;
    if (getNumber(words, CONTEXT_ENTRY.P) === 0) return this.refuse(DmaFault.CONTEXT_NOT_PRESENT);
    const type = getNumber(words, CONTEXT_ENTRY.TT);
    if (type === TranslationType.PASS_THROUGH) return new SourceContext(sid, words, true);
    // The unit has no device TLBs, so that type 1 is as reserved as type 3.
    const width = decodeAddressWidth(getNumber(words, CONTEXT_ENTRY.AW));
    if (type !== TranslationType.SECOND_LEVEL || width === 0 || width > this.maximumWidth) {
      return this.refuse(DmaFault.CONTEXT_INVALID);
    }
    return new SourceContext(sid, words, false);
  }

  private fetch(at: bigint, table: string): bigint[] | null {
    const { memory } = this;
    const words: bigint[] = [];
    for (const address of [at, at + 8n]) {
      if (!memory.locate(hi32(address), lo32(address))) return null;
      words.push(word64(memory.words[memory.at], memory.words[memory.at + 1]));
    }
    this.trace?.push({ table, level: -1, at: fromHalves(hi32(at), lo32(at)) as Hpa, entry: words[0] });
    return words;
  }

  private refuse(reason: number): null {
    this.reason = reason;
    return null;
  }
}
