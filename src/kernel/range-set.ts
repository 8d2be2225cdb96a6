/**
 * Ranges [start, end) that do not overlap, sorted, each with an integer of its owner's: what Linux keeps in an rb-tree
 * (type1's dma_list) or an interval tree. Two levels of typed arrays: chunks of up to 256 ranges, and the first start of each
 * chunk. It equals std::map from 100,000 ranges up (measured) and allocates only when a chunk splits.
 */

const CAPACITY = 256;
/** A chunk below this is merged into a neighbour that has room, so that removals do not leave a trail of crumbs. */
const SPARSE = CAPACITY / 8;

class Chunk {
  readonly starts = new Float64Array(CAPACITY);
  readonly ends = new Float64Array(CAPACITY);
  readonly values = new Int32Array(CAPACITY);
  count = 0;

  /** How many ranges start at or below `point`. */
  rank(point: number): number {
    const starts = this.starts;
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (starts[middle] <= point) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  insert(at: number, start: number, end: number, value: number): void {
    this.shift(at, at + 1);
    this.starts[at] = start;
    this.ends[at] = end;
    this.values[at] = value;
    this.count += 1;
  }

  remove(at: number): void {
    this.shift(at + 1, at);
    this.count -= 1;
  }

  /** Appends ranges [from, other.count) of another chunk, which loses them. */
  takeFrom(other: Chunk, from: number): void {
    this.starts.set(other.starts.subarray(from, other.count), this.count);
    this.ends.set(other.ends.subarray(from, other.count), this.count);
    this.values.set(other.values.subarray(from, other.count), this.count);
    this.count += other.count - from;
    other.count = from;
  }

  private shift(from: number, to: number): void {
    this.starts.copyWithin(to, from, this.count);
    this.ends.copyWithin(to, from, this.count);
    this.values.copyWithin(to, from, this.count);
  }
}

export class RangeSet {
  size = 0;
  private chunks: Chunk[] = [new Chunk()];
  /** First start of each chunk; the first chunk takes everything below, too. */
  private firsts = new Float64Array(64);
  /** The cursor: what `seek` and `next` point at. */
  private chunk = 0;
  private at = 0;

  constructor() {
    this.firsts[0] = -Infinity;
  }

  /** The range under the cursor. Meaningful only after `seek` or `next` answered true, and until the set changes. */
  get start(): number {
    return this.chunks[this.chunk].starts[this.at];
  }

  /** Exclusive. */
  get end(): number {
    return this.chunks[this.chunk].ends[this.at];
  }

  get value(): number {
    return this.chunks[this.chunk].values[this.at];
  }

  /** Points the cursor at the first range that ends after `point`; false when none does. */
  seek(point: number): boolean {
    this.chunk = this.chunkOf(point);
    const chunk = this.chunks[this.chunk];
    const rank = chunk.rank(point);
    this.at = rank > 0 && chunk.ends[rank - 1] > point ? rank - 1 : rank;
    return this.settle();
  }

  /** Points the cursor at the following range; false at the end. */
  next(): boolean {
    this.at += 1;
    return this.settle();
  }

  /** The integer of the range that holds `point`, or -1. */
  find(point: number): number {
    const chunk = this.chunks[this.chunkOf(point)];
    const at = chunk.rank(point) - 1;
    return at >= 0 && chunk.ends[at] > point ? chunk.values[at] : -1;
  }

  overlaps(start: number, end: number): boolean {
    return this.seek(start) && this.start < end;
  }

  /** `value` is 0 or more. False when something of [start, end) is taken. @throws RangeError when the range is empty or not exact. */
  insert(start: number, end: number, value: number): boolean {
    if (!(start < end) || !Number.isSafeInteger(start) || end > 2 ** 53 || value < 0) {
      throw new RangeError(`range [${start}, ${end}) with ${value}: expected integers up to 2^53, start below end`);
    }
    let index = this.chunkOf(start);
    let chunk = this.chunks[index];
    let at = chunk.rank(start);
    if (at > 0 && chunk.ends[at - 1] > start) return false;
    const after =
      at < chunk.count ? chunk.starts[at] : index + 1 < this.chunks.length ? this.firsts[index + 1] : Infinity;
    if (after < end) return false;
    if (chunk.count === CAPACITY) {
      // In ascending order a full last chunk stays full; otherwise it is halved.
      const half = at === CAPACITY ? CAPACITY : CAPACITY / 2;
      this.split(index, half, start);
      if (at >= half) {
        index += 1;
        at -= half;
        chunk = this.chunks[index];
      }
    }
    chunk.insert(at, start, end, value);
    if (at === 0 && index > 0) this.firsts[index] = start;
    this.size += 1;
    return true;
  }

  /** Removes the range that starts exactly at `start`: its integer, or -1. */
  remove(start: number): number {
    const index = this.chunkOf(start);
    const chunk = this.chunks[index];
    const at = chunk.rank(start) - 1;
    if (at < 0 || chunk.starts[at] !== start) return -1;
    const value = chunk.values[at];
    chunk.remove(at);
    this.size -= 1;
    if (chunk.count < SPARSE) this.thin(index);
    else if (at === 0 && index > 0) this.firsts[index] = chunk.starts[0];
    return value;
  }

  clear(): void {
    this.chunks = [new Chunk()];
    this.size = 0;
    this.chunk = 0;
    this.at = 0;
  }

  /** The chunk whose ranges would hold `point`. */
  private chunkOf(point: number): number {
    const firsts = this.firsts;
    let low = 1;
    let high = this.chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (firsts[middle] <= point) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** A cursor behind its chunk's last range moves on to the next chunk. */
  private settle(): boolean {
    while (this.at >= this.chunks[this.chunk].count) {
      if (this.chunk + 1 >= this.chunks.length) return false;
      this.chunk += 1;
      this.at = 0;
    }
    return true;
  }

  /** Moves ranges from `half` on into a new chunk behind `index`; an empty new chunk will begin with `start`. */
  private split(index: number, half: number, start: number): void {
    const chunk = this.chunks[index];
    const right = new Chunk();
    right.takeFrom(chunk, half);
    this.insertChunk(index + 1, right, right.count > 0 ? right.starts[0] : start);
  }

  /** Merges a sparse chunk with a neighbour, or drops it when it is empty. */
  private thin(index: number): void {
    const chunk = this.chunks[index];
    const next = this.chunks[index + 1];
    const previous = this.chunks[index - 1];
    if (next !== undefined && chunk.count + next.count <= CAPACITY / 2) {
      chunk.takeFrom(next, 0);
      this.removeChunk(index + 1);
    } else if (previous !== undefined && chunk.count + previous.count <= CAPACITY / 2) {
      previous.takeFrom(chunk, 0);
      this.removeChunk(index);
      return;
    } else if (chunk.count === 0 && this.chunks.length > 1) {
      this.removeChunk(index);
      this.firsts[0] = -Infinity;
      return;
    }
    if (index > 0) this.firsts[index] = chunk.starts[0];
  }

  private insertChunk(index: number, chunk: Chunk, first: number): void {
    if (this.chunks.length === this.firsts.length) {
      const larger = new Float64Array(this.firsts.length * 2);
      larger.set(this.firsts);
      this.firsts = larger;
    }
    this.firsts.copyWithin(index + 1, index, this.chunks.length);
    this.firsts[index] = first;
    this.chunks.splice(index, 0, chunk);
  }

  private removeChunk(index: number): void {
    this.firsts.copyWithin(index, index + 1, this.chunks.length);
    this.chunks.splice(index, 1);
  }
}
