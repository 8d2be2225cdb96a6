/** A disk in memory. Pieces come into being when they are first written, so that a large one costs what was put on it. */
import type { BlockStore } from '../ports/block-store.ts';

const PIECE = 0x1_0000;

export class MemoryStore implements BlockStore {
  size: number;
  private readonly pieces = new Map<number, Uint8Array>();

  constructor(size: number) {
    this.size = size;
  }

  read(offset: number, into: Uint8Array): boolean {
    this.each(offset, into.length, (piece, within, at, length) => {
      const bytes = this.pieces.get(piece);
      if (bytes === undefined) into.fill(0, at, at + length);
      else into.set(bytes.subarray(within, within + length), at);
    });
    return true;
  }

  write(offset: number, from: Uint8Array): boolean {
    this.each(offset, from.length, (piece, within, at, length) => {
      let bytes = this.pieces.get(piece);
      if (bytes === undefined) {
        bytes = new Uint8Array(PIECE);
        this.pieces.set(piece, bytes);
      }
      bytes.set(from.subarray(at, at + length), within);
    });
    return true;
  }

  zero(offset: number, length: number): boolean {
    this.each(offset, length, (piece, within, _, part) => {
      if (part === PIECE) this.pieces.delete(piece);
      else this.pieces.get(piece)?.fill(0, within, within + part);
    });
    return true;
  }

  flush(): boolean {
    return true;
  }

  /** What lies beyond a smaller size is gone; what a larger one adds reads zero. */
  resize(size: number): void {
    if (size < this.size) this.zero(size, this.size - size);
    this.size = size;
  }

  /** Bytes of memory that it takes. */
  get allocated(): number {
    return this.pieces.size * PIECE;
  }

  private each(
    offset: number,
    length: number,
    visit: (piece: number, within: number, at: number, length: number) => void,
  ): void {
    for (let at = 0; at < length; ) {
      const within = (offset + at) % PIECE;
      const part = Math.min(length - at, PIECE - within);
      visit(Math.floor((offset + at) / PIECE), within, at, part);
      at += part;
    }
  }
}
