/** The stream table in memory, linear or two-level, and the update of a live entry without a wrong state in between. */
import { hi32, lo32, pack, word64 } from '../../../arch/bits.ts';
import { STRTAB_BASE_CFG } from '../../../arch/smmuv3/registers.ts';
import { STE, STE_SIZE, STE_WORDS, SteConfig, steUsedBits } from '../../../arch/smmuv3/ste.ts';
import { L1STD, StreamTableFormat } from '../../../arch/smmuv3/stream-table.ts';
import type { KernelContext } from '../../context.ts';

/** STRTAB_SPLIT: 256 entries behind each first-level descriptor. */
const SPLIT = 8;
/** Linux bounds the first level to 1 MiB. */
const L1_LOG2_LIMIT = 17;

/** MEV, in word 1: it may change at any moment, since software bears merged records anyhow (arm_smmu_get_ste_update_safe). */
const MERGE_EVENTS = 1n << BigInt(STE.MEV.low);

/** Refuses everything silently: what a stream has that nobody attached. */
export const abortEntry = (): bigint[] => pack(STE, STE_WORDS, { V: 1, Config: SteConfig.ABORT });
/** SHCFG 1: use the incoming attributes. */
export const bypassEntry = (): bigint[] => pack(STE, STE_WORDS, { V: 1, Config: SteConfig.BYPASS, SHCFG: 1 });

export class SmmuStreamTable {
  readonly base: number;
  /** STRTAB_BASE_CFG. */
  readonly configuration: number;
  private readonly context: KernelContext;
  private readonly twoLevel: boolean;
  private readonly streams: number;
  private readonly l2 = new Map<number, number>();

  /** @throws RangeError when memory is exhausted. */
  constructor(context: KernelContext, sidBits: number, twoLevel: boolean) {
    this.context = context;
    this.twoLevel = twoLevel && sidBits > SPLIT;
    const l1Log2 = Math.min(sidBits - SPLIT, L1_LOG2_LIMIT);
    const log2 = this.twoLevel ? l1Log2 + SPLIT : sidBits;
    this.streams = 2 ** log2;
    const bytes = Math.max(4096, this.twoLevel ? 8 * 2 ** l1Log2 : STE_SIZE * 2 ** sidBits);
    const base = context.memory.allocate(bytes, bytes);
    if (base === null) throw new RangeError(`no memory for a stream table of 2^${log2} streams`);
    this.base = base;
    const format = this.twoLevel ? StreamTableFormat.TWO_LEVEL : StreamTableFormat.LINEAR;
    const values = { LOG2SIZE: log2, SPLIT: this.twoLevel ? SPLIT : 0, FMT: format };
    this.configuration = Number(pack(STRTAB_BASE_CFG, 1, values)[0]);
    if (!this.twoLevel) this.fillAborts(base, this.streams);
  }

  /** Physical address of a stream's entry, made where its table is missing; -1: out of range, -2: no memory. */
  entry(sid: number): number {
    if (sid >= this.streams) return -1;
    if (!this.twoLevel) return this.base + sid * STE_SIZE;
    const index = Math.floor(sid / 2 ** SPLIT);
    let table = this.l2.get(index);
    if (table === undefined) {
      const bytes = STE_SIZE << SPLIT;
      const made = this.context.memory.allocate(bytes, bytes);
      if (made === null) return -2;
      table = made;
      this.fillAborts(table, 2 ** SPLIT);
      this.l2.set(index, table);
      const descriptor = pack(L1STD, 1, { Span: SPLIT + 1 })[0] | BigInt(table);
      this.context.memory.write64(this.base + index * 8, lo32(descriptor), hi32(descriptor));
    }
    return table + (sid % 2 ** SPLIT) * STE_SIZE;
  }

  /**
   * Rewrites the entry at `at`. `flush` makes the SMMU drop its copy and waits. While at most one word differs in what the
   * SMMU uses, every state it can read is the old entry or the new one; otherwise V goes to 0 in between
   * (arm_smmu_write_entry does the same).
   */
  write(at: number, target: readonly bigint[], flush: () => void): void {
    const current = this.read(at);
    const usedNow = steUsedBits(current);
    const usedThen = steUsedBits(target);
    // Bits that the SMMU does not look at yet take their new value first.
    const held = usedNow.map((bits, i) => (i === 1 ? bits & ~(usedThen[1] & MERGE_EVENTS) : bits));
    const prepared = current.map((word, i) => (word & held[i]) | (target[i] & ~held[i]));
    const critical = prepared.flatMap((word, i) => ((word & usedThen[i]) === target[i] ? [] : [i]));
    if (critical.length <= 1) {
      this.store(at, prepared, flush);
      if (critical.length === 1) this.store(at, prepared.with(critical[0], target[critical[0]]), flush);
      this.store(at, target, flush);
      return;
    }
    this.store(at, prepared.with(0, 0n), flush);
    this.store(at, target.with(0, 0n), flush);
    this.store(at, target, flush);
  }

  private read(at: number): bigint[] {
    const { memory } = this.context;
    return Array.from({ length: STE_WORDS }, (_, i) =>
      word64(memory.read32(at + i * 8), memory.read32(at + i * 8 + 4)),
    );
  }

  private store(at: number, words: readonly bigint[], flush: () => void): void {
    const current = this.read(at);
    let changed = false;
    words.forEach((word, i) => {
      if (word === current[i]) return;
      this.context.memory.write64(at + i * 8, lo32(word), hi32(word));
      changed = true;
    });
    if (changed) flush();
  }

  private fillAborts(table: number, count: number): void {
    const [word] = abortEntry();
    for (let i = 0; i < count; i++) this.context.memory.write64(table + i * STE_SIZE, lo32(word), hi32(word));
  }
}
