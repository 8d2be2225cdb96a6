/** Where a device's BARs are in the guest: the registers are VFIO's copies, this reads them and finds what an address hits. */
import { Bar, Command, Header } from '../arch/pci/config.ts';
import type { ConfigSpace } from '../vfio/config-space.ts';
import type { GuestRange } from './guest-map.ts';

export interface BarPlace {
  readonly index: number;
  readonly base: number;
  readonly size: number;
}

/** Bytes of a BAR by index, 0 for none; how VFIO's region info says it. */
export type BarSize = (index: number) => number;

export class GuestBars {
  readonly #config: ConfigSpace;
  readonly #sizeOf: BarSize;
  #places: readonly BarPlace[] = [];

  constructor(config: ConfigSpace, sizeOf: BarSize) {
    this.#config = config;
    this.#sizeOf = sizeOf;
  }

  /** The memory BARs that decode now. */
  get places(): readonly BarPlace[] {
    return this.#places;
  }

  /** Gives each memory BAR an address of the window, largest first, from `start` on. @returns the first address behind them, or null without room */
  assign(window: GuestRange, start: number): number | null {
    let next = start;
    const bars = [...this.#memoryBars()].sort((a, b) => b.size - a.size);
    for (const { index, size, wide } of bars) {
      const step = Math.max(size, 0x1000);
      const base = Math.ceil(next / step) * step;
      if (base + step > window.base + window.size) return null;
      this.#config.write32(Header.BAR0 + index * 4, base % 2 ** 32);
      if (wide) this.#config.write32(Header.BAR0 + index * 4 + 4, Math.floor(base / 2 ** 32));
      next = base + step;
    }
    this.refresh();
    return next;
  }

  /** Reads the registers again: the guest wrote a BAR, or its command register. */
  refresh(): void {
    const decoding = (this.#config.read16(Header.COMMAND) & Command.MEMORY) !== 0;
    this.#places = decoding ? [...this.#memoryBars()].map(({ index, size, base }) => ({ index, size, base })) : [];
  }

  find(gpa: number): BarPlace | null {
    for (const place of this.#places) if (gpa >= place.base && gpa - place.base < place.size) return place;
    return null;
  }

  *#memoryBars(): Generator<BarPlace & { readonly wide: boolean }> {
    for (let index = 0; index < 6; index++) {
      const low = this.#config.read32(Header.BAR0 + index * 4);
      const size = this.#sizeOf(index);
      if (size === 0 || (low & Bar.IO) !== 0) continue;
      const wide = (low & Bar.TYPE_MASK) === Bar.TYPE_64;
      const high = wide ? this.#config.read32(Header.BAR0 + index * 4 + 4) : 0;
      yield { index, size, base: high * 2 ** 32 + ((low & Bar.MEMORY_MASK) >>> 0), wide };
      if (wide) index++;
    }
  }
}
