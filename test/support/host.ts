/** A whole host for the suites that cross rooms: a preset (or an input) with a kernel on it. */
import { createDevice } from '../../src/devices/index.ts';
import { type BootOptions, bootLinux, type Host } from '../../src/kernel/boot/boot.ts';
import { defineMachine, type MachineInput } from '../../src/machine/define.ts';
import { Machine } from '../../src/machine/machine.ts';
import { type PresetName, presetInput } from '../../src/machine/presets.ts';
import type { SlotSpec } from '../../src/machine/spec.ts';

export const DEVICE = '0000:01:00.0';

export interface TestHostOptions extends BootOptions {
  readonly device?: string;
  readonly options?: Readonly<Record<string, number | string | boolean>>;
  readonly input?: Partial<MachineInput>;
}

/** The one device of a preset, behind its root port. */
export const oneDevice = (
  device: string,
  options: Readonly<Record<string, number | string | boolean>> = {},
): SlotSpec[] => [
  { at: '01.0', kind: 'root-port', acs: true, below: [{ at: '00.0', kind: 'function', device, options }] },
];

export function testHost(name: PresetName, options: TestHostOptions = {}): Host {
  const input = { ...presetInput(name), ...options.input };
  const pci = options.input?.pci ?? { ...input.pci, slots: oneDevice(options.device ?? 'bell', options.options) };
  return bootLinux(new Machine(defineMachine({ ...input, pci }), createDevice), options);
}
