/**
 * Page tables in memory, in the hardware's format: what Linux calls io-pgtable.
 *
 * Beside each table in memory the driver keeps a node: where the table's words are, how many entries it has, and the
 * nodes below. So mapping never searches, an empty table is known at once, and what somebody does to the tables in
 * memory misleads the hardware alone.
 */
import { levelShift } from '../../arch/lpae/geometry.ts';
import { fromHalves, highHalf } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import { type DirtyRecord, DirtyWalk } from './pgtable-dirty.ts';
import type { PageTableFormat } from './pgtable-format.ts';
import { type TableNode, TablePool } from './table-pool.ts';

/** Why a request was not carried out; the domain turns it into -errno. */
export const PageTableError = { NONE: 0, EXISTS: 1, NO_MEMORY: 2 } as const;

export class PageTable {
  declare readonly format: PageTableFormat;
  declare private readonly memory: PhysicalMemory;
  declare private readonly pool: TablePool;
  declare private readonly root: TableNode;
  declare private readonly granule: number;
  declare private readonly granuleShift: number;
  declare private readonly levelMask: number;
  declare private readonly startMask: number;
  /** Index mask of level 2. */
  declare private readonly directoryMask: number;
  /** log2 of what an entry maps, by level. */
  declare private readonly shifts: readonly number[];
  /** Bytes that an entry maps, by level; level 0's is beyond 32 bits. */
  declare private readonly sizes: readonly number[];
  declare private readonly present: number;
  declare private readonly pageBits: number;
  /** The table of pages last used, and the bits above it that lead there. */
  private recent: TableNode | null = null;
  private recentHi = 0;
  private recentLo = 0;
  /** Bits of the low half above what one table of pages maps, which is below 4 GiB with every granule. */
  declare private readonly recentMask: number;
  /** The level 2 table last used, likewise: what a domain maps lies together mostly. */
  private directory: TableNode | null = null;
  private directoryHi = 0;
  private directoryLo = 0;
  declare private readonly directoryMaskHi: number;
  declare private readonly directoryMaskLo: number;
  /** log2 of what an entry of level 2 maps: that of a table of pages. */
  declare private readonly tableShift: number;
  /** The protection last encoded, and its bits. */
  private attributesOf = -1;
  private attributesLo = 0;
  private attributesHi = 0;
  private error = 0;

  /** @throws RangeError when memory is exhausted before the first table exists. */
  constructor(memory: PhysicalMemory, format: PageTableFormat) {
    this.memory = memory;
    this.format = format;
    this.granuleShift = format.granuleShift;
    this.granule = 1 << format.granuleShift;
    this.levelMask = (1 << format.levelBits) - 1;
    this.startMask = (1 << format.startBits) - 1;
    this.directoryMask = format.startLevel === 2 ? this.startMask : this.levelMask;
    this.shifts = [0, 1, 2, 3].map((level) => levelShift(format.granuleShift, level));
    this.sizes = this.shifts.map((shift) => 2 ** shift);
    this.present = format.presentMask;
    this.tableShift = format.granuleShift + format.levelBits;
    this.recentMask = -1 << this.tableShift;
    const directoryShift = this.tableShift + format.levelBits;
    this.directoryMaskHi = directoryShift < 32 ? -1 : -1 << (directoryShift - 32);
    this.directoryMaskLo = directoryShift < 32 ? -1 << directoryShift : 0;
    this.pageBits = format.pageBits;
    this.pool = new TablePool(memory, 1 << format.levelBits);
    const root = this.pool.make(format.startLevel, 1 << format.startBits, this.rootBytes);
    if (root === null) throw new RangeError('no memory for the first table');
    this.root = root;
  }

  /** Host-physical base of the first table. */
  get base(): number {
    return this.root.pa;
  }

  /**
   * Maps [iova, iova + size) to [pa, pa + size), multiples of the granule and within the format, with the largest blocks
   * that alignment allows. Answers a PageTableError; then nothing of the range stays mapped.
   */
  map(iova: number, pa: number, size: number, prot: number): number {
    if (prot !== this.attributesOf) this.encode(prot);
    if (size === this.granule) return this.mapPage(highHalf(iova), iova | 0, highHalf(pa), pa | 0);
    return this.mapRange(iova, pa, size);
  }

  private mapRange(iova: number, pa: number, size: number): number {
    let done = 0;
    while (done < size) {
      const mapped = this.mapRun(iova + done, pa + done, size - done);
      if (mapped === 0) {
        const { error } = this;
        this.unmap(iova, done);
        this.prune(iova + done);
        return error;
      }
      done += mapped;
    }
    return PageTableError.NONE;
  }

  /**
   * Returns the bytes unmapped from `iova` on: it stops at a hole, and at a block that the range covers in part. Tables that
   * became empty leave the tree, and are used again after `reclaim`.
   */
  unmap(iova: number, size: number): number {
    if (size === this.granule) return this.unmapPage(highHalf(iova), iova | 0);
    return this.unmapRange(iova, size);
  }

  private unmapRange(iova: number, size: number): number {
    let done = 0;
    while (done < size) {
      const bytes = this.unmapRun(iova + done, size - done);
      if (bytes === 0) break;
      done += bytes;
    }
    return done;
  }

  /** The hardware has been told of what was unmapped: tables that became empty are free. */
  reclaim(): void {
    this.pool.reclaim();
  }

  /** The physical address under an IOVA as the tables in memory say, or -1. */
  lookup(iova: number): number {
    const { format, memory, shifts } = this;
    const hi = highHalf(iova);
    const lo = iova | 0;
    let table = this.root.pa;
    let mask = this.startMask;
    for (let level = format.startLevel; level <= 3; level++) {
      const at = table + indexOf(hi, lo, shifts[level], mask) * 8;
      if (!memory.locate(highHalf(at), at | 0)) return -1;
      const entryLo = memory.words[memory.at];
      const entryHi = memory.words[memory.at + 1] & 0xffff;
      if ((entryLo & this.present) === 0) return -1;
      if (level === 3 || (entryLo & format.blockMask) === format.blockValue) {
        const bytes = this.sizes[level];
        const base = fromHalves(entryHi, entryLo & -4096);
        return base - (base % bytes) + (iova % bytes);
      }
      table = fromHalves(entryHi, entryLo & -this.granule);
      mask = this.levelMask;
    }
    return -1;
  }

  /** arm_lpae_read_and_clear_dirty: see {@link DirtyWalk}. */
  readAndClearDirty(iova: number, size: number, noClear: boolean, record: DirtyRecord): number {
    return new DirtyWalk(this.format, this.sizes, noClear, record).walk(this.root, iova, iova + size);
  }

  /** Gives back every table. */
  free(): void {
    this.recent = null;
    this.directory = null;
    this.freeBelow(this.root);
    this.pool.free();
    this.memory.free(this.root.pa, this.rootBytes);
  }

  private get rootBytes(): number {
    return Math.max(8 << this.format.startBits, 4096);
  }

  private encode(prot: number): void {
    const { lo, hi } = this.format.attributes(prot);
    this.attributesOf = prot;
    this.attributesLo = lo;
    this.attributesHi = hi;
  }

  private mapPage(hi: number, lo: number, paHi: number, paLo: number): number {
    const node = this.recentTable(hi, lo) ?? this.descend(3, hi, lo);
    if (node === null) {
      this.prune(fromHalves(hi, lo));
      return this.error;
    }
    const { words } = node;
    const at = node.at | (((lo >>> this.granuleShift) & this.levelMask) << 1);
    if ((words[at] & this.present) !== 0) return PageTableError.EXISTS;
    words[at] = paLo | this.attributesLo | this.pageBits;
    words[at | 1] = paHi | this.attributesHi;
    node.count++;
    return PageTableError.NONE;
  }

  /** A page's size, or 0 where no page is: a block that it is a part of stays. */
  private unmapPage(hi: number, lo: number): number {
    const node = this.recentTable(hi, lo) ?? this.deepest(hi, lo);
    if (node.level !== 3) return 0;
    const { words } = node;
    const at = node.at | (((lo >>> this.granuleShift) & this.levelMask) << 1);
    if ((words[at] & this.present) === 0) return 0;
    words[at] = 0;
    words[at | 1] = 0;
    if (--node.count === 0) this.drop(node);
    return this.granule;
  }

  /** Maps as much as one table takes; 0 with `error` set. */
  private mapRun(iova: number, pa: number, left: number): number {
    const hi = highHalf(iova);
    const lo = iova | 0;
    const paLo = pa | 0;
    const level = this.leafLevel(lo | paLo, left);
    const node = (level === 3 ? this.recentTable(hi, lo) : null) ?? this.descend(level, hi, lo);
    if (node === null) return 0;
    const shift = this.shifts[level];
    const mask = node === this.root ? this.startMask : this.levelMask;
    const index = indexOf(hi, lo, shift, mask);
    const bytes = this.sizes[level];
    const count = Math.min(mask + 1 - index, Math.floor(left / bytes));
    const type = level === 3 ? this.format.pageBits : this.format.blockBits;
    const written = this.write(node, index, count, paLo, highHalf(pa), bytes, type);
    if (written < count) {
      // What was written before the entry that exists goes again with the rest.
      this.erase(node, index, written);
      this.error = PageTableError.EXISTS;
      return 0;
    }
    return count * bytes;
  }

  /** Writes up to `count` leaves and returns how many, ending before one that exists. */
  private write(
    node: TableNode,
    index: number,
    count: number,
    paLo: number,
    paHi: number,
    bytes: number,
    type: number,
  ): number {
    const { words } = node;
    const start = node.at + index * 2;
    const end = start + count * 2;
    const lo = paLo | this.attributesLo | type;
    const hi = paHi | this.attributesHi;
    // The low half carries into the high one at most once in a table: two plain runs instead of a test per entry.
    const carry = start + Math.min(count, Math.floor((4294967296 - (paLo >>> 0)) / bytes)) * 2;
    let at = writeEntries(words, start, carry, lo, hi, bytes | 0, this.present);
    if (at === carry && at < end) {
      const behind = (lo + Math.imul((carry - start) >> 1, bytes)) | 0;
      at = writeEntries(words, at, end, behind, hi + 1, bytes | 0, this.present);
    }
    const written = (at - start) >> 1;
    node.count += written;
    return written;
  }

  private erase(node: TableNode, index: number, count: number): void {
    const from = node.at + index * 2;
    if (count === 1) {
      node.words[from] = 0;
      node.words[from + 1] = 0;
    } else {
      node.words.fill(0, from, from + count * 2);
    }
    node.count -= count;
    if (node.count === 0) this.drop(node);
  }

  private unmapRun(iova: number, left: number): number {
    const hi = highHalf(iova);
    const lo = iova | 0;
    const node = this.recentTable(hi, lo) ?? this.deepest(hi, lo);
    const { level } = node;
    const mask = node === this.root ? this.startMask : this.levelMask;
    const shift = this.shifts[level];
    const index = indexOf(hi, lo, shift, mask);
    const bytes = this.sizes[level];
    if (left < bytes || (level < 3 && iova % bytes !== 0)) return 0;
    const found = this.leaves(node, index, Math.min(mask + 1 - index, Math.floor(left / bytes)));
    if (found > 0) this.erase(node, index, found);
    return found * bytes;
  }

  /** How many of `count` entries from `index` on are leaves, up to the first that is none. */
  private leaves(node: TableNode, index: number, count: number): number {
    const { words, children } = node;
    const { present } = this;
    const start = node.at + index * 2;
    const end = start + count * 2;
    if (node.level === 3) return (endOfEntries(words, start, end, present) - start) >> 1;
    let at = start;
    while (at < end && (words[at] & present) !== 0 && children[(at - node.at) >> 1] === null) at += 2;
    return (at - start) >> 1;
  }

  /** The level whose entries are the largest that fit: `aligned` holds the low bits of both addresses. */
  private leafLevel(aligned: number, left: number): number {
    const { format, sizes } = this;
    // The sizes are those of the levels from the pages upwards.
    for (let above = format.pageSizes.length - 1; above > 0; above--) {
      const bytes = sizes[3 - above];
      if (bytes <= left && (aligned & (bytes - 1)) === 0) return 3 - above;
    }
    return 3;
  }

  /** The table of pages of an address, if it is the last one or below the last directory. */
  private recentTable(hi: number, lo: number): TableNode | null {
    if ((lo & this.recentMask) === this.recentLo && hi === this.recentHi && this.recent !== null) return this.recent;
    const { directory } = this;
    if ((lo & this.directoryMaskLo) !== this.directoryLo || (hi & this.directoryMaskHi) !== this.directoryHi)
      return null;
    if (directory === null) return null;
    const shift = this.tableShift;
    const node = directory.children[((lo >>> shift) | (hi << (32 - shift))) & this.directoryMask];
    if (node !== null) this.remember(node, hi, lo);
    return node;
  }

  private remember(node: TableNode, hi: number, lo: number): void {
    this.recent = node;
    this.recentHi = hi;
    this.recentLo = lo & this.recentMask;
    if (node.parent !== this.directory) {
      this.directory = node.parent;
      this.directoryHi = hi & this.directoryMaskHi;
      this.directoryLo = lo & this.directoryMaskLo;
    }
  }

  /** The table of `level` on the way of an address, made where it is missing; null with `error` set. */
  private descend(level: number, hi: number, lo: number): TableNode | null {
    const { shifts, levelMask } = this;
    let node = this.root;
    let mask = this.startMask;
    for (let at = node.level; at < level; at++) {
      const index = indexOf(hi, lo, shifts[at], mask);
      const child: TableNode | null = node.children[index] ?? this.addTable(node, index);
      if (child === null) return null;
      node = child;
      mask = levelMask;
    }
    if (level === 3) this.remember(node, hi, lo);
    return node;
  }

  /** The last table on the way of an address. */
  private deepest(hi: number, lo: number): TableNode {
    const { shifts, levelMask } = this;
    let node = this.root;
    let mask = this.startMask;
    while (node.level < 3) {
      const child = node.children[indexOf(hi, lo, shifts[node.level], mask)];
      if (child === null) return node;
      node = child;
      mask = levelMask;
    }
    this.remember(node, hi, lo);
    return node;
  }

  private addTable(node: TableNode, index: number): TableNode | null {
    const at = node.at + index * 2;
    if ((node.words[at] & this.present) !== 0) {
      this.error = PageTableError.EXISTS;
      return null;
    }
    const child = this.pool.take(node.level + 1);
    if (child === null) {
      this.error = PageTableError.NO_MEMORY;
      return null;
    }
    child.parent = node;
    child.slot = index;
    node.words[at] = child.pa | this.format.tableBits;
    node.words[at + 1] = highHalf(child.pa);
    node.children[index] = child;
    node.count++;
    return child;
  }

  /** Takes an empty table out of its parent, and the parent with it when that leaves it empty. */
  private drop(node: TableNode): void {
    const { parent } = node;
    if (parent === null) return;
    if (node === this.recent) this.recent = null;
    if (node === this.directory) this.directory = null;
    const at = parent.at + node.slot * 2;
    parent.words[at] = 0;
    parent.words[at + 1] = 0;
    parent.children[node.slot] = null;
    parent.count--;
    this.pool.retire(node);
    if (parent.count === 0) this.drop(parent);
  }

  /** After a failure: tables on the way to `iova` that were made for nothing. */
  private prune(iova: number): void {
    const node = this.deepest(highHalf(iova), iova | 0);
    if (node.count === 0) this.drop(node);
  }

  private freeBelow(node: TableNode): void {
    for (const child of node.children) {
      if (child === null) continue;
      this.freeBelow(child);
      this.pool.freeTable(child);
    }
  }
}

/**
 * Writes leaves into the words from `at` to `end`, each `step` above the one before; answers where it ended, before an entry that exists.
 * Four at a time: each turn of a loop asks V8's stack guard and loads the array's pointer and length anew. `| 0` makes the arguments
 * integers before the loop, where V8 has no other way to know it.
 */
function writeEntries(
  words: Int32Array,
  at: number,
  end: number,
  lo: number,
  hi: number,
  step: number,
  present: number,
): number {
  const last = end | 0;
  const upper = hi | 0;
  const distance = step | 0;
  const mask = present | 0;
  let word = at | 0;
  let entry = lo | 0;
  for (; word + 8 <= last; word += 8) {
    if (((words[word] | words[word + 2] | words[word + 4] | words[word + 6]) & mask) !== 0) break;
    words[word] = entry;
    words[word + 1] = upper;
    entry = (entry + distance) | 0;
    words[word + 2] = entry;
    words[word + 3] = upper;
    entry = (entry + distance) | 0;
    words[word + 4] = entry;
    words[word + 5] = upper;
    entry = (entry + distance) | 0;
    words[word + 6] = entry;
    words[word + 7] = upper;
    entry = (entry + distance) | 0;
  }
  for (; word < last && (words[word] & mask) === 0; word += 2) {
    words[word] = entry;
    words[word + 1] = upper;
    entry = (entry + distance) | 0;
  }
  return word;
}

/** Where the entries from `at` on end: `end`, or the first that is not present. */
function endOfEntries(words: Int32Array, at: number, end: number, present: number): number {
  const last = end | 0;
  const mask = present | 0;
  let word = at | 0;
  while (word + 8 <= last && (words[word] & words[word + 2] & words[word + 4] & words[word + 6] & mask) !== 0)
    word += 8;
  while (word < last && (words[word] & mask) !== 0) word += 2;
  return word;
}

/** Index of an address in a table whose entries map 2^shift bytes. */
function indexOf(hi: number, lo: number, shift: number, mask: number): number {
  return (shift >= 32 ? hi >>> (shift - 32) : (lo >>> shift) | (hi << (32 - shift))) & mask;
}
