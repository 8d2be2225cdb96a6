/** Tables of one page table: made from memory, kept for a while when empty, given back in the end. */
import { highHalf } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';

/** Empty tables of a level that are kept: who maps and unmaps page by page makes no table anew. */
const SPARE_LIMIT = 16;

/** A table in memory, and what the driver knows of it. */
export class TableNode {
  declare readonly pa: number;
  declare readonly words: Int32Array;
  /** Index of the table's first word. */
  declare readonly at: number;
  declare readonly level: number;
  parent: TableNode | null = null;
  /** Its entry in the parent. */
  slot = 0;
  /** Entries in use, tables and leaves. */
  count = 0;
  /** Tables below, by entry; a table of pages has none. */
  declare readonly children: (TableNode | null)[];

  constructor(pa: number, words: Int32Array, at: number, level: number, entries: number) {
    this.pa = pa;
    this.words = words;
    this.at = at;
    this.level = level;
    this.children = level === 3 ? [] : new Array<TableNode | null>(entries).fill(null);
  }
}

export class TablePool {
  declare private readonly memory: PhysicalMemory;
  declare private readonly bytes: number;
  declare private readonly entries: number;
  /** By level. */
  private readonly spares: TableNode[][] = [[], [], [], []];
  /** Out of the tree, but the hardware may walk them until an invalidation. */
  private readonly emptied: TableNode[] = [];

  /** `entries` in a table that is not the first one. */
  constructor(memory: PhysicalMemory, entries: number) {
    this.memory = memory;
    this.entries = entries;
    this.bytes = entries * 8;
  }

  /** A zeroed table, or null when memory is exhausted. */
  take(level: number): TableNode | null {
    return this.spares[level].pop() ?? this.make(level, this.entries, this.bytes);
  }

  /** A table of its own size: the first one. */
  make(level: number, entries: number, bytes: number): TableNode | null {
    const { memory } = this;
    const pa = memory.allocate(bytes, bytes);
    if (pa === null) return null;
    // Allocated memory is an array, and stays the same one.
    memory.locate(highHalf(pa), pa | 0);
    return new TableNode(pa, memory.words, memory.at, level, entries);
  }

  /** An empty table left the tree. */
  retire(node: TableNode): void {
    node.parent = null;
    this.emptied.push(node);
  }

  /** The hardware has forgotten the tables that were retired. */
  reclaim(): void {
    const { emptied } = this;
    // Setting a length costs more than asking for it, and mostly nothing waits.
    if (emptied.length === 0) return;
    for (let i = 0; i < emptied.length; i++) {
      const spares = this.spares[emptied[i].level];
      if (spares.length < SPARE_LIMIT) spares.push(emptied[i]);
      else this.memory.free(emptied[i].pa, this.bytes);
    }
    emptied.length = 0;
  }

  /** Gives back what it holds. */
  free(): void {
    for (const node of [...this.emptied, ...this.spares.flat()]) this.memory.free(node.pa, this.bytes);
    this.emptied.length = 0;
    for (const spares of this.spares) spares.length = 0;
  }

  /** Gives back a table in the tree. */
  freeTable(node: TableNode): void {
    this.memory.free(node.pa, this.bytes);
  }
}
