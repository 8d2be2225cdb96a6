/** A shared mapping of a memfd: the pages that the file has at each moment, SIGBUS beyond its end. */
import { hex } from '../ports/address.ts';
import type { Mapping } from '../ports/kernel.ts';
import type { PhysicalMemory } from '../ports/memory.ts';
import { BusError } from './bus-error.ts';
import type { FileMapping, Located } from './files.ts';

/** The file behind it: one that was closed lives on in its mappings. */
interface Pages {
  readonly name: string;
  locate(offset: number): Located | null;
}

export class MemfdMapping implements FileMapping {
  /** Its pages lie where `locate` says. */
  readonly pa = 0;
  readonly length: number;
  readonly deviceMemory = false;
  private readonly pages: Pages;
  private readonly memory: PhysicalMemory;
  private readonly offset: number;
  private readonly onClose: () => void;

  constructor(pages: Pages, memory: PhysicalMemory, offset: number, length: number, onClose: () => void) {
    this.pages = pages;
    this.memory = memory;
    this.offset = offset;
    this.length = length;
    this.onClose = onClose;
  }

  locate(offset: number): Located | null {
    const found = this.pages.locate(this.offset + offset);
    return found === null ? null : { ...found, length: Math.min(found.length, this.length - offset) };
  }

  open(address: number): Mapping {
    return new OpenMemfdMapping(this, this.memory, this.pages.name, address);
  }

  close(): void {
    this.onClose();
  }
}

class OpenMemfdMapping implements Mapping {
  readonly address: number;
  private readonly file: MemfdMapping;
  private readonly memory: PhysicalMemory;
  private readonly name: string;

  constructor(file: MemfdMapping, memory: PhysicalMemory, name: string, address: number) {
    this.file = file;
    this.memory = memory;
    this.name = name;
    this.address = address;
  }

  get length(): number {
    return this.file.length;
  }

  /** Null when its pages are not one array. @throws BusError where the file is shorter */
  get bytes(): Uint8Array | null {
    const { pa, length } = this.at(0);
    if (length >= this.length) return this.memory.view(pa, this.length);
    this.at(length);
    return null;
  }

  read32(offset: number): number {
    return this.memory.read32(this.at(offset).pa) >>> 0;
  }

  write32(offset: number, value: number): void {
    this.memory.write32(this.at(offset).pa, value);
  }

  unmap(): void {}

  private at(offset: number): Located {
    const found = this.file.locate(offset);
    if (found !== null) return found;
    throw new BusError(`${this.name} ends before byte ${hex(offset, 1)} of the mapping`);
  }
}
