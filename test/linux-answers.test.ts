/**
 * The simulated kernel against what real Linux answered: the lab's probe (docs/lab.md) runs here on simulated hosts that are like the lab's, and each
 * of its answers is compared with the recorded one. What differs stands below with its reason; a difference that is gone must be struck out.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { captureFiles } from '../src/cli/capture-files.ts';
import { loadDevice } from '../src/devices/capture-files.ts';
import { bootLinux } from '../src/kernel/index.ts';
import { defineMachine, Machine, presetInput } from '../src/machine/index.ts';
import type { Kernel } from '../src/ports/kernel.ts';

type Answers = ReadonlyMap<string, unknown>;
type Platform = 'arm64-its' | 'arm64-nesting' | 'x86';
type ProbeAll = (
  kernel: Kernel,
  write: (line: string) => void,
  options: { x86: boolean; parts: readonly string[]; advance?: () => void },
) => Promise<void>;

const probe = new URL('../lab/guest/probe.mjs', import.meta.url).href;
const { probeAll } = (await import(probe)) as { probeAll: ProbeAll };

const DIFFERENT: Readonly<Record<string, string>> = {
  'config: first 64 bytes': 'BARs lie elsewhere; INTERRUPT_LINE is what firmware or pci_assign_irq wrote',
  'config: COMMAND after': 'QEMU’s edu does not let the parity bit be set, the model does',
  'regions: COMMAND after open': 'the firmware of QEMU’s x86 machine leaves I/O and SERR on',
  'IOEVENTFD other data': 'one eventfd, one consumer inside of the simulated kernel',
  'IOEVENTFD off, other data': 'follows from the one before',
  'nvme: regions: BAR 0': 'a capture has no registers',
};

describe('the simulated kernel and Linux 7.2.13', () => {
  it.each([
    ['arm64-its', 'legacy', 1300],
    ['arm64-its', 'iommufd', 235],
    ['arm64-its', 'random', 332],
    ['arm64-nesting', 'nesting', 126],
    ['x86', 'legacy', 1300],
    ['x86', 'iommufd', 234],
  ] as const)('%s, %s: %i answers', async (platform, part, count) => {
    const linux = recorded(answersFile(platform, part));
    const simulated = await simulate(platform, part);
    expect(linux.size).toBe(count);
    const names = new Set([...linux.keys(), ...simulated.keys()]);
    const different = [...names].filter((name) => text(linux.get(name)) !== text(simulated.get(name)));
    const allowed = Object.keys(DIFFERENT);
    const surprises = different.filter((name) => !allowed.some((part) => name.includes(part)));
    const told = surprises.map((name) => `${name}: Linux ${text(linux.get(name))}, here ${text(simulated.get(name))}`);
    expect(told).toEqual([]);
  });

  it('lists no difference that is gone', async () => {
    const found: string[] = [];
    for (const platform of ['arm64-its', 'x86'] as const) {
      for (const part of ['legacy', 'iommufd'] as const) {
        const [linux, simulated] = [recorded(`${platform}-${part}`), await simulate(platform, part)];
        found.push(...[...linux.keys()].filter((name) => text(linux.get(name)) !== text(simulated.get(name))));
      }
    }
    const gone = Object.keys(DIFFERENT).filter((part) => !found.some((name) => name.includes(part)));
    expect(gone).toEqual([]);
  });
});

/** `arm64-nesting` has one part. */
const answersFile = (platform: Platform, part: string): string =>
  platform === 'arm64-nesting' ? platform : `${platform}-${part}`;
const text = (value: unknown): string => JSON.stringify(value) ?? '(absent)';

function recorded(name: string): Answers {
  const lines = readFileSync(new URL(`../lab/answers/${name}.jsonl`, import.meta.url), 'utf8')
    .trim()
    .split('\n');
  return answersOf(lines);
}

function answersOf(lines: readonly string[]): Answers {
  return new Map(
    lines.map((line) => JSON.parse(line) as { name: string; value: unknown }).map(({ name, value }) => [name, value]),
  );
}

/** A host like the lab's: edu, nvme and igb on the root bus; QEMU's own firmware says no CANWBS, and its SMMU has no HTTU. */
async function simulate(platform: Platform, part: string): Promise<Answers> {
  const x86 = platform === 'x86';
  const input = presetInput(x86 ? 'x86' : 'arm-its');
  const slots = [
    { at: '05.0', kind: 'function', device: 'edu' },
    { at: '06.0', kind: 'function', device: 'nvme' },
    { at: '07.0', kind: 'function', device: 'igb' },
  ] as const;
  const iommu =
    input.iommu?.type === 'smmuv3'
      ? { ...input.iommu, canwbs: platform === 'arm64-nesting', httu: 'none' as const }
      : input.iommu;
  const spec = defineMachine({ ...input, iommu, pci: { ...input.pci, slots: [...slots] } });
  const machine = new Machine(spec, (device, options) => loadDevice(device, options, captureFiles));
  const lines: string[] = [];
  const { kernel } = bootLinux(machine, { abi: 'linux-7.2' }).process();
  const parts = part === 'random' ? ['random', 'random-ioas'] : [part];
  const advance = (): void => machine.clock.advance(20_000_000);
  await probeAll(kernel, (line) => lines.push(line), { x86, parts, advance });
  return answersOf(lines);
}
