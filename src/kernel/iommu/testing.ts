/** A machine of RAM and one IOMMU with its driver, for the tests of this room. */
import { RamMemory } from '../../machine/memory.ts';
import { Smmu } from '../../machine/smmu/smmu.ts';
import type { SmmuSpec } from '../../machine/spec.ts';
import { Access, type StatusCode, Transaction } from '../../ports/transaction.ts';
import { type TestContext, testContext } from '../test-context.ts';
import { ArmSmmuV3Driver } from './arm-smmu-v3/driver.ts';

/** As the lab's machine: 44 bits, two-level stream table, both stages, no stalls. */
export const labSmmu: SmmuSpec = {
  type: 'smmuv3',
  base: 0x905_0000,
  stage1: true,
  stage2: true,
  granules: [4096, 16384, 65536],
  oas: 44,
  sidBits: 16,
  ssidBits: 0,
  coherent: true,
  s2fwb: false,
  canwbs: false,
  stall: false,
  eventQueueLog2: 7,
  twoLevelStreamTable: true,
  reserved: [],
};

export interface SmmuHost {
  readonly context: TestContext;
  readonly smmu: Smmu;
  readonly driver: ArmSmmuV3Driver;
  /** A device's access; `pa()` then says where it went. */
  dma(requester: number, iova: number, access?: number): StatusCode;
  pa(): number;
  readonly tx: Transaction;
}

export function smmuHost(changes: Partial<SmmuSpec> = {}, pageSize = 4096): SmmuHost {
  const context = testContext({ pageSize, memory: new RamMemory([{ base: 0x4000_0000, size: 0x1000_0000 }]) });
  const spec = { ...labSmmu, ...changes };
  const smmu = new Smmu(spec, context.memory, context.tap);
  smmu.attach(context.bus);
  const driver = new ArmSmmuV3Driver(context, spec, smmu);
  const tx = new Transaction();
  return {
    context,
    smmu,
    driver,
    tx,
    dma: (requester, iova, access = Access.WRITE) => {
      tx.requester = requester;
      tx.iovaHi = (iova / 4294967296) | 0;
      tx.iovaLo = iova | 0;
      tx.access = access;
      return smmu.translate(tx);
    },
    pa: () => (tx.paHi >>> 0) * 4294967296 + (tx.paLo >>> 0),
  };
}
