/** What the driver learns from the ID registers (arm_smmu_device_hw_probe). */
import { getNumber } from '../../../arch/bits.ts';
import { ADDRESS_SIZES, IDR0, IDR1, IDR3, IDR5, Reg } from '../../../arch/smmuv3/registers.ts';
import type { Bus } from '../../../ports/bus.ts';

export interface SmmuProbe {
  /** IDR0 to IDR5 as read: what IOMMU_GET_HW_INFO shows. */
  readonly idr: readonly number[];
  readonly iidr: number;
  readonly aidr: number;
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly coherent: boolean;
  /** IDR0.HTTU: the SMMU keeps the dirty state of pages (ARM_SMMU_FEAT_HD). */
  readonly dirty: boolean;
  readonly stall: boolean;
  readonly twoLevelStreams: boolean;
  readonly twoLevelContexts: boolean;
  readonly rangeInvalidation: boolean;
  readonly s2fwb: boolean;
  readonly asidBits: number;
  readonly vmidBits: number;
  readonly sidBits: number;
  readonly ssidBits: number;
  readonly commandQueueLog2: number;
  readonly eventQueueLog2: number;
  readonly oas: number;
  /** Bytes, smallest first. */
  readonly granules: readonly number[];
}

export function probeSmmu(bus: Bus, base: number): SmmuProbe {
  const idr = [0, 1, 2, 3, 4, 5].map((index) => bus.read32(base + index * 4) >>> 0);
  const [idr0, idr1, , idr3, , idr5] = idr.map((value) => [BigInt(value)]);
  const flag = (words: readonly bigint[], field: (typeof IDR0)[keyof typeof IDR0]): boolean =>
    getNumber(words, field) === 1;
  const granules: number[] = [];
  if (flag(idr5, IDR5.GRAN4K)) granules.push(4096);
  if (flag(idr5, IDR5.GRAN16K)) granules.push(16384);
  if (flag(idr5, IDR5.GRAN64K)) granules.push(65536);
  return {
    idr,
    iidr: bus.read32(base + Reg.IIDR) >>> 0,
    aidr: bus.read32(base + Reg.AIDR) >>> 0,
    stage1: flag(idr0, IDR0.S1P),
    stage2: flag(idr0, IDR0.S2P),
    coherent: flag(idr0, IDR0.COHACC),
    dirty: getNumber(idr0, IDR0.HTTU) >= 2,
    stall: getNumber(idr0, IDR0.STALL_MODEL) !== 1,
    twoLevelStreams: flag(idr0, IDR0.ST_LEVEL),
    twoLevelContexts: flag(idr0, IDR0.CD2L),
    rangeInvalidation: flag(idr3, IDR3.RIL),
    s2fwb: flag(idr3, IDR3.FWB),
    asidBits: flag(idr0, IDR0.ASID16) ? 16 : 8,
    vmidBits: flag(idr0, IDR0.VMID16) ? 16 : 8,
    sidBits: getNumber(idr1, IDR1.SIDSIZE),
    ssidBits: getNumber(idr1, IDR1.SSIDSIZE),
    commandQueueLog2: getNumber(idr1, IDR1.CMDQS),
    eventQueueLog2: getNumber(idr1, IDR1.EVTQS),
    oas: ADDRESS_SIZES[getNumber(idr5, IDR5.OAS)],
    granules,
  };
}
