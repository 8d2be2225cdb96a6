/** Pages of a driver in the simulated kernel that a program maps: the program's own mapping and physical memory show the same bytes. */
import type { File } from '../../kernel/files.ts';

export interface DriverPages {
  /** Physical address. */
  readonly pa: number;
  /** From now on they are what the file's stand-in has at this offset. False: there is no room. */
  placeAt(offset: number): boolean;
  release(): void;
}

export interface PagePlacer {
  /** Zeroed pages that can be mapped through an open file; null: the file is no program's, or there is no memory. */
  alloc(file: File, length: number): DriverPages | null;
}
