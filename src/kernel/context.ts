/** What every part of the simulated kernel holds: the machine below it, and the kernel's own settings. */

import type { Bus, PhysicalMemory } from '../ports/index.ts';
import type { Tap } from '../ports/tap.ts';
import type { Clock, WorkQueue } from '../ports/work.ts';
import type { RefusalLog } from './refusal.ts';

/** Module parameters by module, with Linux's names and defaults. They change at run time through sysfs. */
export interface ModuleParameters {
  vfio_iommu_type1: { allow_unsafe_interrupts: boolean; dma_entry_limit: number };
  iommufd: { allow_unsafe_interrupts: boolean };
  vfio_pci: { nointxmask: boolean; disable_idle_d3: boolean; enable_sriov: boolean };
}

export interface KernelContext {
  /** What the VFIO ABI speaks: the RFC's doorbell request exists only with `belfry`. */
  readonly abi: 'linux-7.2' | 'belfry';
  readonly pageSize: number;
  readonly memory: PhysicalMemory;
  readonly bus: Bus;
  readonly tap: Tap;
  readonly work: WorkQueue;
  readonly clock: Clock;
  readonly refusals: RefusalLog;
  readonly modules: ModuleParameters;
  /** The kernel's log, as dmesg would show it: warnings of unsafe interrupts, IOMMU events. Bounded. */
  log(line: string): void;
}

export const defaultModuleParameters = (): ModuleParameters => ({
  vfio_iommu_type1: { allow_unsafe_interrupts: false, dma_entry_limit: 65535 },
  iommufd: { allow_unsafe_interrupts: false },
  vfio_pci: { nointxmask: false, disable_idle_d3: false, enable_sriov: false },
});
