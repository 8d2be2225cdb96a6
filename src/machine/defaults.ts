/**
 * What a machine has where nothing is said. The schema of `defineMachine` fills it in for a user; the presets name it themselves, so that a program which
 * starts a preset need not load the library that checks.
 */
export type Granule = 4096 | 16384 | 65536;
export interface Reserved {
  start: number;
  end: number;
  type: 'direct' | 'direct-relaxable' | 'reserved';
}

export const MACHINE_DEFAULTS = { pageSize: 4096 as Granule, cpus: 4 };

export const SMMU_DEFAULTS = {
  stage1: true,
  stage2: true,
  granules: [4096, 16384, 65536] as Granule[],
  oas: 48,
  sidBits: 16,
  ssidBits: 0,
  coherent: true,
  s2fwb: false,
  canwbs: true,
  stall: false,
  httu: 'none' as 'none' | 'access' | 'dirty',
  tlbKeepsDirty: false,
  eventQueueLog2: 7,
  twoLevelStreamTable: true,
  reserved: [] as Reserved[],
};

export const VTD_DEFAULTS = { addressWidth: 48 as 39 | 48, coherent: true, reserved: [] as Reserved[] };
export const GIC_DEFAULTS = { spis: 988, lpiBits: 16 };
export const ITS_DEFAULTS = { deviceBits: 16, eventBits: 16, devices: [] as string[] };
export const X86_INTERRUPT_DEFAULTS = { remapping: true };
export const PCI_DEFAULTS = { segment: 0 };
