/** Which leaves of a stage 1 were written, as the SMMU leaves it in the tables: io-pgtable-arm.c visit_dirty. */
import { ERRNO } from '../../uapi/errno.ts';
import type { PageTableFormat } from './pgtable-format.ts';
import type { TableNode } from './table-pool.ts';

/** Gets a dirty leaf: where the walk is in it, and the leaf's size. */
export type DirtyRecord = (iova: number, length: number) => void;

/** AP[2] in the low half: read-only, or with DBM clean. */
const AP2 = 1 << 7;
/** DBM in the high half: may be written. */
const DBM = 1 << 19;

/**
 * Linux steps by the size of each leaf from where the walk began. A walk that begins inside of a block is as far inside of everything behind it: it tells
 * of bytes behind the block, and passes over the first pages of the tables that follow.
 */
export class DirtyWalk {
  private readonly format: PageTableFormat;
  private readonly sizes: readonly number[];
  private readonly noClear: boolean;
  private readonly record: DirtyRecord;
  private address = 0;
  private end = 0;

  /** `sizes`: bytes that an entry maps, by level. */
  constructor(format: PageTableFormat, sizes: readonly number[], noClear: boolean, record: DirtyRecord) {
    this.format = format;
    this.sizes = sizes;
    this.noClear = noClear;
    this.record = record;
  }

  /** [iova, end) below the table: 0, or -EINVAL at the first hole. */
  walk(root: TableNode, iova: number, end: number): number {
    this.address = iova;
    this.end = end;
    return this.table(root, 2 ** this.format.startBits);
  }

  private table(node: TableNode, entries: number): number {
    const bytes = this.sizes[node.level]!;
    for (let index = Math.floor(this.address / bytes) % entries; index < entries && this.address < this.end; index++) {
      const child = node.children[index] ?? null;
      const error = child === null ? this.leaf(node, index, bytes) : this.table(child, 2 ** this.format.levelBits);
      if (error < 0) return error;
    }
    return 0;
  }

  private leaf({ words, at }: TableNode, index: number, bytes: number): number {
    const entry = at + index * 2;
    if ((words[entry]! & this.format.presentMask) === 0) return -ERRNO.EINVAL;
    if ((words[entry]! & AP2) === 0 && (words[entry + 1]! & DBM) !== 0) {
      this.record(this.address, bytes);
      if (!this.noClear) words[entry]! |= AP2;
    }
    this.address += bytes;
    return 0;
  }
}
