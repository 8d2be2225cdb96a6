/** Writes of PMCSR: the state is not stored, the transition is made (vfio_pci_config.c vfio_pm_config_write). */
import { Power } from '../../arch/pci/index.ts';
import type { PowerState } from '../pci/pci-device.ts';
import type { ConfigChunk } from './config.ts';
import type { VfioPciState } from './state.ts';

export function pmWrite(state: VfioPciState, chunk: ConfigChunk, value: number): void {
  if (chunk.offset === Power.CONTROL) state.lockAndSetPowerState((value & Power.STATE_MASK) as PowerState);
}
