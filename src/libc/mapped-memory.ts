/** A mapped range of memory, and what happens to typed arrays on it when it goes. */
import type { Libc } from './libc.ts';

/** What an ArrayBuffer may hold before Node 22; a larger view ends the process there (V8 fatal error). */
const LARGEST_VIEW_OF_OLD_NODE = 2 ** 32;

/** Address ranges whose last view the garbage collector took. One for the program, as the address space is. */
const abandoned = new FinalizationRegistry<{ libc: Libc; address: number; size: number }>(({ libc, address, size }) => {
  libc.munmap(address, size);
});

export class MappedMemory {
  readonly address: number;
  readonly length: number;
  private readonly libc: Libc;
  private readonly size: number;
  private buffer: ArrayBuffer | null = null;
  private mapped = true;

  /** @param size bytes of whole pages, where `length` ends inside of one */
  constructor(libc: Libc, address: number, length: number, size: number = length) {
    this.libc = libc;
    this.address = address;
    this.length = length;
    this.size = size;
  }

  get isMapped(): boolean {
    return this.mapped;
  }

  /**
   * The memory as one ArrayBuffer, made once: making it costs microseconds and feeds the garbage collector's accounting.
   * @throws RangeError after unmap; and above 4 GiB where Node cannot make such a view
   */
  view(): ArrayBuffer {
    if (!this.mapped) throw new RangeError(`the memory at 0x${this.address.toString(16)} is unmapped`);
    if (this.buffer !== null) return this.buffer;
    if (this.length > LARGEST_VIEW_OF_OLD_NODE && nodeMajor() < 22) {
      throw new RangeError(`a view of ${this.length} bytes needs Node.js 22 or newer; map it in parts`);
    }
    this.buffer = this.libc.koffi.view(this.address, this.length);
    return this.buffer;
  }

  /**
   * Gives the memory back. Typed arrays that someone kept would read and write unmapped pages, which ends the process: neither
   * structuredClone nor, before Node 22, anything else detaches them. So zeroed pages take the place, and the addresses are
   * given back when the last view was collected.
   */
  unmap(): void {
    if (!this.mapped) return;
    this.mapped = false;
    if (this.buffer === null) {
      this.libc.munmap(this.address, this.size);
      return;
    }
    this.libc.overlay(this.address, this.size);
    abandoned.register(this.buffer, { libc: this.libc, address: this.address, size: this.size });
    this.buffer = null;
  }
}

const nodeMajor = (): number => Number(process.versions.node.split('.')[0]);
