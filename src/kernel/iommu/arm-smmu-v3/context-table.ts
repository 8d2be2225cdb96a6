/** A stream's context descriptors, one for each substream: linear, or in two levels of 64 KiB tables (arm_smmu_alloc_cd_tables). */
import { hi32, lo32, pack } from '../../../arch/bits.ts';
import { CD_SIZE, L1CD, l2CdBits } from '../../../arch/smmuv3/cd.ts';
import { S1Fmt } from '../../../arch/smmuv3/ste.ts';
import type { PhysicalMemory } from '../../../ports/memory.ts';

const PAGE = 4096;
/** Bits of a substream id that choose a descriptor in one table of the second level. */
const LEAF_BITS = l2CdBits(S1Fmt.TWO_LEVEL_64K);

/**
 * A table of descriptors and its twin, one behind the other. A descriptor that is in use is exchanged by filling the twin and moving the one pointer
 * that leads to the table: the SMMU reads the old one or the new one, and all others meanwhile.
 */
class Leaf {
  readonly base: number;
  /** 0 or 1: which of the two is the SMMU's. */
  live = 0;
  /** What is valid in each, by place. */
  readonly valid: readonly Map<number, readonly bigint[]>[] = [new Map(), new Map()];
  private readonly memory: PhysicalMemory;
  private readonly bytes: number;

  constructor(memory: PhysicalMemory, base: number, bytes: number) {
    this.memory = memory;
    this.base = base;
    this.bytes = bytes;
  }

  get table(): number {
    return this.base + this.live * this.bytes;
  }

  /** V is in the word that is written last: a descriptor appears whole. */
  put(half: number, place: number, words: readonly bigint[]): void {
    const at = this.base + half * this.bytes + place * CD_SIZE;
    for (let i = words.length - 1; i >= 0; i--) this.memory.write64(at + i * 8, lo32(words[i]), hi32(words[i]));
    this.valid[half].set(place, words);
  }

  drop(half: number, place: number): void {
    if (!this.valid[half].delete(place)) return;
    this.memory.write64(this.base + half * this.bytes + place * CD_SIZE, 0, 0);
  }

  /** Makes the twin what the live table is, but for one descriptor, and the twin the live one. */
  exchange(place: number, words: readonly bigint[]): void {
    const { live } = this;
    const twin = 1 - live;
    for (const stale of [...this.valid[twin].keys()]) if (!this.valid[live].has(stale)) this.drop(twin, stale);
    for (const [each, now] of this.valid[live]) {
      if (each !== place && this.valid[twin].get(each) !== now) this.put(twin, each, now);
    }
    this.put(twin, place, words);
    this.live = twin;
  }
}

/** What the table asks of the stream that it belongs to: both wait for the SMMU. */
export interface TableOwner {
  /** CFGI_CD. */
  invalidate(ssid: number, leaf: boolean): void;
  /** S1ContextPtr is another one. */
  moved(): void;
}

export class SmmuContextTable {
  /** STE.S1CDMax: substreams are below 2^bits; 0: there are none. */
  readonly bits: number;
  /** STE.S1Fmt. */
  readonly format: number;
  private readonly memory: PhysicalMemory;
  private readonly owner: TableOwner;
  /** The first level, or -1: linear. */
  private readonly l1: number;
  private readonly leaves = new Map<number, Leaf>();
  private count = 0;

  /** @throws RangeError when memory is exhausted. */
  constructor(memory: PhysicalMemory, owner: TableOwner, bits: number, twoLevel: boolean) {
    this.memory = memory;
    this.owner = owner;
    this.bits = bits;
    this.format = twoLevel && bits > LEAF_BITS ? S1Fmt.TWO_LEVEL_64K : S1Fmt.LINEAR;
    this.l1 = this.format === S1Fmt.LINEAR ? -1 : this.allocate(this.l1Bytes, this.l1Bytes);
    if (this.l1 < 0) this.leaf(0);
  }

  /** STE.S1ContextPtr. */
  get base(): number {
    return this.l1 < 0 ? this.leaf(0).table : this.l1;
  }

  /** Substreams with a descriptor, without 0, which is that of transactions without a substream id. */
  get used(): number {
    return this.count;
  }

  /** Physical address of a descriptor, or -1: for people and for tests that tamper with it. */
  at(ssid: number): number {
    const leaf = this.leaves.get(this.l1 < 0 ? 0 : ssid >>> LEAF_BITS);
    return leaf === undefined ? -1 : leaf.table + this.place(ssid) * CD_SIZE;
  }

  /** @throws RangeError when memory is exhausted; nothing is changed. */
  set(ssid: number, words: readonly bigint[]): void {
    const leaf = this.leaf(this.l1 < 0 ? 0 : ssid >>> LEAF_BITS);
    const place = this.place(ssid);
    if (!leaf.valid[leaf.live].has(place)) {
      leaf.put(leaf.live, place, words);
      if (ssid !== 0) this.count++;
      // The SMMU may hold that there was none.
      this.owner.invalidate(ssid, true);
      return;
    }
    leaf.exchange(place, words);
    if (this.l1 < 0) this.owner.moved();
    else {
      this.pointAt(ssid >>> LEAF_BITS, leaf);
      this.owner.invalidate(ssid, false);
    }
  }

  clear(ssid: number): void {
    const leaf = this.leaves.get(this.l1 < 0 ? 0 : ssid >>> LEAF_BITS);
    const place = this.place(ssid);
    if (!leaf?.valid[leaf.live].has(place)) return;
    leaf.drop(leaf.live, place);
    if (ssid !== 0) this.count--;
    this.owner.invalidate(ssid, true);
  }

  free(): void {
    for (const { base } of this.leaves.values()) this.memory.free(base, this.leafBytes);
    if (this.l1 >= 0) this.memory.free(this.l1, this.l1Bytes);
  }

  private place(ssid: number): number {
    return this.l1 < 0 ? ssid : ssid & ((1 << LEAF_BITS) - 1);
  }

  private get l1Bytes(): number {
    return Math.max(PAGE, 8 << (this.bits - LEAF_BITS));
  }

  /** Of a table alone. */
  private get tableBytes(): number {
    return CD_SIZE << (this.l1 < 0 ? this.bits : LEAF_BITS);
  }

  private get leafBytes(): number {
    return Math.max(PAGE, 2 * this.tableBytes);
  }

  private leaf(index: number): Leaf {
    const known = this.leaves.get(index);
    if (known !== undefined) return known;
    const base = this.allocate(this.leafBytes, Math.max(PAGE, this.tableBytes));
    const made = new Leaf(this.memory, base, this.tableBytes);
    this.leaves.set(index, made);
    if (this.l1 >= 0) {
      this.pointAt(index, made);
      this.owner.invalidate(index << LEAF_BITS, false);
    }
    return made;
  }

  private pointAt(index: number, leaf: Leaf): void {
    const word = pack(L1CD, 1, { V: 1 })[0] | BigInt(leaf.table);
    this.memory.write64(this.l1 + index * 8, lo32(word), hi32(word));
  }

  private allocate(bytes: number, alignment: number): number {
    const base = this.memory.allocate(bytes, alignment);
    if (base === null) throw new RangeError(`no memory for ${bytes} bytes of context descriptors`);
    return base;
  }
}
