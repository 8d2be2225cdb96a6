/** `belfry ring --kernel linux` where there is no such hardware: its command line, and the run itself on a simulated kernel, of which it sees what Linux shows. */
import { describe, expect, it } from 'vitest';
import { createDevice } from '../../devices/index.ts';
import { bootLinux } from '../../kernel/index.ts';
import { defineMachine, Machine, type PresetName, presetInput } from '../../machine/index.ts';
import type { Kernel } from '../../ports/kernel.ts';
import { UsageError } from '../usage.ts';
import { ringOn } from './linux-command.ts';
import { parseLinuxOptions, wantsLinux } from './linux-options.ts';
import { LinuxJson, LinuxText } from './linux-report.ts';
import { LinuxSession } from './linux-session.ts';

const EDU = '0000:00:05.0';
const NVME = '0000:00:06.0';
const BELL = '0000:00:07.0';

function kernelOf(preset: PresetName, allowUnsafeInterrupts = false): Kernel {
  const input = presetInput(preset);
  const slot = (at: string, device: string, options = {}) => ({ at, kind: 'function' as const, device, options });
  const slots = [slot('05.0', 'edu'), slot('06.0', 'nvme-drive'), slot('07.0', 'bell', { msix: 5 })];
  const spec = defineMachine({ ...input, pci: { ...input.pci, slots } });
  return bootLinux(new Machine(spec, createDevice), { abi: 'linux-7.2', allowUnsafeInterrupts }).process().kernel;
}

async function run(kernel: Kernel, ...words: string[]) {
  let out = '';
  const status = await ringOn(kernel, parseLinuxOptions(['--kernel', 'linux', '--json', ...words]), (text) => {
    out += text;
  });
  const lines = out
    .trimEnd()
    .split('\n')
    .map((line): Record<string, unknown> => JSON.parse(line));
  const of = (kind: string) => lines.filter((line) => line['kind'] === kind);
  return { status, setUp: of('set-up')[0], vectors: of('vector'), events: of('event'), summary: of('summary')[0] };
}

describe('the run', () => {
  it.each([
    ['arm-its', false, ['0x8000040'], ['0x0']],
    // The frame's SPIs begin at 64 there (machine/presets.ts).
    ['arm-v2m', true, ['0x8000040'], ['0x40']],
  ] as const)('edu by its MSI on %s, the address as sysfs shows it', async (preset, unsafe, addresses, data) => {
    const { status, setUp, vectors, summary } = await run(kernelOf(preset, unsafe), '--device', EDU, '--count', '5');
    expect(status).toBe(0);
    expect(setUp).toMatchObject({ device: EDU, title: '1234:11e8', interrupts: 'msi', ringer: { byDevice: true } });
    expect(vectors.map(({ physical }) => physical)).toEqual(
      addresses.map((address, i) => ({ address, data: data[i] })),
    );
    expect(summary).toMatchObject({ sent: 5, delivered: 5, lost: 0, unexpected: 0 });
  });

  it.each(['type1', 'iommufd'])('a drive by commands of three queues, in %s', async (iommu) => {
    const { status, setUp, vectors, summary } = await run(
      kernelOf('arm-its'),
      '--device',
      NVME,
      '--iommu',
      iommu,
      '--count',
      '60',
    );
    expect(status).toBe(0);
    expect(setUp).toMatchObject({ interrupts: 'msix', vectors: { requested: 3, granted: 3, rung: 3 } });
    expect(vectors.map(({ physical }) => physical)).toEqual(
      [0, 1, 2].map((event) => ({ address: '0x8000040', data: `0x${event}` })),
    );
    expect(summary).toMatchObject({ sent: 60, delivered: 60, lost: 0, unexpected: 0 });
  });

  it('nested: the doorbell where it was asked to be', async () => {
    const words = ['--device', NVME, '--iommu', 'nested', '--doorbell', '0x7_1234_5678', '--count', '30'];
    const { status, setUp, vectors, events, summary } = await run(kernelOf('arm-its'), ...words);
    expect(status).toBe(0);
    expect(setUp).toMatchObject({ doorbell: { iova: '0x712345000', window: '0x8000000', by: 'table' } });
    expect(vectors[2]).toMatchObject({ physical: { address: '0x712345040', data: '0x2' } });
    expect(events).toEqual([]);
    expect(summary).toMatchObject({ sent: 30, delivered: 30 });
  });

  it('a device of which nothing is known by the loopback, which has no part of the device', async () => {
    const { status, setUp, summary } = await run(kernelOf('x86'), '--device', BELL, '--vectors', '5', '--count', '11');
    expect(status).toBe(0);
    expect(setUp).toMatchObject({ ringer: { byDevice: false }, vectors: { granted: 5, rung: 5 } });
    expect(summary).toMatchObject({ sent: 11, delivered: 11, lost: 0 });
  });

  it('takes the first device that vfio-pci has; leaves nothing open', async () => {
    const kernel = kernelOf('x86');
    for (let i = 0; i < 3; i++) expect((await run(kernel)).setUp).toMatchObject({ device: EDU });
  });
});

describe('what does not come', () => {
  it('is lost after a while, and the event queue of the stage 1 says what it refused', async () => {
    const options = parseLinuxOptions(['--kernel', 'linux', '--iommu', 'nested', '--doorbell', '0x712345000']);
    const session = new LinuxSession(kernelOf('arm-its'), NVME, options);
    session.patience = 10;
    await session.start();
    expect(await session.send(3)).toMatchObject({ sent: 3, delivered: 3, lost: 0, unexpected: 0 });
    session.nested?.unmap(0x7_1234_5000, 4096);
    const totals = await session.send(4);
    expect(totals).toMatchObject({ sent: 4, delivered: 0, lost: 4, unexpected: 0 });
    expect(totals.latencies).toHaveLength(0);
    let text = '';
    new LinuxText((part) => {
      text += part;
    }, '0').totals(session, totals);
    expect(text).toMatch(/F_TRANSLATION {2}0x0000_0001_0000_0010 .*virtual stream id 0x01/);
    expect(text).toContain('4 interrupts sent, 0 delivered, 4 lost');
    text = '';
    new LinuxJson((part) => {
      text += part;
    }).totals(session, totals);
    expect(JSON.parse(text)).toEqual({ kind: 'summary', sent: 4, delivered: 0, lost: 4, unexpected: 0, latency: null });
    text = '';
    const latencies = Float64Array.of(10, 20, 2500);
    new LinuxText((part) => {
      text += part;
    }, '0').totals(session, { ...totals, delivered: 3, latencies });
    expect(text).toContain('median 20 µs, 99 of 100 within 2.5 ms');
    session.close();
  });
});

describe('what is refused says why', () => {
  it.each([
    ['arm-its', ['--device', '0000:09:00.0'], /there is no PCI device 0000:09:00.0/],
    ['arm-v2m', ['--device', EDU], /VFIO_SET_IOMMU: EPERM: .*isolated/],
    ['arm-its', ['--device', NVME, '--doorbell', '0x90000000'], /lets nobody choose.*--iommu nested/],
    ['x86', ['--device', NVME, '--iommu', 'nested'], /EOPNOTSUPP: .*no SMMUv3/],
    [
      'arm-its',
      ['--device', EDU, '--iommu', 'nested', '--doorbell', '0x90000000'],
      /EOPNOTSUPP: .*MSI address .* configuration space/,
    ],
    ['arm-its', ['--device', NVME, '--vectors', '66'], /has 65 vectors, not 66/],
  ] as const)('%s %j', async (preset, words, why) => {
    const kernel = kernelOf(preset);
    await expect(run(kernel, ...words)).rejects.toThrow(why);
    // Nothing stays open: the device can be had again, where it can be had.
    if (preset === 'arm-its') expect((await run(kernel, '--device', NVME)).status).toBe(0);
  });
});

describe('the command line', () => {
  it('asks for a kernel', () => {
    expect([[], ['--kernel', 'sim'], ['--kernel=linux', '--bogus']].map(wantsLinux)).toEqual([false, false, true]);
    expect(() => wantsLinux(['--kernel', 'bsd'])).toThrow(UsageError);
    expect(() => wantsLinux(['--kernel'])).toThrow('expected sim or linux, got nothing');
  });

  it.each([
    [['--host', 'x86'], '--host'],
    [['--explain'], '--explain'],
    [['--device', 'nvme'], '--device'],
    [['--doorbell', 'none'], '--doorbell'],
    [['--doorbell', `0x1${'0'.repeat(12)}`], '--doorbell'],
    [['--iommu', 'noiommu'], '--iommu'],
    [['--vectors', '0'], '--vectors'],
    [['--count', '1.5'], '--count'],
    [['--bogus'], 'bogus'],
  ])('%j is refused, with its name', (words, name) => {
    expect(() => parseLinuxOptions(['--kernel', 'linux', ...words])).toThrow(UsageError);
    expect(() => parseLinuxOptions(['--kernel', 'linux', ...words])).toThrow(name);
  });
});
