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

/** The entry of an address. */
export const tlbIndex = (hi: number, lo: number, hash: number): number =>
  ((lo >>> 12) ^ (lo >>> 24) ^ (hi << 3) ^ hash) & MASK;

/** Slots of a direct-mapped cache of stream contexts. */
export const CONTEXT_SLOTS = 4096;

/**
 * The slot of a stream and substream (-1: none). Multiplied, since stream ids differ in their upper bits when every function has a
 * bus of its own: 255 such functions, and 1,024 on four buses, have a slot each.
 */
export const contextSlot = (sid: number, ssid: number): number =>
  Math.imul(sid ^ Math.imul(ssid + 1, 0x9d), 0x9e3779b1) >>> 20;

/** Page number of an address, exact to 64 bits. */
const pageOf = (hi: number, lo: number): number => (hi >>> 0) * 0x100000 + (lo >>> 12);

export class Tlb {
  /** Page bits 31:12 of the input address, and the regime. */
  readonly tagLo = new Int32Array(SIZE);
  readonly tagHi = new Int32Array(SIZE);
  readonly tagId = new Int32Array(SIZE);
  readonly paLo = new Int32Array(SIZE);
  readonly paHi = new Int32Array(SIZE);
  /** RWX unprivileged at bit 0, privileged at bit 4. */
  readonly perms = new Int32Array(SIZE);
  /** log2 of the leaf that an invalidation by address must touch; bit 8: global. */
  private readonly leaf = new Int32Array(SIZE);
  /** Largest leaf since the TLB was last empty: with pages of 4 KiB alone, an address has one entry. */
  private largest = 12;
  /** A global entry may stand where only another ASID's index leads. */
  private globals = false;
  private filled = false;

  fill(index: number, hi: number, lo: number, regime: number, id: number, leafShift: number, global: boolean): void {
    this.tagLo[index] = (lo & -4096) | regime;
    this.tagHi[index] = hi;
    this.tagId[index] = id;
    this.leaf[index] = leafShift | (global ? 0x100 : 0);
    if (leafShift > this.largest) this.largest = leafShift;
    if (global) this.globals = true;
    this.filled = true;
  }

  /** Has the entry this tag? The hot path asks the same inline. */
  holds(index: number, hi: number, lo: number, regime: number, id: number): boolean {
    return this.tagLo[index] === ((lo & -4096) | regime) && this.tagHi[index] === hi && this.tagId[index] === id;
  }

  /** Entries in use; for tests and for people. */
  get size(): number {
    return this.tagLo.reduce((count, tag) => count + (tag === 0 ? 0 : 1), 0);
  }

  invalidateAll(): void {
    this.tagLo.fill(0);
    this.largest = 12;
    this.globals = false;
    this.filled = false;
  }

  /** `regimes` is a mask of 1 << Regime. */
  invalidateVmid(vmid: number, regimes: number): void {
    if (!this.filled) return;
    const { tagLo, tagId } = this;
    for (let i = 0; i < SIZE; i++) {
      if (tagId[i] >>> 16 === vmid && ((regimes >>> (tagLo[i] & 7)) & 1) !== 0) tagLo[i] = 0;
    }
  }

  /** Global entries stay (IHI 0070 4.4.2). */
  invalidateAsid(id: number, regimes: number): void {
    if (!this.filled) return;
    const { tagLo, tagId, leaf } = this;
    for (let i = 0; i < SIZE; i++) {
      if (tagId[i] === id && leaf[i] < 0x100 && ((regimes >>> (tagLo[i] & 7)) & 1) !== 0) tagLo[i] = 0;
    }
  }

  /**
   * Entries whose leaf touches `pages` pages of 4 KiB from {hi, lo} on. `asid` -1: any ASID of the VMID; otherwise that
   * ASID's and the global ones.
   */
  invalidateRange(vmid: number, asid: number, hi: number, lo: number, pages: number, regimes: number): void {
    if (!this.filled) return;
    const first = pageOf(hi, lo);
    if (this.largest === 12 && !this.globals && asid >= 0 && pages <= PROBE_LIMIT) {
      const hash = tlbHash(tlbId(vmid, asid));
      for (let page = first; page < first + pages; page++) {
        const index = tlbIndex((page / 0x100000) | 0, (page % 0x100000) << 12, hash);
        this.dropIfWithin(index, vmid, asid, first, first + pages, regimes);
      }
      return;
    }
    for (let i = 0; i < SIZE; i++) this.dropIfWithin(i, vmid, asid, first, first + pages, regimes);
  }

  private dropIfWithin(i: number, vmid: number, asid: number, first: number, end: number, regimes: number): void {
    const tag = this.tagLo[i];
    if (((regimes >>> (tag & 7)) & 1) === 0) return;
    const id = this.tagId[i];
    const leaf = this.leaf[i];
    if (id >>> 16 !== vmid || (asid >= 0 && (id & 0xffff) !== asid && leaf < 0x100)) return;
    const pages = 2 ** ((leaf & 0xff) - 12);
    const page = pageOf(this.tagHi[i], tag);
    const start = page - (page % pages);
    if (start < end && first < start + pages) this.tagLo[i] = 0;
  }
}
