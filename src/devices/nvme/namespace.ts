/** The drive's one namespace, number 1: logical blocks in a store. */
import type { BlockStore } from '../../ports/block-store.ts';

export const NAMESPACE_ID = 1;

export class Namespace {
  readonly store: BlockStore;
  readonly blockBytes: number;
  readonly readOnly: boolean;

  constructor(store: BlockStore, blockBytes: number, readOnly: boolean) {
    this.store = store;
    this.blockBytes = blockBytes;
    this.readOnly = readOnly;
  }

  /** Logical blocks; what is left of the store behind the last one is not seen. */
  get blocks(): number {
    return Math.floor(this.store.size / this.blockBytes);
  }

  holds(block: number, count: number): boolean {
    return block + count <= this.blocks;
  }

  read(block: number, count: number): Uint8Array | null {
    const bytes = new Uint8Array(count * this.blockBytes);
    return this.store.read(block * this.blockBytes, bytes) ? bytes : null;
  }

  write(block: number, bytes: Uint8Array): boolean {
    return this.store.write(block * this.blockBytes, bytes);
  }

  zero(block: number, count: number): boolean {
    return this.store.zero(block * this.blockBytes, count * this.blockBytes);
  }
}
