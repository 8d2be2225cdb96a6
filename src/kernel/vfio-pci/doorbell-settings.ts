/** What user space gave a device's vectors: a default for each index, and ranges for single vectors, which come first (rule 8). */
import type { MsiMode } from '../irq/pci-irqs.ts';
import type { DoorbellRange } from '../vfio/doorbell-ranges.ts';

/** One given range. `range` is its reservation, or null while the device is attached to no context. */
export interface DoorbellSetting {
  readonly iova: number;
  readonly size: number;
  range: DoorbellRange | null;
}

/** Which settings a request names: the default of an index, or vectors [start, start + count). */
export interface DoorbellTarget {
  readonly mode: MsiMode;
  readonly start: number;
  /** 0: the default of the index. */
  readonly count: number;
}

export class DoorbellSettings {
  private readonly defaults = new Map<MsiMode, DoorbellSetting>();
  private readonly single = { msi: new Map<number, DoorbellSetting>(), msix: new Map<number, DoorbellSetting>() };

  /** The setting that serves a vector, or null: the kernel's window does. */
  of(mode: MsiMode, vector: number): DoorbellSetting | null {
    return this.single[mode].get(vector) ?? this.defaults.get(mode) ?? null;
  }

  get all(): readonly DoorbellSetting[] {
    return [...this.defaults.values(), ...this.single.msi.values(), ...this.single.msix.values()];
  }

  /** What the target has now, one entry for each of its places. */
  take(target: DoorbellTarget): (DoorbellSetting | null)[] {
    if (target.count === 0) return [this.defaults.get(target.mode) ?? null];
    const vectors = this.single[target.mode];
    return Array.from({ length: target.count }, (_, i) => vectors.get(target.start + i) ?? null);
  }

  /** Puts one entry in each place of the target; null clears it. */
  put(target: DoorbellTarget, settings: readonly (DoorbellSetting | null)[]): void {
    if (target.count === 0) {
      replace(this.defaults, target.mode, settings[0] ?? null);
      return;
    }
    for (const [i, setting] of settings.entries()) replace(this.single[target.mode], target.start + i, setting);
  }

  clear(): void {
    this.defaults.clear();
    this.single.msi.clear();
    this.single.msix.clear();
  }
}

function replace<K>(map: Map<K, DoorbellSetting>, key: K, setting: DoorbellSetting | null): void {
  if (setting === null) map.delete(key);
  else map.set(key, setting);
}
