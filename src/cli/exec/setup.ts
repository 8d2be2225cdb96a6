/** The simulated host that the command line of `belfry exec` names. */
import { readFileSync } from 'node:fs';
import { loadDevice } from '../../devices/index.ts';
import { bootLinux, type Host } from '../../kernel/boot/boot.ts';
import { Machine } from '../../machine/machine.ts';
import { isPreset, preset, presetNames } from '../../machine/presets.ts';
import type { MachineSpec, SlotSpec } from '../../machine/spec.ts';
import { captureFiles } from '../capture-files.ts';
import { ProblemError, UsageError } from '../usage.ts';
import type { DeviceChoice, ExecOptions } from './options.ts';

/** Root ports of a segment's first bus that can be named: 1 to 31. */
const MOST_DEVICES = 31;

export async function bootHost(options: ExecOptions): Promise<Host> {
  const spec = withDevices(await machineSpec(options.host), options.devices);
  const machine = makeMachine(spec, options.devices.length > 0);
  return bootLinux(machine, { abi: options.abi, allowUnsafeInterrupts: options.allowUnsafeInterrupts });
}

/** What reads and checks a host file is loaded for one alone. */
async function machineSpec(host: string): Promise<MachineSpec> {
  if (isPreset(host)) return preset(host);
  const { parseMachine } = await import('../../machine/define.ts');
  try {
    return parseMachine(readFileSync(host, 'utf8'));
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error)) throw error;
    throw new ProblemError(`--host ${host}: ${error.message}; presets are ${presetNames.join(', ')}`);
  }
}

function makeMachine(spec: MachineSpec, chosen: boolean): Machine {
  try {
    return new Machine(spec, (device, options) => loadDevice(device, options, captureFiles));
  } catch (error) {
    if (error instanceof RangeError) {
      throw chosen
        ? new UsageError(`--device: ${error.message}`, 'exec')
        : new ProblemError(`--host: ${error.message}`);
    }
    throw error;
  }
}

/** Each device behind a root port of its own, in a group of its own: 0000:01:00.0, 0000:02:00.0, … */
function withDevices(spec: MachineSpec, devices: readonly DeviceChoice[]): MachineSpec {
  if (devices.length === 0) return spec;
  if (devices.length > MOST_DEVICES) throw new UsageError(`--device: at most ${MOST_DEVICES}`, 'exec');
  const slots = devices.map(
    ({ name, options }, i): SlotSpec => ({
      at: `${(i + 1).toString(16).padStart(2, '0')}.0`,
      kind: 'root-port',
      acs: true,
      below: [{ at: '00.0', kind: 'function', device: name, options }],
    }),
  );
  return { ...spec, pci: { ...spec.pci, slots } };
}
