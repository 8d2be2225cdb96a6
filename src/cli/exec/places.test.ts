import { describe, expect, it } from 'vitest';
import { preset } from '../../machine/presets.ts';
import type { SlotSpec } from '../../machine/spec.ts';
import { UsageError } from '../usage.ts';
import type { DeviceChoice } from './options.ts';
import { withDevices } from './places.ts';

const device = (name: string, slot: string | null = null): DeviceChoice => ({ name, options: {}, slot });

/** `01.0` for a root port, with what is behind it; `02.0 edu` for a function. */
const text = (slots: readonly SlotSpec[]): string[] =>
  slots.map((slot) => (slot.kind === 'function' ? `${slot.at} ${slot.device}` : `${slot.at} [${text(slot.below)}]`));

const placed = (...devices: DeviceChoice[]): string[] => text(withDevices(preset('arm-its'), devices).pci.slots);

function refused(...devices: DeviceChoice[]): string {
  try {
    placed(...devices);
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
  return 'placed';
}

describe('where devices sit', () => {
  it('behind the first free root port, when nothing is said', () => {
    expect(placed()).toEqual(['01.0 [00.0 bell]']);
    expect(placed(device('edu'), device('bell'))).toEqual(['01.0 [00.0 edu]', '02.0 [00.0 bell]']);
    expect(placed(device('edu'), device('bell', '0000:01:00.0'))).toEqual(['01.0 [00.0 bell]', '02.0 [00.0 edu]']);
  });

  it('behind the port of a bus, as a function of the device there, or on the root bus beside the ports', () => {
    expect(placed(device('edu', '0000:03:00.0'))).toEqual(['01.0 []', '02.0 []', '03.0 [00.0 edu]']);
    expect(placed(device('b', '0000:01:00.1'), device('a', '0000:01:00.0'))).toEqual(['01.0 [00.0 a,00.1 b]']);
    expect(placed(device('edu', '0000:00:01.0'), device('bell'))).toEqual(['02.0 [00.0 bell]', '01.0 edu']);
    expect(placed(device('edu', '0000:00:1f.7'))).toEqual(['1f.7 edu']);
  });

  it('refuses a place that is taken, or that no host has, and names the field', () => {
    const twice = [device('bell', '0000:01:00.0'), device('edu', '0000:01:00.0')];
    expect(refused(...twice)).toBe('--device edu: slot: 0000:01:00.0 is not free: bell is there');
    expect(refused(device('edu', 'here'))).toContain('slot: expected a place such as 0000:01:00.0, got "here"');
    expect(refused(device('edu', '0001:01:00.0'))).toContain('slot: 0001:01:00.0: the host has PCI segment 0000 alone');
    expect(refused(device('edu', '0000:00:00.0'))).toContain("slot: 0000:00:00.0 is the host bridge's own place");
    expect(refused(device('edu', '0000:20:00.0'))).toContain('buses are 00 and, behind root ports, 01 to 1f');
    expect(refused(device('edu', '0000:01:04.0'))).toContain('a root port has device 00 alone behind it');
    expect(refused(device('a', '0000:1f:00.0'), device('b', '0000:00:05.0'))).toContain('slot: 31 root ports and 1');
    expect(refused(...Array.from({ length: 32 }, () => device('edu')))).toBe('--device: at most 31');
  });
});
