/** The cases on simulated hosts like the lab's machines. */
import { bootLinux } from 'belfry/kernel';
import { defineMachine, Machine, presetInput } from 'belfry/machine';
import { captureFiles } from '../dist/cli/capture-files.js';
import { loadDevice } from '../dist/devices/capture-files.js';
import { PLATFORMS } from './platforms.mjs';
import { runCases } from './run-cases.mjs';

const PRESETS = { 'arm64-its': 'arm-its', 'arm64-nesting': 'arm-its', 'arm64-v2m': 'arm-v2m', x86: 'x86' };

/** edu, nvme and igb on the root bus; QEMU's own firmware says no CANWBS, and its SMMU has no HTTU and physical addresses of 44 bits. */
export function hostLike(name) {
  const input = presetInput(PRESETS[name]);
  const slot = (at, device) => ({ at, kind: 'function', device });
  const slots = [slot('05.0', 'edu'), slot('06.0', 'nvme'), slot('07.0', 'igb')];
  const iommu =
    input.iommu?.type === 'smmuv3'
      ? { ...input.iommu, canwbs: name === 'arm64-nesting', s2fwb: false, httu: 'none', oas: 44 }
      : input.iommu;
  // QEMU's frame has 64 interrupts from 80 on.
  const interrupts =
    name === 'arm64-v2m'
      ? { ...input.interrupts, v2m: [{ ...input.interrupts.v2m[0], spiBase: 80, spiCount: 64 }] }
      : input.interrupts;
  const spec = defineMachine({ ...input, iommu, interrupts, pci: { ...input.pci, slots } });
  const machine = new Machine(spec, (device, options) => loadDevice(device, options, captureFiles));
  return bootLinux(machine, { abi: 'linux-7.2' });
}

export async function runSimulated(name, only = null) {
  const host = hostLike(name);
  const advance = () => host.machine.clock.advance(20_000_000);
  return runCases(host.process().kernel, PLATFORMS[name], { only, advance });
}
