/** What this SMMU can do, once, for its ID registers and for its checks of configuration. */
import { pack } from '../../arch/bits.ts';
import { encodeAddressSize, IDR0, IDR1, IDR3, IDR5 } from '../../arch/smmuv3/registers.ts';
import type { SmmuSpec } from '../spec.ts';

/** log2 of the command queue's entries that CMDQS allows. */
const COMMAND_QUEUE_LOG2 = 19;

/** IDR0.HTTU by the spec's name; 3, access flags of table descriptors too, is not built. */
const HTTU = { none: 0, access: 1, dirty: 2 } as const;

export interface Features {
  readonly stage1: boolean;
  readonly stage2: boolean;
  /** log2 of the granules. */
  readonly granuleShifts: readonly number[];
  readonly oas: number;
  readonly sidBits: number;
  readonly ssidBits: number;
  readonly stall: boolean;
  /** IDR0.HTTU: 1 updates access flags, 2 the dirty state too. */
  readonly httu: number;
  readonly tlbKeepsDirty: boolean;
  readonly twoLevelStreams: boolean;
  readonly twoLevelContexts: boolean;
  readonly eventQueueLog2: number;
  readonly commandQueueLog2: number;
  /** IDR0 to IDR5, IIDR, AIDR by offset / 4. */
  readonly idRegisters: Int32Array;
}

/** @throws RangeError for values that the architecture does not have, naming the field. */
export function featuresOf(spec: SmmuSpec): Features {
  const inRange = (field: keyof SmmuSpec, low: number, high: number): number => {
    const value = spec[field];
    if (typeof value !== 'number' || !Number.isInteger(value) || value < low || value > high) {
      throw new RangeError(`smmu ${field}: expected ${low} to ${high}, got ${String(value)}`);
    }
    return value;
  };
  if (!spec.stage1 && !spec.stage2) throw new RangeError('smmu stage1: one stage must exist');
  const granuleShifts = spec.granules.map((size) => {
    if (size !== 4096 && size !== 16384 && size !== 65536) throw new RangeError(`smmu granules: ${size} is none`);
    return Math.log2(size);
  });
  if (granuleShifts.length === 0) throw new RangeError('smmu granules: at least one is needed');
  encodeAddressSize(spec.oas);
  if (spec.oas > 48) throw new RangeError(`smmu oas: ${spec.oas} bits; at most 48 are built`);
  const features = {
    stage1: spec.stage1,
    stage2: spec.stage2,
    granuleShifts,
    oas: spec.oas,
    sidBits: inRange('sidBits', 1, 32),
    ssidBits: inRange('ssidBits', 0, 20),
    stall: spec.stall,
    httu: HTTU[spec.httu ?? 'none'],
    tlbKeepsDirty: spec.tlbKeepsDirty ?? false,
    twoLevelStreams: spec.twoLevelStreamTable,
    twoLevelContexts: spec.ssidBits > 0,
    eventQueueLog2: inRange('eventQueueLog2', 1, 19),
    commandQueueLog2: COMMAND_QUEUE_LOG2,
  };
  return { ...features, idRegisters: idRegisters(spec, features) };
}

function idRegisters(spec: SmmuSpec, features: Omit<Features, 'idRegisters'>): Int32Array {
  const registers = new Int32Array(8);
  const put = (index: number, words: readonly bigint[]): void => {
    registers[index] = Number(words[0]) | 0;
  };
  put(
    0,
    pack(IDR0, 1, {
      S2P: Number(spec.stage2),
      S1P: Number(spec.stage1),
      TTF: 2,
      COHACC: Number(spec.coherent),
      HTTU: features.httu,
      ASID16: 1,
      VMID16: 1,
      CD2L: Number(features.twoLevelContexts),
      TTENDIAN: 2,
      STALL_MODEL: spec.stall ? 0 : 1,
      TERM_MODEL: 1,
      ST_LEVEL: Number(spec.twoLevelStreamTable),
    }),
  );
  put(
    1,
    pack(IDR1, 1, {
      SIDSIZE: spec.sidBits,
      SSIDSIZE: spec.ssidBits,
      EVTQS: spec.eventQueueLog2,
      CMDQS: COMMAND_QUEUE_LOG2,
    }),
  );
  put(3, pack(IDR3, 1, { HAD: 1, XNX: 1, FWB: Number(spec.s2fwb), RIL: 1, BBML: 2 }));
  const has = (shift: number): number => Number(features.granuleShifts.includes(shift));
  put(5, pack(IDR5, 1, { OAS: encodeAddressSize(spec.oas), GRAN4K: has(12), GRAN16K: has(14), GRAN64K: has(16) }));
  // AIDR: SMMUv3.1, as the lab's.
  registers[7] = 1;
  return registers;
}
