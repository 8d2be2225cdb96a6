/** Builds a device's virtual configuration space: which byte belongs to which capability, and the chains without what is hidden. */
import {
  CapabilityId,
  Command,
  EXTENDED_CAPABILITIES,
  Header,
  Header0,
  Msi,
  PciStatus,
  Power,
} from '../../arch/pci/index.ts';
import { capLength, extCapLength, type HardwareRead, hasExtendedCaps } from './config-caps.ts';
import { msiPerms, type PermBits, STD_HEADER_SIZE } from './config-perms.ts';
import type { VfioPciState } from './state.ts';

/** Values of the map beside capability ids: the standard header, and bytes of no capability. */
export const MAP_BASIC = 0;
export const MAP_INVALID = 0xff;

/** What the walk leaves beside the map and vconfig in the state. */
export interface ConfigLayout {
  /** The masks of this device's MSI capability, whose length differs between devices; null without. */
  readonly msiPerms: PermBits | null;
}

/** vfio_config_init. */
export function buildConfigMap(state: VfioPciState): ConfigLayout {
  const { dev } = state;
  state.vconfig = new Uint8Array(dev.configSize);
  state.map = new Uint8Array(dev.configSize).fill(MAP_INVALID).fill(MAP_BASIC, 0, STD_HEADER_SIZE);
  fill(state, 0, STD_HEADER_SIZE);
  state.barDirty = true;
  for (let bar = 0; bar < 6; bar += 1) state.rbar[bar] = state.vdword(Header.BAR0 + 4 * bar);
  state.rbar[6] = state.vdword(Header0.ROM);
  if (dev.physfn !== null) virtualHeader(state);
  if (state.nointx || dev.irq === 0) state.vconfig[Header.INTERRUPT_PIN] = 0;
  const caps = initCaps(state);
  if (caps.extended) initExtendedCaps(state);
  return { msiPerms: caps.msi };
}

/** What a virtual function's own header does not say (vfio_config_init): its ids, no pin, and memory that is always on. */
function virtualHeader(state: VfioPciState): void {
  state.setVword(Header.VENDOR_ID, state.dev.vendorId);
  state.setVword(Header.DEVICE_ID, state.dev.deviceId);
  state.vconfig[Header.INTERRUPT_PIN] = 0;
  state.setVword(Header.COMMAND, state.vword(Header.COMMAND) | Command.MEMORY);
}

/** vfio_fill_vconfig_bytes: hardware's values as they are now. */
function fill(state: VfioPciState, pos: number, length: number): void {
  for (let at = pos; at < Math.min(pos + length, state.vconfig.length); at += 1)
    state.vconfig[at] = state.dev.configRead(at, 1);
}

function initCaps(state: VfioPciState): { msi: PermBits | null; extended: boolean } {
  const { dev, vconfig, map } = state;
  const read: HardwareRead = (offset, size) => dev.configRead(offset, size);
  const result: { msi: PermBits | null; extended: boolean } = { msi: null, extended: false };
  if ((read(Header.STATUS, 2) & PciStatus.CAPABILITIES_LIST) === 0) return result;
  let link: number = Header.CAPABILITIES;
  let pos = read(Header.CAPABILITIES, 1) & 0xfc;
  let shown = 0;
  for (let loops = (EXTENDED_CAPABILITIES - STD_HEADER_SIZE) / 4; pos >= STD_HEADER_SIZE && loops > 0; loops -= 1) {
    const id = read(pos, 1);
    const next = read(pos + 1, 1) & 0xfc;
    const length = Math.min(capLength(read, id, pos), EXTENDED_CAPABILITIES - pos);
    if (hasExtendedCaps(read, id, pos, dev.configSize)) result.extended = true;
    if (length === 0) {
      vconfig[link] = next;
    } else {
      map.fill(id, pos, pos + length);
      fill(state, pos, length);
      if (id === CapabilityId.POWER_MANAGEMENT) hidePme(state, pos);
      if (id === CapabilityId.MSI) result.msi = msiPerms(read(pos + Msi.FLAGS, 2), length);
      link = pos + 1;
      shown += 1;
    }
    pos = next;
  }
  if (shown === 0) state.setVword(Header.STATUS, state.vword(Header.STATUS) & ~PciStatus.CAPABILITIES_LIST);
  return result;
}

/** vfio_update_pm_vconfig_bytes: a user cannot take PMEs, so the function seems to have none. */
function hidePme(state: VfioPciState, pos: number): void {
  state.setVword(pos + Power.CAPABILITIES, state.vword(pos + Power.CAPABILITIES) & 0x07ff);
  const control = pos + Power.CONTROL;
  state.setVword(control, state.vword(control) & ~(Power.PME_ENABLE | Power.PME_STATUS));
}

/** The first extended capability cannot be skipped: a hidden one stays as a header without id that carries the link. */
function initExtendedCaps(state: VfioPciState): void {
  const { dev, map } = state;
  const read: HardwareRead = (offset, size) => dev.configRead(offset, size);
  let previous = -1;
  let pos: number = EXTENDED_CAPABILITIES;
  let shown = 0;
  for (
    let loops = (dev.configSize - EXTENDED_CAPABILITIES) / 4;
    pos >= EXTENDED_CAPABILITIES && loops > 0;
    loops -= 1
  ) {
    const header = read(pos, 4) >>> 0;
    const id = header & 0xffff;
    const next = (header >>> 20) & 0xffc;
    const length = Math.min(extCapLength(read, id, pos), dev.configSize - pos);
    if (length === 0 && previous >= 0) {
      state.setVdword(previous, ((state.vdword(previous) & 0x000f_ffff) | (next << 20)) >>> 0);
      pos = next;
      continue;
    }
    map.fill(id & 0xff, pos, pos + (length || 4));
    fill(state, pos, length || 4);
    if (length === 0) state.setVdword(pos, (next << 20) >>> 0);
    else shown += 1;
    previous = pos;
    pos = next;
  }
  if (shown === 0) state.setVdword(EXTENDED_CAPABILITIES, 0);
}
