/** Function level resets through configuration space, and the floor of the read request size (vfio_pci_config.c vfio_exp_config_write, vfio_af_config_write). */
import { AdvancedFeatures, DeviceCapabilities, DeviceControl, Express } from '../../arch/pci/index.ts';
import type { ConfigChunk } from './config.ts';
import type { VfioPciState } from './state.ts';

/** `write` stores the masked bits; then a set FLR resets (and reads as 0), and a new MRRS goes to hardware, never below the real MPS. */
export function expWrite(state: VfioPciState, chunk: ConfigChunk, write: () => void): void {
  const cap = chunk.pos - chunk.offset;
  const control = cap + Express.DEVICE_CONTROL;
  const before = state.vword(control) & DeviceControl.MAX_READ_REQUEST_MASK;
  write();
  if ((state.vword(control) & DeviceControl.FLR) !== 0) {
    state.setVword(control, state.vword(control) & ~DeviceControl.FLR);
    if ((state.dev.configRead(cap + Express.DEVICE_CAPABILITIES, 4) & DeviceCapabilities.FLR) !== 0) userReset(state);
  }
  const wanted = state.vword(control) & DeviceControl.MAX_READ_REQUEST_MASK;
  if (wanted !== before) setReadRequest(state, control, wanted >>> 12);
}

/** Both fields count in powers of two from 128 bytes. */
function setReadRequest(state: VfioPciState, control: number, wanted: number): void {
  const real = state.dev.configRead(control, 2);
  const payload = (real & DeviceControl.MAX_PAYLOAD_MASK) >>> 5;
  const code = Math.max(wanted, payload);
  // pcie_set_readrq refuses more than 4096 bytes; hardware keeps what it has.
  if (code > 5) return;
  state.dev.configWrite(control, 2, (real & ~DeviceControl.MAX_READ_REQUEST_MASK) | (code << 12));
}

export function afWrite(state: VfioPciState, chunk: ConfigChunk): void {
  const cap = chunk.pos - chunk.offset;
  const control = cap + AdvancedFeatures.CONTROL;
  if ((state.vconfig[control]! & AdvancedFeatures.CONTROL_FLR) === 0) return;
  state.vconfig[control] = state.vconfig[control]! & ~AdvancedFeatures.CONTROL_FLR;
  const needed = AdvancedFeatures.CAP_TP | AdvancedFeatures.CAP_FLR;
  if ((state.dev.configRead(cap + AdvancedFeatures.CAPABILITIES, 1) & needed) === needed) userReset(state);
}

/** A user's reset may fail for want of the lock; the write still succeeds. */
function userReset(state: VfioPciState): void {
  state.zap();
  state.dev.tryReset();
  state.unzap();
}
