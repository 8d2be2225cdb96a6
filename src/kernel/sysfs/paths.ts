/** Where things stand in /sys. */
import type { PciDev } from '../pci/pci-dev.ts';

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');

/** Names from /sys/devices down to the device: `pci0000:00`, the bridges above, the device itself. */
export function devicePath(dev: PciDev): readonly string[] {
  const above: string[] = [];
  let top = dev;
  for (let at: PciDev | null = dev; at !== null; at = at.parent) {
    above.unshift(at.name);
    top = at;
  }
  return [`pci${hex(top.address.segment, 4)}:${hex(top.address.bus, 2)}`, ...above];
}

/** `../../devices/…` from a directory that lies `depth` names below /sys. */
export const linkToDevice = (depth: number, dev: PciDev): string =>
  `${'../'.repeat(depth)}devices/${devicePath(dev).join('/')}`;
