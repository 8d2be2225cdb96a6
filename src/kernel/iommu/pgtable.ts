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
import type { PageTableFormat } from './pgtable-format.ts';

/** Why a request was not carried out; the domain turns it into -errno. */
export const PageTableError = { NONE: 0, EXISTS: 1, NO_MEMORY: 2 } as const;

class TableNode {
  readonly pa: number;
  readonly words: Int32Array;
  /** Index of the table's first word. */
  readonly at: number;
  readonly level: number;
  readonly parent: TableNode | null;
  readonly slot: number;
  /** Entries in use, tables and leaves. */
  count = 0;
  /** Tables below, by entry; a table of pages has none. */
  readonly children: (TableNode | null)[];

  constructor(
    pa: number,
    words: Int32Array,
    at: number,
    level: number,
    entries: number,
    parent: TableNode | null,
    slot: number,
  ) {
    this.pa = pa;
    this.words = words;
    this.at = at;
    this.level = level;
    this.parent = parent;
    this.slot = slot;
    this.children = level === 3 ? [] : new Array<TableNode | null>(entries).fill(null);
  }
}

/** Where tables that became empty go: back to memory at once, or first through an invalidation. */
export type TableRelease = (pa: number, bytes: number) => void;

export class PageTable {
  readonly format: PageTableFormat;
  private readonly memory: PhysicalMemory;
  private readonly release: TableRelease;
  private readonly root: TableNode;
  private readonly tableBytes: number;
  private readonly levelMask: number;
  /** The table of pages last used, and the bits above it that lead there. */
  private recent: TableNode | null = null;
  private recentKey = 0;
  private readonly recentShift: number;
  private attributesOf = -1;
  private attributesLo = 0;
  private attributesHi = 0;
  private error = 0;

  /** @throws RangeError when memory is exhausted before the first table exists. */
  constructor(memory: PhysicalMemory, format: PageTableFormat, release?: TableRelease) {
    this.memory = memory;
    this.format = format;
    this.release = release ?? ((pa, bytes) => memory.free(pa, bytes));
    this.tableBytes = 8 << format.levelBits;
    this.levelMask = (1 << format.levelBits) - 1;
    this.recentShift = format.granuleShift + format.levelBits;
    const root = this.makeTable(format.startLevel, this.rootBytes, 1 << format.startBits, null, 0);
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
    let done = 0;
    while (done < size) {
      const mapped = this.mapRun(iova + done, pa + done, size - done);
      if (mapped === 0) {
        this.unmap(iova, done);
        this.prune(iova + done);
        return this.error;
      }
      done += mapped;
    }
    return PageTableError.NONE;
  }

  /** Returns the bytes unmapped from `iova` on: it stops at a hole, and at a block that the range covers in part. */
  unmap(iova: number, size: number): number {
    let done = 0;
    while (done < size) {
      const bytes = this.unmapRun(iova + done, size - done);
      if (bytes === 0) break;
      done += bytes;
    }
    return done;
  }

  /** The physical address under an IOVA as the tables in memory say, or -1. */
  lookup(iova: number): number {
    const { format, memory } = this;
    const hi = highHalf(iova);
    const lo = iova | 0;
    let table = this.root.pa;
    let mask = (1 << format.startBits) - 1;
    for (let level = format.startLevel; level <= 3; level++) {
      const shift = levelShift(format.granuleShift, level);
      const at = table + indexOf(hi, lo, shift, mask) * 8;
      if (!memory.locate(highHalf(at), at | 0)) return -1;
      const entryLo = memory.words[memory.at];
      const entryHi = memory.words[memory.at + 1] & 0xfffff;
      if ((entryLo & format.presentMask) === 0) return -1;
      if (level === 3 || (entryLo & format.blockMask) === format.blockValue) {
        const bytes = 2 ** shift;
        const base = fromHalves(entryHi & 0xffff, entryLo & -4096);
        return base - (base % bytes) + (iova % bytes);
      }
      table = fromHalves(entryHi & 0xffff, entryLo & -(1 << format.granuleShift));
      mask = this.levelMask;
    }
    return -1;
  }

  /** Gives back every table. */
  free(): void {
    this.recent = null;
    this.freeBelow(this.root);
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

  /** Maps as much as one table takes; 0 with `error` set. */
  private mapRun(iova: number, pa: number, left: number): number {
    const { format } = this;
    const iovaHi = highHalf(iova);
    const iovaLo = iova | 0;
    const paLo = pa | 0;
    const level = left === 1 << format.granuleShift ? 3 : this.leafLevel(iovaLo | paLo, left);
    const node = level === 3 ? this.pageTable(iovaHi, iovaLo) : this.descend(level, iovaHi, iovaLo);
    if (node === null) return 0;
    const shift = level === 3 ? format.granuleShift : levelShift(format.granuleShift, level);
    const entries = level === format.startLevel ? 1 << format.startBits : this.levelMask + 1;
    const index = indexOf(iovaHi, iovaLo, shift, entries - 1);
    const bytes = 2 ** shift;
    const count = left === bytes ? 1 : Math.min(entries - index, Math.floor(left / bytes));
    const type = level === 3 ? format.pageBits : format.blockBits;
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
    const present = this.format.presentMask;
    const start = node.at + index * 2;
    const step = bytes | 0;
    let lo = paLo | this.attributesLo | type;
    let hi = paHi | this.attributesHi;
    // The low half carries into the high one at most once in a table: two plain runs instead of a test per entry.
    const beforeCarry = Math.floor((4294967296 - (paLo >>> 0)) / bytes);
    let at = start;
    let end = start + Math.min(count, beforeCarry) * 2;
    for (let round = 0; round < 2; round++) {
      for (; at < end; at += 2) {
        if ((words[at] & present) !== 0) break;
        words[at] = lo;
        words[at + 1] = hi;
        lo = (lo + step) | 0;
      }
      if (at < end) break;
      end = start + count * 2;
      hi = (hi + 1) | 0;
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
    if (node.count === 0 && node.parent !== null) this.drop(node);
  }

  private unmapRun(iova: number, left: number): number {
    const { format } = this;
    const hi = highHalf(iova);
    const lo = iova | 0;
    let node = this.recentTable(hi, lo);
    if (node === null) node = this.deepest(hi, lo);
    const { level, words } = node;
    const shift = level === 3 ? format.granuleShift : levelShift(format.granuleShift, level);
    const entries = node === this.root ? 1 << format.startBits : this.levelMask + 1;
    const index = indexOf(hi, lo, shift, entries - 1);
    const bytes = 2 ** shift;
    if (left < bytes || (level < 3 && iova % bytes !== 0)) return 0;
    const count = left === bytes ? 1 : Math.min(entries - index, Math.floor(left / bytes));
    const present = format.presentMask;
    const start = node.at + index * 2;
    const end = start + count * 2;
    let at = start;
    if (level === 3) while (at < end && (words[at] & present) !== 0) at += 2;
    else while (at < end && (words[at] & present) !== 0 && node.children[(at - node.at) >> 1] === null) at += 2;
    const found = (at - start) >> 1;
    if (found > 0) this.erase(node, index, found);
    return found * bytes;
  }

  /** The level whose entries are the largest that fit: `aligned` holds the low bits of both addresses. */
  private leafLevel(aligned: number, left: number): number {
    const { format } = this;
    for (let level = Math.max(format.startLevel, 1); level < 3; level++) {
      const bytes = 2 ** levelShift(format.granuleShift, level);
      if (bytes <= left && (aligned & (bytes - 1)) === 0 && format.pageSizes.includes(bytes)) return level;
    }
    return 3;
  }

  /** The table of pages of an address, made where it is missing; null with `error` set. */
  private pageTable(hi: number, lo: number): TableNode | null {
    return this.recentTable(hi, lo) ?? this.descend(3, hi, lo);
  }

  private recentTable(hi: number, lo: number): TableNode | null {
    const { recentShift } = this;
    const key = (hi << (32 - recentShift)) | (lo >>> recentShift);
    return this.recent !== null && key === this.recentKey ? this.recent : null;
  }

  private descend(level: number, hi: number, lo: number): TableNode | null {
    const { format, levelMask } = this;
    let node = this.root;
    let mask = (1 << format.startBits) - 1;
    for (let at = format.startLevel; at < level; at++) {
      const index = indexOf(hi, lo, levelShift(format.granuleShift, at), mask);
      const child: TableNode | null = node.children[index] ?? this.addTable(node, index);
      if (child === null) return null;
      node = child;
      mask = levelMask;
    }
    if (level === 3) this.remember(node, hi, lo);
    return node;
  }

  private remember(node: TableNode, hi: number, lo: number): void {
    this.recent = node;
    this.recentKey = (hi << (32 - this.recentShift)) | (lo >>> this.recentShift);
  }

  private deepest(hi: number, lo: number): TableNode {
    const { format } = this;
    let node = this.root;
    let mask = (1 << format.startBits) - 1;
    for (let at = format.startLevel; at < 3; at++) {
      const child = node.children[indexOf(hi, lo, levelShift(format.granuleShift, at), mask)];
      if (child === null) return node;
      node = child;
      mask = this.levelMask;
    }
    this.remember(node, hi, lo);
    return node;
  }

  private addTable(node: TableNode, index: number): TableNode | null {
    const at = node.at + index * 2;
    if ((node.words[at] & this.format.presentMask) !== 0) {
      this.error = PageTableError.EXISTS;
      return null;
    }
    const child = this.makeTable(node.level + 1, this.tableBytes, this.levelMask + 1, node, index);
    if (child === null) {
      this.error = PageTableError.NO_MEMORY;
      return null;
    }
    node.words[at] = child.pa | this.format.tableBits;
    node.words[at + 1] = highHalf(child.pa);
    node.children[index] = child;
    node.count++;
    return child;
  }

  private makeTable(
    level: number,
    bytes: number,
    entries: number,
    parent: TableNode | null,
    slot: number,
  ): TableNode | null {
    const { memory } = this;
    const pa = memory.allocate(bytes, bytes);
    if (pa === null) return null;
    // Allocated memory is an array, and stays the same one.
    memory.locate(highHalf(pa), pa | 0);
    return new TableNode(pa, memory.words, memory.at, level, entries, parent, slot);
  }

  /** Takes an empty table out of its parent, and the parent with it when that leaves it empty. */
  private drop(node: TableNode): void {
    const { parent } = node;
    if (parent === null) return;
    if (node === this.recent) this.recent = null;
    parent.words[parent.at + node.slot * 2] = 0;
    parent.words[parent.at + node.slot * 2 + 1] = 0;
    parent.children[node.slot] = null;
    parent.count--;
    this.release(node.pa, this.tableBytes);
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
      this.memory.free(child.pa, this.tableBytes);
    }
  }
}

/** Index of an address in a table whose entries map 2^shift bytes. */
function indexOf(hi: number, lo: number, shift: number, mask: number): number {
  return (shift >= 32 ? hi >>> (shift - 32) : (lo >>> shift) | (hi << (32 - shift))) & mask;
}
