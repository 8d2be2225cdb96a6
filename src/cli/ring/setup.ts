/** What the command line names, made: the machine with its device, the kernel, the VMM and its guest. */
import { readFileSync } from 'node:fs';
import { loadDevice } from '../../devices/capture-files.ts';
import type { DeviceOptions } from '../../devices/options.ts';
import { bootLinux, type Host } from '../../kernel/boot/boot.ts';
import { MachineError, parseMachine } from '../../machine/define.ts';
import { Machine } from '../../machine/machine.ts';
import { isPreset, PRESET_DEVICE, preset, presetNames } from '../../machine/presets.ts';
import type { MachineSpec, SlotSpec } from '../../machine/spec.ts';
import { hex } from '../../ports/address.ts';
import { type DoorbellPolicy, type GuestMap, GuestMapError, parseGuestMap, q35Map, virtMap } from '../../vmm/index.ts';
import { captureFiles } from '../capture-files.ts';
import { ProblemError, UsageError } from '../usage.ts';
import { type DoorbellOption, type RingOptions, representable } from './options.ts';

/** Vectors of the test device, and of what the guest asks for, when nobody says. */
export const DEFAULT_VECTORS = 3;

/** A machine with a kernel on it. `doorbell` none is the kernel before the RFC. */
export function bootHost(options: RingOptions, doorbell: DoorbellOption): Host {
  const spec = machineSpec(options);
  const create = (device: string, deviceOptions: DeviceOptions) => loadDevice(device, deviceOptions, captureFiles);
  const machine = asUsage(options, () => new Machine(spec, create));
  return bootLinux(machine, {
    doorbellPolicy: doorbell.policy === 'none' ? 'none' : 'kernel',
    allowUnsafeInterrupts: options.allowUnsafeInterrupts,
  });
}

/** The function that is handed over: the one that --device put there, or the first that vfio-pci has. */
export function passedThrough(host: Host): string {
  const device = host.pciDevices.find(({ driver }) => driver === 'vfio-pci');
  if (device === undefined) throw new ProblemError('--host: the machine has no function that is bound to vfio-pci');
  return device.name;
}

export function guestMap(options: RingOptions, architecture: 'arm64' | 'x86'): GuestMap {
  if (options.guest === null) return architecture === 'x86' ? q35Map() : virtMap();
  const map = inFile('--guest', options.guest, parseGuestMap);
  if (map.architecture === architecture) return map;
  throw new ProblemError(
    `--guest ${options.guest}: architecture: ${map.architecture}, but the host is ${architecture}, and KVM runs no other`,
  );
}

/** @throws ProblemError for an address beyond what any IOMMU translates. */
export function vmmPolicy(option: DoorbellOption): DoorbellPolicy {
  if (option.policy !== 'address') return option.policy;
  if (representable(option.iova)) return Number(option.iova);
  throw new ProblemError(`--doorbell: iova ${hex(option.iova)} lies outside of what any IOMMU translates (48 bits)`);
}

function machineSpec(options: RingOptions): MachineSpec {
  const spec = isPreset(options.host) ? preset(options.host) : inFile('--host', options.host, parseMachine);
  if (options.device === null && !isPreset(options.host)) return spec;
  return withDevice(spec, deviceSlot(options));
}

/** `bell,msi=32` as a slot; the test device gets as many vectors as the guest asks for. */
function deviceSlot({ device, vectors }: RingOptions): Extract<SlotSpec, { kind: 'function' }> {
  const [name = 'bell', ...pairs] = (device ?? 'bell').split(',');
  const options: Record<string, number | string | boolean> = {};
  for (const pair of pairs) {
    const [key = '', value] = pair.split('=');
    if (key === '' || value === undefined)
      throw new UsageError(`--device: expected option=value behind ${name}, got ${JSON.stringify(pair)}`, 'ring');
    options[key] = optionValue(value);
  }
  if (name === 'bell' && options['msix'] === undefined)
    options['msix'] = options['msi'] === undefined ? (vectors ?? DEFAULT_VECTORS) : 0;
  return { at: '00.0', kind: 'function', device: name, options };
}

function optionValue(text: string): number | string | boolean {
  if (text === 'true' || text === 'false') return text === 'true';
  return /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : text;
}

/** Puts the device where the presets have theirs: behind the first root port. */
function withDevice(spec: MachineSpec, slot: SlotSpec): MachineSpec {
  const [first, ...others] = spec.pci.slots;
  if (first === undefined || first.kind === 'function') {
    throw new UsageError(
      `--device: the host's first slot is no port, so nothing can be put at ${PRESET_DEVICE}`,
      'ring',
    );
  }
  return { ...spec, pci: { ...spec.pci, slots: [{ ...first, below: [slot] }, ...others] } };
}

/** A model's own complaint names its option; it came from --device or from the host file. */
function asUsage<T>(options: RingOptions, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof RangeError)) {
      if (error instanceof Error && error.name === 'CaptureError')
        throw new ProblemError(
          `${options.device === null ? `--host ${options.host}` : `--device ${options.device}`}: ${error.message}`,
        );
      throw error;
    }
    throw options.device === null
      ? new ProblemError(`--host ${options.host}: ${error.message}`)
      : new UsageError(`--device: ${error.message}`, 'ring');
  }
}

/** What a file holds; the parser's complaint names the field, this the file. */
function inFile<T>(option: string, path: string, parse: (text: string) => T): T {
  const text = readText(path, option);
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof MachineError || error instanceof GuestMapError)
      throw new ProblemError(`${option} ${path}: ${error.message}`);
    throw error;
  }
}

function readText(path: string, option: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const known = option === '--host' ? `; presets are ${presetNames.join(', ')}` : '';
    throw new ProblemError(`${option} ${path}: ${(error as Error).message}${known}`);
  }
}
