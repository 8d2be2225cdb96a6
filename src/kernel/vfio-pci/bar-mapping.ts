/** A BAR as a process maps it (vfio_pci_core_mmap): physical addresses, which fault while memory decoding is off. */
import type { Mapping } from '../../ports/kernel.ts';
import { BusError } from '../bus-error.ts';
import type { FileMapping } from '../files.ts';
import type { VfioPciState } from './state.ts';

export { BusError };

export class BarMapping implements FileMapping {
  readonly pa: number;
  readonly length: number;
  readonly deviceMemory = true;
  private readonly state: VfioPciState;
  private closed = false;

  constructor(state: VfioPciState, pa: number, length: number) {
    this.state = state;
    this.pa = pa;
    this.length = length;
  }

  /** True while an access would be a SIGBUS: memory decoding is off, the function sleeps, or the mapping is closed. */
  get revoked(): boolean {
    return this.closed || !this.state.mappingsEnabled;
  }

  open(address: number): Mapping {
    return new OpenBarMapping(this, this.state, address);
  }

  close(): void {
    this.closed = true;
  }
}

class OpenBarMapping implements Mapping {
  readonly address: number;
  readonly bytes = null;
  private readonly file: BarMapping;
  private readonly state: VfioPciState;
  private unmapped = false;

  constructor(file: BarMapping, state: VfioPciState, address: number) {
    this.file = file;
    this.state = state;
    this.address = address;
  }

  get length(): number {
    return this.file.length;
  }

  get revoked(): boolean {
    return this.unmapped || this.file.revoked;
  }

  /** @throws BusError where a program would get SIGBUS, RangeError beyond the mapping */
  read32(offset: number): number {
    this.check(offset);
    return this.state.context.bus.read32(this.file.pa + offset) >>> 0;
  }

  write32(offset: number, value: number): void {
    this.check(offset);
    this.state.context.bus.write32(this.file.pa + offset, value);
  }

  unmap(): void {
    this.unmapped = true;
  }

  private check(offset: number): void {
    if (!Number.isInteger(offset) || offset < 0 || offset + 4 > this.length || offset % 4 !== 0) {
      throw new RangeError(`offset ${offset}: expected a multiple of 4 within the ${this.length} bytes mapped`);
    }
    if (this.unmapped) throw new BusError(`the mapping of ${this.state.dev.name} was unmapped`);
    if (this.file.revoked) {
      throw new BusError(
        `${this.state.dev.name}: memory decoding is off or the function sleeps, and its BARs cannot be accessed`,
      );
    }
  }
}
