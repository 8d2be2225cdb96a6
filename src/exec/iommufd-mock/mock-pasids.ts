/** The mock's set_dev_pasid: it does nothing, but fails each second time with PASID 1024, so that rolling back can be seen. */
import type { PasidOps } from '../../kernel/iommu/group-pasids.ts';
import type { PciDev } from '../../kernel/pci/pci-dev.ts';
import type { RefusalLog } from '../../kernel/refusal.ts';
import type { IommuDomain } from '../../ports/iommu.ts';

/** IOMMU_TEST_PASID_RESERVED. */
const RESERVED = 1024;

export class MockPasids implements PasidOps {
  private readonly refusals: RefusalLog;
  private readonly most: number;
  private readonly isMock: (domain: IommuDomain) => boolean;
  private failsNext = false;

  /** `most`: max_pasids; a mock without PASIDs has one, 0. */
  constructor(refusals: RefusalLog, most: number, isMock: (domain: IommuDomain) => boolean) {
    this.refusals = refusals;
    this.most = most;
    this.isMock = isMock;
  }

  maxPasids(): number {
    return this.most;
  }

  canSetPasid(domain: IommuDomain): boolean {
    return this.isMock(domain);
  }

  isCompatible(domain: IommuDomain): boolean {
    return this.isMock(domain);
  }

  setPasid(_dev: PciDev, pasid: number, domain: IommuDomain | null): number {
    if (pasid !== RESERVED) return 0;
    const fails = domain !== null && this.failsNext;
    this.failsNext = domain !== null && !fails;
    return fails ? this.refusals.refuse('ENOMEM', `the mock fails every second time with PASID ${RESERVED}`) : 0;
  }
}
