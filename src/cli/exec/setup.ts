/** The simulated host that the command line of `belfry exec` names. */
import { readFileSync } from 'node:fs';
import { loadDevice } from '../../devices/index.ts';
import { type Watch, watched } from '../../exec/watched-function.ts';
import { bootLinux, type Host } from '../../kernel/boot/boot.ts';
import { Machine } from '../../machine/machine.ts';
import { isPreset, preset, presetNames } from '../../machine/presets.ts';
import type { MachineSpec } from '../../machine/spec.ts';
import { captureFiles } from '../capture-files.ts';
import { ProblemError, UsageError } from '../usage.ts';
import type { ExecOptions } from './options.ts';
import { withDevices } from './places.ts';

/** `watch` is put around each interrupt that a device raises. */
export async function bootHost(options: ExecOptions, watch: Watch): Promise<Host> {
  const spec = withDevices(await machineSpec(options.host), options.devices);
  const machine = makeMachine(spec, options.devices.length > 0, watch);
  const { abi, allowUnsafeInterrupts } = options;
  const doorbellPolicy = options.doorbell === 'none' ? 'none' : 'kernel';
  return bootLinux(machine, { abi, allowUnsafeInterrupts, doorbellPolicy });
}

/** What reads and checks a host file is loaded for one alone. */
async function machineSpec(host: string): Promise<MachineSpec> {
  if (isPreset(host)) return preset(host);
  const { MachineError, parseMachine } = await import('../../machine/define.ts');
  try {
    return parseMachine(readFileSync(host, 'utf8'));
  } catch (error) {
    if (error instanceof MachineError) throw new ProblemError(`--host ${host}: ${error.message}`);
    if (!(error instanceof Error) || !('code' in error)) throw error;
    throw new ProblemError(`--host ${host}: ${error.message}; presets are ${presetNames.join(', ')}`);
  }
}

function makeMachine(spec: MachineSpec, chosen: boolean, watch: Watch): Machine {
  try {
    return new Machine(spec, (device, options) => watched(loadDevice(device, options, captureFiles), watch));
  } catch (error) {
    if (error instanceof RangeError) {
      throw chosen
        ? new UsageError(`--device: ${error.message}`, 'exec')
        : new ProblemError(`--host: ${error.message}`);
    }
    throw error;
  }
}
