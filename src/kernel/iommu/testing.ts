/** A machine of RAM and one IOMMU with its driver, for the tests of this room. */
import { RamMemory } from '../../machine/memory.ts';
import { Smmu } from '../../machine/smmu/smmu.ts';
import type { SmmuSpec, VtdSpec } from '../../machine/spec.ts';
import { Vtd } from '../../machine/vtd/vtd.ts';
import type { Iommu } from '../../ports/iommu.ts';
import { Access, type StatusCode, Transaction } from '../../ports/transaction.ts';
import { type TestContext, testContext } from '../test-context.ts';
import { ArmSmmuV3Driver } from './arm-smmu-v3/driver.ts';
import { IntelVtdDriver } from './intel/driver.ts';

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

export interface IommuHost {
  readonly context: TestContext;
  /** A device's access; `pa()` then says where it went. */
  dma(requester: number, iova: number, access?: number): StatusCode;
  pa(): number;
  readonly tx: Transaction;
}

export interface SmmuHost extends IommuHost {
  readonly smmu: Smmu;
  readonly driver: ArmSmmuV3Driver;
}

export interface VtdHost extends IommuHost {
  readonly vtd: Vtd;
  readonly driver: IntelVtdDriver;
}

const host = (context: TestContext, iommu: Iommu): IommuHost => {
  const tx = new Transaction();
  return {
    context,
    tx,
    dma: (requester, iova, access = Access.WRITE) => {
      tx.requester = requester;
      tx.iovaHi = (iova / 4294967296) | 0;
      tx.iovaLo = iova | 0;
      tx.access = access;
      return iommu.translate(tx);
    },
    pa: () => (tx.paHi >>> 0) * 4294967296 + (tx.paLo >>> 0),
  };
};

const smallContext = (pageSize: number): TestContext =>
  testContext({ pageSize, memory: new RamMemory([{ base: 0x4000_0000, size: 0x1000_0000 }]) });

export function smmuHost(changes: Partial<SmmuSpec> = {}, pageSize = 4096): SmmuHost {
  const context = smallContext(pageSize);
  const spec = { ...labSmmu, ...changes };
  const smmu = new Smmu(spec, context.memory, context.tap);
  smmu.attach(context.bus);
  return { ...host(context, smmu), smmu, driver: new ArmSmmuV3Driver(context, spec, smmu) };
}

export function vtdHost(changes: Partial<VtdSpec> = {}): VtdHost {
  const context = smallContext(4096);
  const spec: VtdSpec = {
    type: 'intel-vtd',
    base: 0xfed9_0000,
    addressWidth: 48,
    coherent: false,
    reserved: [],
    ...changes,
  };
  const vtd = new Vtd(spec, context.memory, context.tap);
  vtd.attach(context.bus);
  return { ...host(context, vtd), vtd, driver: new IntelVtdDriver(context, spec, vtd) };
}
