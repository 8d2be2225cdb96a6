/**
 * A list of VFIO requests and what they answer, one JSON line each: `{"name": …, "value": …}`. On real Linux this file is the
 * program; lab/probe-sim.mjs runs the same on a simulated host, and lab/compare.mjs shows the differences.
 */
import { pathToFileURL } from 'node:url';
import { probeConfig } from './probe/config.mjs';
import { probeEmptyContainer, probeGroup, setUp } from './probe/container.mjs';
import { probeDescription, probeOther, probeRegions } from './probe/device.mjs';
import { probeDirty, probeInfo, probeMaps } from './probe/dma.mjs';
import { probeIommufd } from './probe/iommufd.mjs';
import { probeChecks, probeEdu, probeMessages, probeNotices } from './probe/irqs.mjs';
import { probeNesting } from './probe/nesting.mjs';
import { Probe } from './probe/probe.mjs';
import { randomInterrupts, randomIoas, randomMaps } from './probe/random.mjs';

const EDU = '0x1234:0x11e8';
const NVME = '0x1b36:0x0010';
const IGB = '0x8086:0x10c9';

/** The parts `legacy`, `iommufd`, `nesting`, `random` and `random-ioas` of the list. `advance` lets a simulated host's time go on. @param x86 decides where the platform's MSI range is expected */
export async function probeAll(kernel, write, { x86, parts = ['legacy'], advance = () => {} }) {
  const p = new Probe(kernel, write, advance);
  if (parts.includes('legacy')) await probeLegacy(p, kernel, windowOf(x86));
  if (parts.includes('iommufd')) await p.part('iommufd', () => probeIommufd(p, find(kernel, EDU), windowOf(x86)));
  if (parts.includes('random')) await p.part('random', () => probeRandom(p, kernel, windowOf(x86)));
  if (parts.includes('random-ioas')) {
    for (const seed of [1, 2, 3]) await p.part('random', () => randomIoas(p, { seed, count: 1000 }));
  }
  if (parts.includes('nesting')) await p.part('nesting', () => probeNesting(p, find(kernel, EDU)));
}

const windowOf = (x86) => (x86 ? { start: 0xfee0_0000, end: 0xfeef_ffff } : { start: 0x800_0000, end: 0x80f_ffff });

async function probeLegacy(p, kernel, window) {
  const [edu, nvme, igb] = [EDU, NVME, IGB].map((id) => find(kernel, id));
  await p.part('empty container', () => probeEmptyContainer(p));
  await p.part('group', () => probeGroup(p, edu.group, edu.name, nvme.name));
  for (const iommu of [3, 1]) {
    await p.part(`type1 ${iommu}`, () =>
      within(p, edu, iommu, async ({ container }) => {
        await p.part('info', () => probeInfo(p, container));
        await p.part('maps', () => probeMaps(p, container, window));
        await p.part('dirty', () => probeDirty(p, container));
      }),
    );
  }
  await p.part('edu', () => within(p, edu, 3, ({ device }) => probeEduDevice(p, device)));
  await p.part('nvme', () => within(p, nvme, 3, ({ device }) => probeNvmeDevice(p, device)));
  await p.part('igb', () => within(p, igb, 3, ({ device }) => probeIgbDevice(p, device)));
}

async function probeRandom(p, kernel, window) {
  const [edu, nvme] = [EDU, NVME].map((id) => find(kernel, id));
  for (const [iommu, seed] of [
    [3, 1],
    [3, 2],
    [1, 3],
  ]) {
    await p.part(`type1 ${iommu}`, () =>
      within(p, edu, iommu, ({ container }) => randomMaps(p, container, window, { seed, count: 1000 })),
    );
  }
  for (const seed of [11, 12, 13]) {
    const run = ({ device }) => randomInterrupts(p, device, { main: 2, of: [1, 0, 65, 1, 1] }, { seed, count: 500 });
    await p.part('nvme', () => within(p, nvme, 3, run));
  }
  const run = ({ device }) => randomInterrupts(p, device, { main: 1, of: [1, 1, 0, 0, 1] }, { seed: 21, count: 500 });
  await p.part('edu', () => within(p, edu, 3, run));
}

async function probeEduDevice(p, device) {
  await p.part('description', () => probeDescription(p, device));
  await p.part('regions', () => probeRegions(p, device, { bar0: 0x10_0000 }));
  await p.part('config', () => probeConfig(p, device, { msi: 0x40 }));
  await p.part('other', () => probeOther(p, device));
  await p.part('checks', () => probeChecks(p, device));
  await p.part('MSI', () => probeMessages(p, device, 1, 1));
  await p.part('REQ', () => probeNotices(p, device, 4));
  await p.part('device', () => probeEdu(p, device));
}

async function probeNvmeDevice(p, device) {
  await p.part('description', () => probeDescription(p, device));
  await p.part('regions', () => probeRegions(p, device, { bar0: 0x4000, tableOffset: 0x2000 }));
  await p.part('other', () => probeOther(p, device));
  await p.part('checks', () => probeChecks(p, device));
  await p.part('MSI-X', () => probeMessages(p, device, 2, 65));
  await p.part('ERR', () => probeNotices(p, device, 3));
  await p.part('REQ', () => probeNotices(p, device, 4));
}

async function probeIgbDevice(p, device) {
  await p.part('description', () => probeDescription(p, device));
  await p.part('MSI', () => probeMessages(p, device, 1, 1));
  await p.part('MSI-X', () => probeMessages(p, device, 2, 10));
}

async function within(p, { group, name }, iommu, run) {
  const host = setUp(p, group, name, iommu);
  try {
    await run(host);
  } finally {
    host.close();
  }
}

function find(kernel, id) {
  const read = (name, file) => kernel.readText(`/sys/bus/pci/devices/${name}/${file}`)?.trim();
  const name = (kernel.list('/sys/bus/pci/devices') ?? []).find(
    (each) => `${read(each, 'vendor')}:${read(each, 'device')}` === id,
  );
  if (name === undefined) throw new Error(`no device ${id}`);
  const group = kernel.readLink(`/sys/bus/pci/devices/${name}/iommu_group`).split('/').at(-1);
  return { name, group };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { LinuxKernel } = await import('belfry/linux');
  await probeAll(await LinuxKernel.load(), (line) => process.stdout.write(`${line}\n`), {
    x86: process.arch === 'x64',
    parts: process.argv.length > 2 ? process.argv.slice(2) : ['legacy'],
  });
  process.exit(0);
}
