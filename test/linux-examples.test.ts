/** The examples and scripts that run on real Linux in the lab, on simulated hosts: not a line of them knows which it is. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { Ioas, Iommufd, Nested, openDevice } from '../src/vfio/index.ts';
import { DEVICE, testHost } from './support/host.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function node(...words: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, words, {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { status, lines: stdout.trimEnd().split('\n'), stderr };
}

describe('docs/examples/interrupts.mjs', () => {
  it.each(['arm-its', 'arm-v2m', 'x86'])('rings edu by MSI and the drive by MSI-X on %s', (preset) => {
    const { status, lines, stderr } = node('docs/examples/interrupts.mjs', preset);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(lines).toEqual([
      ...[1, 2, 3].map((i) => `edu 0000:00:05.0: MSI, 1 interrupt, status ${i}`),
      ...[1, 2, 3].map(() => 'nvme 0000:00:06.0: MSI-X, 1 interrupt, Identify: belfry NVMe drive'),
    ]);
  });
});

describe('lab/guest/nested-ring.mjs', () => {
  it('finds on a simulated host what it finds on Linux', () => {
    const { status, lines, stderr } = node('lab/guest/nested-ring.mjs', 'sim');
    expect({ status, stderr, last: lines.at(-1) }).toEqual({
      status: 0,
      stderr: '',
      last: 'nested ring: all as expected',
    });
    expect(lines.filter((line) => line.startsWith('ok'))).toHaveLength(29);
  });

  it('the event queue is read as Linux lets it: a stream, where pread is ESPIPE', () => {
    const { kernel, process } = testHost('arm-its').process();
    const pread = kernel.pread.bind(kernel);
    kernel.read = (fd, into) => pread(fd, into, 0);
    kernel.pread = (fd, into, offset) => (process.file(fd)?.nonseekable === true ? -29 : pread(fd, into, offset));
    const ioas = Ioas.create(Iommufd.open(kernel));
    const nested = Nested.attach(openDevice(kernel, DEVICE, ioas), ioas);
    expect(nested.events()).toEqual([]);
  });
});

describe('lab/guest/faults.mjs', () => {
  // Only where the SMMU lies differs.
  const plain = (text: string): string =>
    text.trimEnd().replaceAll(/arm-smmu-v3 [0-9a-f]+\.smmuv3/g, 'arm-smmu-v3 SMMU');

  it.each([
    ['arm64-its', 'arm-its', 8],
    ['x86', 'x86', 7],
  ])('the log says of refused DMA what Linux 7.2.13 said: %s', (platform, preset, count) => {
    const { status, lines } = node('lab/guest/faults.mjs', preset);
    expect(status).toBe(0);
    const recorded = plain(readFileSync(join(root, `lab/answers/${platform}-faults.jsonl`), 'utf8')).split('\n');
    expect(lines.map(plain)).toEqual(recorded);
    expect(recorded).toHaveLength(count);
  });
});

describe('belfry ring --kernel linux', () => {
  const main = 'dist/cli/main.js';
  const without = `import { register } from 'node:module';
    register('data:text/javascript,' + encodeURIComponent(
      'export const resolve = (name, context, next) => { if (name === "koffi") throw new Error("no " + name); return next(name, context); }'));`;

  it.skipIf(existsSync('/dev/vfio/vfio'))(
    'on a machine without VFIO says what is missing and what to do: status 1',
    () => {
      const alone = node(main, 'ring', '--kernel', 'linux');
      expect(alone.status).toBe(1);
      expect(alone.stderr).toMatch(
        /no PCI device of this machine is bound to vfio-pci; .*(IOMMU|driver_override)|koffi/,
      );
      const named = node(main, 'ring', '--kernel', 'linux', '--device', '0000:ff:1f.7');
      expect(named).toMatchObject({ status: 1, lines: [''] });
      expect(named.stderr).toMatch(/there is no PCI device 0000:ff:1f.7|koffi/);
      expect(named.stderr.trimEnd()).not.toContain('\n');
    },
  );

  it('without the package for foreign functions names it, and how to have it', () => {
    const { status, stderr } = node(
      `--import=data:text/javascript,${encodeURIComponent(without)}`,
      main,
      'ring',
      '--kernel',
      'linux',
    );
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringMatching(
        /^belfry: the package koffi does not load \(no koffi\); install it: npm install koffi\n$/,
      ),
    });
  });

  it('options of the simulated host are usage errors', () => {
    expect(node(main, 'ring', '--kernel', 'linux', '--host', 'x86')).toMatchObject({ status: 2 });
    expect(node(main, 'ring', '--kernel', 'minix')).toMatchObject({ status: 2 });
  });
});

describe('an exception of a watcher', () => {
  const script = (text: string) =>
    node(
      '--input-type=module',
      '-e',
      `import { LinuxKernel } from 'belfry/linux';
    const kernel = await LinuxKernel.load().catch(() => process.exit(77));
    const eventfd = kernel.eventfd();
    ${text}`,
    );

  it('ends the program at once, as any other, and does not wait for another event', () => {
    const { status, stderr } = script(`eventfd.watch(() => { throw new Error('from a watcher'); });
      eventfd.signal();
      setTimeout(() => process.exit(5), 5000);`);
    if (status !== 77)
      expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringContaining('from a watcher') });
  });

  it('that the program takes leaves the watcher awake', () => {
    const { status, lines } = script(`let calls = 0;
      process.on('uncaughtException', () => { console.log('caught'); if (calls < 2) eventfd.signal(); else process.exit(0); });
      eventfd.watch(() => { calls += eventfd.drain(); throw new Error('from a watcher'); });
      eventfd.signal();
      setTimeout(() => process.exit(5), 5000);`);
    if (status !== 77) expect({ status, lines }).toEqual({ status: 0, lines: ['caught', 'caught'] });
  });
});
