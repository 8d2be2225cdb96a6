/** The physical address space: memory, register ranges, and the doorbell pages of interrupt controllers. */
import { fromHalves, hex, highHalf } from '../ports/address.ts';
import type { Bus, DoorbellPage, MmioTarget, MsiController } from '../ports/bus.ts';
import type { PhysicalMemory } from '../ports/memory.ts';
import { Status, type StatusCode, type Transaction } from '../ports/transaction.ts';

interface Range {
  readonly base: number;
  readonly size: number;
  readonly target: MmioTarget;
}

/** Compares unequal to every page (a page's low half has its low 12 bits clear). */
const NO_PAGE = 1;

export class SystemBus implements Bus {
  declare readonly memory: PhysicalMemory;
  private readonly ranges: Range[] = [];
  private readonly pages: { readonly page: DoorbellPage; readonly controller: MsiController }[] = [];
  // The 4 KiB doorbell page last written: a machine has one or two, so that one compare of two halves finds it.
  private bellHi = 0;
  private bellLo = NO_PAGE;
  private bell: MsiController | null = null;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  store(tx: Transaction): StatusCode {
    const hi = tx.paHi;
    const lo = tx.paLo;
    if ((lo & -4096) === this.bellLo && hi === this.bellHi) return this.bell!.message(tx);
    if (this.memory.locate(hi, lo)) return this.storeToMemory(tx);
    if (this.findBell(hi, lo)) return this.bell!.message(tx);
    const pa = fromHalves(hi, lo);
    const range = this.find(pa);
    if (range === null) return Status.UNCLAIMED;
    range.target.write(pa - range.base, tx.size, clip(tx.data, tx.size));
    return Status.OK;
  }

  read32(pa: number): number {
    return this.read(pa, 4);
  }

  write32(pa: number, value: number): void {
    this.write(pa, 4, value);
  }

  /** Memory first, then registers. `size` 1, 2 or 4; the answer of size 4 is signed. */
  read(pa: number, size: number): number {
    const { memory } = this;
    if (memory.locate(highHalf(pa), pa | 0)) {
      const word = memory.words[memory.at + ((pa >>> 2) & 1)];
      return clip(word >>> ((pa & 3) << 3), size);
    }
    const range = this.find(pa);
    return clip(range === null ? -1 : range.target.read(pa - range.base, size), size);
  }

  write(pa: number, size: number, value: number): void {
    const { memory } = this;
    if (memory.locate(highHalf(pa), pa | 0)) {
      memory.write32(pa, merge(memory.words[memory.at + ((pa >>> 2) & 1)], pa & 3, size, value));
      return;
    }
    const range = this.find(pa);
    if (range !== null) range.target.write(pa - range.base, size, clip(value, size));
  }

  /** @throws RangeError when the range overlaps one that is mapped. */
  map(base: number, size: number, target: MmioTarget): void {
    for (const other of this.ranges) {
      if (base < other.base + other.size && other.base < base + size) {
        throw new RangeError(`${target.name} at ${hex(base)} overlaps ${other.target.name} at ${hex(other.base)}`);
      }
    }
    this.ranges.push({ base, size, target });
    this.ranges.sort((a, b) => a.base - b.base);
  }

  unmap(base: number): void {
    const index = this.ranges.findIndex((range) => range.base === base);
    if (index >= 0) this.ranges.splice(index, 1);
  }

  attachController(controller: MsiController): void {
    for (const page of controller.doorbells) this.pages.push({ page, controller });
  }

  claimant(pa: number): string | null {
    if (this.memory.covers(pa, 1)) return 'memory';
    const bell = this.pages.find(({ page }) => pa >= page.base && pa < page.base + page.size);
    return bell?.controller.name ?? this.find(pa)?.target.name ?? null;
  }

  private storeToMemory(tx: Transaction): StatusCode {
    const { memory } = this;
    const lo = tx.paLo;
    const word = memory.words[memory.at + ((lo >>> 2) & 1)];
    const stored = memory.write32(fromHalves(tx.paHi, lo & -4), merge(word, lo & 3, tx.size, tx.data));
    return stored ? Status.OK : Status.UNCLAIMED;
  }

  /** Makes the page the one that is found by comparison. */
  private findBell(hi: number, lo: number): boolean {
    const pa = fromHalves(hi, lo);
    for (const { page, controller } of this.pages) {
      if (pa >= page.base && pa < page.base + page.size) {
        this.bell = controller;
        this.bellHi = hi;
        this.bellLo = lo & -4096;
        return true;
      }
    }
    return false;
  }

  private find(pa: number): Range | null {
    let low = 0;
    let high = this.ranges.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const range = this.ranges[middle];
      if (pa < range.base) high = middle - 1;
      else if (pa >= range.base + range.size) low = middle + 1;
      else return range;
    }
    return null;
  }
}

function clip(value: number, size: number): number {
  if (size === 1) return value & 0xff;
  return size === 2 ? value & 0xffff : value | 0;
}

/** `word` with `size` bytes from byte lane `lane` on replaced. */
function merge(word: number, lane: number, size: number, value: number): number {
  if (size === 4) return value | 0;
  const mask = (size === 1 ? 0xff : 0xffff) << (lane << 3);
  return (word & ~mask) | ((value << (lane << 3)) & mask);
}
