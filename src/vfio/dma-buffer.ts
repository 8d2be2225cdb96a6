/** Memory of this process that a device reaches. */
import type { Iova } from '../ports/address.ts';
import type { UserBuffer } from '../ports/kernel.ts';
import { closed } from './error.ts';
import { Resource } from './resource.ts';

export class DmaBuffer extends Resource {
  /** Where the device finds it. */
  readonly iova: Iova;
  /** Where this process has it. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  readonly #memory: UserBuffer;
  readonly #unmap: () => void;

  /** Made by {@link Container.mapDma}. */
  constructor(iova: Iova, memory: UserBuffer, unmap: () => void) {
    super();
    this.iova = iova;
    this.address = memory.address;
    this.length = memory.length;
    this.#memory = memory;
    this.#unmap = unmap;
  }

  get label(): string {
    return `DMA buffer at iova 0x${this.iova.toString(16)}`;
  }

  /** The memory itself: what the device writes appears here. @throws VfioError EBADF after close */
  get bytes(): Uint8Array {
    if (this.isClosed) throw closed(this.label, 'bytes');
    return this.#memory.bytes;
  }

  protected override release(): void {
    this.#unmap();
    this.#memory.free();
  }
}
