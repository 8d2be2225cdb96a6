/** Ways to reset one function: drivers/pci/pci.c pci_reset_fn_methods, tried in this order. */
import {
  AdvancedFeatures,
  BridgeControl,
  CapabilityId,
  DeviceCapabilities,
  DeviceControl,
  Express,
  Header1,
  Power,
} from '../../arch/pci/index.ts';
import type { PciDev } from './pci-dev.ts';

export interface ResetMethod {
  /** As /sys/bus/pci/devices/…/reset_method names it. */
  readonly name: 'flr' | 'af_flr' | 'pm' | 'bus';
  /** Can it reset `dev` and nothing else? `siblings` are all functions of the segment. */
  supported(dev: PciDev, siblings: readonly PciDev[]): boolean;
  reset(dev: PciDev): void;
}

const flr: ResetMethod = {
  name: 'flr',
  supported(dev) {
    const express = dev.capability(CapabilityId.EXPRESS);
    return express !== 0 && (dev.configRead(express + Express.DEVICE_CAPABILITIES, 4) & DeviceCapabilities.FLR) !== 0;
  },
  reset(dev) {
    const control = dev.capability(CapabilityId.EXPRESS) + Express.DEVICE_CONTROL;
    dev.configWrite(control, 2, dev.configRead(control, 2) | DeviceControl.FLR);
  },
};

const afFlr: ResetMethod = {
  name: 'af_flr',
  supported(dev) {
    const features = dev.capability(CapabilityId.ADVANCED_FEATURES);
    const needed = AdvancedFeatures.CAP_TP | AdvancedFeatures.CAP_FLR;
    return features !== 0 && (dev.configRead(features + AdvancedFeatures.CAPABILITIES, 1) & needed) === needed;
  },
  reset(dev) {
    const control = dev.capability(CapabilityId.ADVANCED_FEATURES) + AdvancedFeatures.CONTROL;
    dev.configWrite(control, 1, AdvancedFeatures.CONTROL_FLR);
  },
};

/** D0 to D3hot and back, for functions that lose their state on the way. */
const pm: ResetMethod = {
  name: 'pm',
  supported(dev) {
    const power = dev.capability(CapabilityId.POWER_MANAGEMENT);
    return power !== 0 && (dev.configRead(power + Power.CONTROL, 2) & Power.NO_SOFT_RESET) === 0;
  },
  reset(dev) {
    const control = dev.capability(CapabilityId.POWER_MANAGEMENT) + Power.CONTROL;
    const value = dev.configRead(control, 2) & ~Power.STATE_MASK;
    dev.configWrite(control, 2, value | Power.D3_HOT);
    dev.configWrite(control, 2, value | Power.D0);
  },
};

/** A secondary bus reset by the bridge above, when this function is alone on its bus. */
const bus: ResetMethod = {
  name: 'bus',
  supported(dev, siblings) {
    if (dev.parent === null || dev.isBridge) return false;
    return !siblings.some((other) => other !== dev && other.parent === dev.parent);
  },
  reset(dev) {
    if (dev.parent !== null) secondaryBusReset(dev.parent);
  },
};

/** pci_bridge_secondary_bus_reset. */
export function secondaryBusReset(bridge: PciDev): void {
  const control = bridge.configRead(Header1.BRIDGE_CONTROL, 2);
  bridge.configWrite(Header1.BRIDGE_CONTROL, 2, control | BridgeControl.BUS_RESET);
  bridge.configWrite(Header1.BRIDGE_CONTROL, 2, control & ~BridgeControl.BUS_RESET);
}

const RESET_METHODS: readonly ResetMethod[] = [flr, afFlr, pm, bus];

/** Methods that work for this function, best first. */
export const resetMethods = (dev: PciDev, siblings: readonly PciDev[]): ResetMethod[] =>
  RESET_METHODS.filter((method) => method.supported(dev, siblings));
