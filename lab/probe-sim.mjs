/** The probe on a simulated host that is like the lab's: `node lab/probe-sim.mjs arm64-its|arm64-nesting|x86 [legacy] [iommufd] [nesting] > sim.jsonl`. */

import { bootLinux } from 'belfry/kernel';
import { defineMachine, Machine, presetInput } from 'belfry/machine';
import { captureFiles } from '../dist/cli/capture-files.js';
import { loadDevice } from '../dist/devices/capture-files.js';
import { probeAll } from './guest/probe.mjs';

const platform = process.argv[2] ?? 'arm64-its';
const PLATFORMS = ['arm64-its', 'arm64-nesting', 'x86'];
if (!PLATFORMS.includes(platform)) {
  process.stderr.write(`usage: node lab/probe-sim.mjs ${PLATFORMS.join('|')} [PART...]\n`);
  process.exit(2);
}
const x86 = platform === 'x86';
const input = presetInput(x86 ? 'x86' : 'arm-its');
const slot = (at, device) => ({ at, kind: 'function', device });
// QEMU's own IORT has no CANWBS: VFIO_DMA_CC_IOMMU is 0 there. Its SMMU has no HTTU.
if (!x86) Object.assign(input.iommu, { canwbs: platform === 'arm64-nesting', httu: 'none' });
input.pci.slots = [slot('05.0', 'edu'), slot('06.0', 'nvme'), slot('07.0', 'igb')];
const host = bootLinux(new Machine(defineMachine(input), (name, options) => loadDevice(name, options, captureFiles)), {
  abi: 'linux-7.2',
});
await probeAll(host.process().kernel, (line) => process.stdout.write(`${line}\n`), {
  x86,
  advance: () => host.machine.clock.advance(20_000_000),
  parts: process.argv.length > 3 ? process.argv.slice(3) : ['legacy'],
});
