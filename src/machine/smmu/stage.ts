/** One stage of translation as configuration describes it, in the form the walker wants: small integers. */
import type { Geometry } from '../../arch/lpae/geometry.ts';
import { levelShift } from '../../arch/lpae/geometry.ts';

export interface StageOptions {
  /** Base of the first table, as halves. */
  readonly tableHi: number;
  readonly tableLo: number;
  /** Effective output size in bits, 32 to 52: the smaller of the configured one and the SMMU's. */
  readonly outputBits: number;
  /** AFFD: a clear access flag does not fault. */
  readonly accessFlagOff?: boolean;
  /** Stage 1: attributes of table descriptors hold below (not HAD). */
  readonly hierarchical?: boolean;
  /** Stage 1: what can be written cannot be executed. */
  readonly writeNoExec?: boolean;
  /** Stage 2: a stage 1 table in device memory is refused. */
  readonly protectWalk?: boolean;
  /** HA: a clear access flag is set instead of refused, and AFFD means nothing. */
  readonly updatesAccess?: boolean;
  /** HD: a write to a page that is clean but may be written (DBM) makes it dirty. Only with HA. */
  readonly updatesDirty?: boolean;
}

export class Stage {
  declare readonly stage: 1 | 2;
  declare readonly granuleShift: number;
  declare readonly levelBits: number;
  declare readonly inputBits: number;
  declare readonly startLevel: number;
  declare readonly startShift: number;
  declare readonly startMask: number;
  declare readonly tableHi: number;
  declare readonly tableLo: number;
  /** Bits that an input address must not have, by half; and the high half of an output address. */
  declare readonly beyondInputHi: number;
  declare readonly beyondInputLo: number;
  declare readonly beyondOutputHi: number;
  declare readonly accessFlagOff: boolean;
  declare readonly hierarchical: boolean;
  declare readonly writeNoExec: boolean;
  declare readonly protectWalk: boolean;
  declare readonly updatesAccess: boolean;
  declare readonly updatesDirty: boolean;
  /** Four levels of 4 KiB from a table that can be, and nothing to update: what nearly all streams have, and the walker does fastest. */
  declare readonly isFourLevels: boolean;

  constructor(stage: 1 | 2, geometry: Geometry, options: StageOptions) {
    this.stage = stage;
    this.granuleShift = geometry.granuleShift;
    this.levelBits = geometry.levelBits;
    this.inputBits = geometry.inputBits;
    this.startLevel = geometry.startLevel;
    this.startShift = levelShift(geometry.granuleShift, geometry.startLevel);
    this.startMask = (1 << geometry.startBits) - 1;
    this.tableHi = options.tableHi;
    // A table is aligned to its size; the register's bits below that are ignored.
    this.tableLo = options.tableLo & ~((8 << geometry.startBits) - 1);
    this.beyondInputHi = beyondHi(geometry.inputBits);
    this.beyondInputLo = geometry.inputBits < 32 ? -1 << geometry.inputBits : 0;
    this.beyondOutputHi = beyondHi(options.outputBits);
    this.accessFlagOff = options.accessFlagOff ?? false;
    this.hierarchical = options.hierarchical ?? false;
    this.writeNoExec = options.writeNoExec ?? false;
    this.protectWalk = options.protectWalk ?? false;
    this.updatesAccess = options.updatesAccess ?? false;
    this.updatesDirty = this.updatesAccess && (options.updatesDirty ?? false);
    this.isFourLevels =
      geometry.granuleShift === 12 &&
      geometry.inputBits === 48 &&
      (this.tableHi & this.beyondOutputHi) === 0 &&
      !this.updatesAccess;
  }
}

/** Bits of the high half at and above 2^bits. */
const beyondHi = (bits: number): number => (bits <= 32 ? -1 : -1 << (bits - 32));

/** Is {hi, lo} (unsigned) at or above 2^bits? */
export function exceeds(hi: number, lo: number, bits: number): boolean {
  if (bits > 32) return bits < 64 && hi >>> (bits - 32) !== 0;
  return hi !== 0 || (bits < 32 && lo >>> bits !== 0);
}
