/** The shape of VMSAv8-64 tables: granules, levels, and where a walk begins (Arm ARM D8.2). */

export interface Geometry {
  /** log2 of the granule: 12, 14, 16. */
  readonly granuleShift: number;
  /** Index bits of one table: 9, 11, 13. */
  readonly levelBits: number;
  /** Bits of the input address. */
  readonly inputBits: number;
  /** Level of the first table, 0 to 3. */
  readonly startLevel: number;
  /** Index bits of the first table, with concatenated tables up to levelBits + 4. */
  readonly startBits: number;
}

/** log2 of what an entry of `level` maps. */
export const levelShift = (granuleShift: number, level: number): number =>
  granuleShift + (3 - level) * (granuleShift - 3);

/** Can an entry of `level` be a block? 4K: levels 1 and 2; 16K and 64K: level 2 (without 52-bit addresses). */
export const allowsBlock = (granuleShift: number, level: number): boolean =>
  granuleShift === 12 ? level === 1 || level === 2 : level === 2;

/** Page and block sizes of a granule in bytes, smallest first. */
export function pageSizesOf(granuleShift: number): number[] {
  return [3, 2, 1, 0]
    .filter((level) => level === 3 || allowsBlock(granuleShift, level))
    .map((level) => 2 ** levelShift(granuleShift, level));
}

/** Stage 1: the start level follows from the input size. */
export function stage1Geometry(granuleShift: number, inputBits: number): Geometry {
  const levelBits = granuleShift - 3;
  const levels = Math.ceil((inputBits - granuleShift) / levelBits);
  const startLevel = 4 - levels;
  return {
    granuleShift,
    levelBits,
    inputBits,
    startLevel,
    startBits: inputBits - levelShift(granuleShift, startLevel),
  };
}

/**
 * Stage 2 as software lays it out: up to 16 tables side by side replace a first level of up to 16 entries, where the
 * architecture wants that (16K at level 0, 64K with up to 42 bits) or where it saves a level (4K at level 0).
 */
export function stage2Geometry(granuleShift: number, inputBits: number): Geometry {
  const plain = stage1Geometry(granuleShift, inputBits);
  const concatenate =
    plain.startBits <= 4 &&
    (plain.startLevel === 0 || (granuleShift === 16 && plain.startLevel === 1 && inputBits <= 42));
  if (!concatenate) return plain;
  return { ...plain, startLevel: plain.startLevel + 1, startBits: plain.startBits + plain.levelBits };
}

/** STE.S2SL0 of a start level. 4K counts from level 2 upwards, 16K and 64K from level 3. */
export const encodeSl0 = (granuleShift: number, startLevel: number): number =>
  granuleShift === 12 ? 2 - startLevel : 3 - startLevel;

/** Start level of STE.S2SL0; -1 when reserved. */
export function decodeSl0(granuleShift: number, sl0: number): number {
  if (sl0 === 3) return -1;
  return granuleShift === 12 ? 2 - sl0 : 3 - sl0;
}

/** Stage 2 as the hardware reads it from an STE: null when S2T0SZ and S2SL0 do not go together. */
export function stage2FromSte(granuleShift: number, inputBits: number, sl0: number): Geometry | null {
  const startLevel = decodeSl0(granuleShift, sl0);
  if (startLevel < 0) return null;
  const levelBits = granuleShift - 3;
  const startBits = inputBits - levelShift(granuleShift, startLevel);
  if (startBits < 1 || startBits > levelBits + 4) return null;
  return { granuleShift, levelBits, inputBits, startLevel, startBits };
}
