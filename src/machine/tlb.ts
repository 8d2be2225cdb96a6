/**
 * The TLB: 4,096 direct-mapped entries of 4 KiB, tagged with VMID, ASID and regime, holding both stages' result combined.
 * A block fills as many entries as are used of it. Nothing leaves but by an invalidation or by another entry.
 */

/** What an entry came from; stands in the low bits of its address tag, where 0 is an empty entry. */
export const Regime = { S1: 1, S2: 2, NESTED: 3, NONE: 7 } as const;

const BITS = 12;
const SIZE = 1 << BITS;
const MASK = SIZE - 1;
/** Beyond so many pages one look at every entry is cheaper than one at each page's. */
const PROBE_LIMIT = 256;

/** ASID in the low, VMID in the high half: the tag that a hit compares. */
export const tlbId = (vmid: number, asid: number): number => (vmid << 16) | asid;

/** Folds a tag into the bits that choose an entry. */
export const tlbHash = (id: number): number => (id ^ (id >>> 13)) & MASK;

/** Words of an entry: one cache line holds two, and a hit looks at one array. */
const WORDS_LOG2 = 3;
/**
 * Word of an entry: page bits 31:12 of the input address and the regime; its high half; the tag of {@link tlbId}; page bits 31:12 of the
 * output and the permissions (RWX unprivileged at bit 0, privileged at bit 4); its high half; log2 of the leaf that an invalidation by
 * address must touch, bit 8: global.
 */
export const TlbWord = { TAG_LO: 0, TAG_HI: 1, TAG_ID: 2, PA_LO: 3, PA_HI: 4, LEAF: 5 } as const;
const PERMS = 0xff;

/** The entry of an address: index of its first word. */
export const tlbIndex = (hi: number, lo: number, hash: number): number =>
  (((lo >>> 12) ^ (lo >>> 24) ^ (hi << 3) ^ hash) & MASK) << WORDS_LOG2;

/** Slots of a direct-mapped cache of stream contexts. */
const CONTEXT_SLOTS = 4096;

/** Such a cache with `nothing` in each slot, and never without an element: V8 then asks for no holes. */
export const contextSlots = <Context>(nothing: Context): Context[] =>
  Array.from({ length: CONTEXT_SLOTS }, () => nothing);

/**
 * The slot of a stream and substream (-1: none). Multiplied, since stream ids differ in their upper bits when every function has a
 * bus of its own: 255 such functions, and 1,024 on four buses, have a slot each.
 */
export const contextSlot = (sid: number, ssid: number): number =>
  Math.imul(sid ^ Math.imul(ssid + 1, 0x9d), 0x9e3779b1) >>> 20;

/** Page number of an address, exact to 64 bits. */
const pageOf = (hi: number, lo: number): number => (hi >>> 0) * 0x100000 + (lo >>> 12);

export class Tlb {
  /** See {@link TlbWord}. */
  readonly words = new Int32Array(SIZE << WORDS_LOG2);
  /** Largest leaf since the TLB was last empty: with pages of 4 KiB alone, an address has one entry. */
  private largest = 12;
  /** A global entry may stand where only another ASID's index leads. */
  private globals = false;
  private filled = false;

  /** `at` is the entry's {@link tlbIndex}; the output's low 12 bits are ignored. */
  fill(at: number, hi: number, lo: number, regime: number, id: number, leafShift: number, global: boolean): void {
    const { words } = this;
    words[at] = (lo & -4096) | regime;
    words[at + TlbWord.TAG_HI] = hi;
    words[at + TlbWord.TAG_ID] = id;
    words[at + TlbWord.LEAF] = leafShift | (global ? 0x100 : 0);
    if (leafShift > this.largest) this.largest = leafShift;
    if (global) this.globals = true;
    this.filled = true;
  }

  /** The second half of filling. */
  fillOutput(at: number, paHi: number, paLo: number, perms: number): void {
    const { words } = this;
    words[at + TlbWord.PA_HI] = paHi;
    words[at + TlbWord.PA_LO] = (paLo & -4096) | perms;
  }

  /** Has the entry this tag? The hot path asks the same inline. */
  holds(at: number, hi: number, lo: number, regime: number, id: number): boolean {
    const { words } = this;
    return (
      words[at] === ((lo & -4096) | regime) && words[at + TlbWord.TAG_HI] === hi && words[at + TlbWord.TAG_ID] === id
    );
  }

  perms(at: number): number {
    return this.words[at + TlbWord.PA_LO] & PERMS;
  }

  paHi(at: number): number {
    return this.words[at + TlbWord.PA_HI];
  }

  /** Low half of the output page. */
  paLo(at: number): number {
    return this.words[at + TlbWord.PA_LO] & -4096;
  }

  /** Entries in use; for tests and for people. */
  get size(): number {
    let count = 0;
    for (let at = 0; at < this.words.length; at += 1 << WORDS_LOG2) if (this.words[at] !== 0) count++;
    return count;
  }

  invalidateAll(): void {
    this.words.fill(0);
    this.largest = 12;
    this.globals = false;
    this.filled = false;
  }

  /** `regimes` is a mask of 1 << Regime. */
  invalidateVmid(vmid: number, regimes: number): void {
    if (!this.filled) return;
    const { words } = this;
    for (let at = 0; at < words.length; at += 1 << WORDS_LOG2) {
      if (words[at + TlbWord.TAG_ID] >>> 16 === vmid && ((regimes >>> (words[at] & 7)) & 1) !== 0) words[at] = 0;
    }
  }

  /** Global entries stay (IHI 0070 4.4.2). */
  invalidateAsid(id: number, regimes: number): void {
    if (!this.filled) return;
    const { words } = this;
    for (let at = 0; at < words.length; at += 1 << WORDS_LOG2) {
      const local = words[at + TlbWord.TAG_ID] === id && words[at + TlbWord.LEAF] < 0x100;
      if (local && ((regimes >>> (words[at] & 7)) & 1) !== 0) words[at] = 0;
    }
  }

  /**
   * Entries whose leaf touches `pages` pages of 4 KiB from {hi, lo} on. `asid` -1: any ASID of the VMID; otherwise that
   * ASID's and the global ones.
   */
  invalidateRange(vmid: number, asid: number, hi: number, lo: number, pages: number, regimes: number): void {
    if (!this.filled) return;
    const first = pageOf(hi, lo);
    const end = first + pages;
    if (this.largest === 12 && !this.globals && asid >= 0 && pages <= PROBE_LIMIT) {
      const hash = tlbHash(tlbId(vmid, asid));
      for (let page = first; page < end; page++) {
        const at = tlbIndex((page / 0x100000) | 0, (page % 0x100000) << 12, hash);
        this.dropIfWithin(at, vmid, asid, first, end, regimes);
      }
      return;
    }
    const { length } = this.words;
    for (let at = 0; at < length; at += 1 << WORDS_LOG2) this.dropIfWithin(at, vmid, asid, first, end, regimes);
  }

  private dropIfWithin(at: number, vmid: number, asid: number, first: number, end: number, regimes: number): void {
    const { words } = this;
    const tag = words[at];
    if (((regimes >>> (tag & 7)) & 1) === 0) return;
    const id = words[at + TlbWord.TAG_ID];
    const leaf = words[at + TlbWord.LEAF];
    if (id >>> 16 !== vmid || (asid >= 0 && (id & 0xffff) !== asid && leaf < 0x100)) return;
    const pages = 2 ** ((leaf & 0xff) - 12);
    const page = pageOf(words[at + TlbWord.TAG_HI], tag);
    const start = page - (page % pages);
    if (start < end && first < start + pages) words[at] = 0;
  }
}
