/** Capabilities that change a function's state as a whole: power management, PCIe and advanced-features reset, ACS. */
import {
  Acs,
  AdvancedFeatures,
  CapabilityId,
  DEVICE_STATUS_ERRORS,
  DeviceCapabilities,
  DeviceControl,
  Express,
  ExtendedCapabilityId,
  findCapability,
  findExtendedCapability,
  PASID_WIDTH_MASK,
  PASID_WIDTH_SHIFT,
  Pasid,
  PasidBits,
  Power,
} from '../../arch/pci/index.ts';
import type { ConfigSpace, ConfigWatcher } from './config-space.ts';

/** What these capabilities ask of the function that has them. */
export interface StateOwner {
  /** Function level reset. */
  functionReset(): void;
  /** D0 or lower was entered; `soft` when the way to D0 resets (no NoSoftRst). */
  powerChanged(soft: boolean): void;
}

export class PowerCapability implements ConfigWatcher {
  state = 0;
  private readonly config: ConfigSpace;
  private readonly control: number;
  private readonly states: number;
  private readonly owner: StateOwner;

  constructor(config: ConfigSpace, offset: number, owner: StateOwner) {
    this.config = config;
    this.control = offset + Power.CONTROL;
    this.owner = owner;
    const caps = config.read(offset + Power.CAPABILITIES, 2);
    this.states = 0b1001 | ((caps & Power.D1) !== 0 ? 0b0010 : 0) | ((caps & Power.D2) !== 0 ? 0b0100 : 0);
    config.allow(this.control, 2, Power.STATE_MASK | Power.PME_ENABLE);
    config.allowClear(this.control, 2, Power.PME_STATUS);
    config.watch(this.control, 2, this);
  }

  written(): void {
    const control = this.config.read(this.control, 2);
    const state = control & Power.STATE_MASK;
    if (state === this.state) return;
    if ((this.states & (1 << state)) === 0) {
      // A state that the function lacks: the write completes and the state stays (PCI-PM 1.2, 3.2.4).
      this.config.set(this.control, 2, (control & ~Power.STATE_MASK) | this.state);
      return;
    }
    const soft = this.state === Power.D3_HOT && state === Power.D0 && (control & Power.NO_SOFT_RESET) === 0;
    this.state = state;
    this.owner.powerChanged(soft);
  }

  reset(): void {
    this.state = Power.D0;
  }
}

/** PCIe device control: the FLR bit acts and reads as zero. */
export class ExpressCapability implements ConfigWatcher {
  private readonly config: ConfigSpace;
  private readonly control: number;
  private readonly owner: StateOwner;
  readonly flr: boolean;

  constructor(config: ConfigSpace, offset: number, owner: StateOwner) {
    this.config = config;
    this.control = offset + Express.DEVICE_CONTROL;
    this.owner = owner;
    this.flr = (config.read(offset + Express.DEVICE_CAPABILITIES, 4) & DeviceCapabilities.FLR) !== 0;
    config.allow(this.control, 2, this.flr ? 0xffff : 0x7fff);
    config.allowClear(offset + Express.DEVICE_STATUS, 2, DEVICE_STATUS_ERRORS);
    config.allow(offset + Express.LINK_CONTROL, 2, 0x01cb);
    if ((config.read(offset + Express.FLAGS, 2) & 0xf) >= 2) config.allow(offset + Express.DEVICE_CONTROL_2, 2, 0x041f);
    config.watch(this.control, 2, this);
  }

  written(): void {
    const value = this.config.read(this.control, 2);
    if (!this.flr || (value & DeviceControl.FLR) === 0) return;
    this.config.set(this.control, 2, value & ~DeviceControl.FLR);
    this.owner.functionReset();
  }
}

/** The same for conventional PCI. */
export class AdvancedFeaturesCapability implements ConfigWatcher {
  private readonly config: ConfigSpace;
  private readonly control: number;
  private readonly owner: StateOwner;

  constructor(config: ConfigSpace, offset: number, owner: StateOwner) {
    this.config = config;
    this.control = offset + AdvancedFeatures.CONTROL;
    this.owner = owner;
    const caps = config.read(offset + AdvancedFeatures.CAPABILITIES, 1);
    if ((caps & AdvancedFeatures.CAP_FLR) !== 0) config.allow(this.control, 1, AdvancedFeatures.CONTROL_FLR);
    config.watch(this.control, 1, this);
  }

  written(): void {
    if ((this.config.read(this.control, 1) & AdvancedFeatures.CONTROL_FLR) === 0) return;
    this.config.set(this.control, 1, 0);
    this.owner.functionReset();
  }
}

/** ACS of a port or of one function of several: which peer-to-peer requests go up instead of across. */
export class AcsCapability {
  private readonly config: ConfigSpace;
  private readonly offset: number;

  constructor(config: ConfigSpace, offset: number) {
    this.config = config;
    this.offset = offset;
    // Each control bit can be set that the capability names; egress control needs a vector that is not built.
    const caps = config.read(offset + Acs.CAPABILITY, 2);
    config.allow(offset + Acs.CONTROL, 2, caps & 0x5f);
  }

  get redirectsRequests(): boolean {
    return (this.config.read(this.offset + Acs.CONTROL, 2) & Acs.REQUEST_REDIRECT) !== 0;
  }
}

/** PASID: whether requests may name an address space, and how many there are (PCIe 7.8.9). */
export class PasidCapability {
  private readonly config: ConfigSpace;
  private readonly control: number;
  private readonly limit: number;

  constructor(config: ConfigSpace, offset: number) {
    this.config = config;
    this.control = offset + Pasid.CONTROL;
    const capability = config.read(offset + Pasid.CAPABILITY, 2);
    this.limit = 2 ** ((capability & PASID_WIDTH_MASK) >> PASID_WIDTH_SHIFT);
    const features = capability & (PasidBits.EXECUTE | PasidBits.PRIVILEGED);
    config.allow(this.control, 2, PasidBits.ENABLE | features);
  }

  allows(pasid: number): boolean {
    return pasid >= 0 && pasid < this.limit && (this.config.read(this.control, 2) & PasidBits.ENABLE) !== 0;
  }
}

export interface StateCapabilities {
  readonly power: PowerCapability | null;
  readonly express: ExpressCapability | null;
  readonly acs: AcsCapability | null;
  readonly pasid: PasidCapability | null;
}

/** Attaches behaviour to whichever of these capabilities the space has. */
export function attachState(config: ConfigSpace, owner: StateOwner): StateCapabilities {
  const read = (offset: number, size: number): number => config.read(offset, size);
  const power = findCapability(read, CapabilityId.POWER_MANAGEMENT);
  const express = findCapability(read, CapabilityId.EXPRESS);
  const features = findCapability(read, CapabilityId.ADVANCED_FEATURES);
  const acs = findExtendedCapability(read, ExtendedCapabilityId.ACS);
  const pasid = findExtendedCapability(read, ExtendedCapabilityId.PASID);
  if (features !== 0) new AdvancedFeaturesCapability(config, features, owner);
  return {
    power: power === 0 ? null : new PowerCapability(config, power, owner),
    express: express === 0 ? null : new ExpressCapability(config, express, owner),
    acs: acs === 0 ? null : new AcsCapability(config, acs),
    pasid: pasid === 0 ? null : new PasidCapability(config, pasid),
  };
}
