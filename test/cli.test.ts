/** The command as a user meets it: output, exit status, and what it says of wrong input. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const main = join(root, 'dist', 'cli', 'main.js');
const scratch = mkdtempSync(join(tmpdir(), 'belfry-cli-'));

function belfry(...args: string[]) {
  const result = spawnSync(process.execPath, [main, ...args], {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
    maxBuffer: 2 ** 27,
  });
  return { status: result.status, out: result.stdout, err: result.stderr };
}

function file(name: string, text: string | Uint8Array): string {
  const path = join(scratch, name);
  writeFileSync(path, text);
  return path;
}

/** QEMU's virt, as far as a guest map says it. */
const armGuest = {
  name: 'virt',
  architecture: 'arm64',
  ram: [{ base: 0x4000_0000, size: 0x400_0000 }],
  interrupts: { type: 'gic', version: 3, distributor: 0x800_0000, redistributors: 0x80a_0000, its: 0x808_0000 },
  pci: { ecam: { base: 0x3f00_0000, size: 0x100_0000 }, mmio32: { base: 0x1000_0000, size: 0x2eff_0000 }, intx: 3 },
};

/** An SMMU that cannot name what is behind a port. */
const eightBits = JSON.parse(readFileSync(join(root, 'docs/examples/two-its.json'), 'utf8'));
eightBits.iommu.sidBits = 8;

const summaryOf = (text: string): Record<string, unknown> => JSON.parse(text.trimEnd().split('\n').at(-1) as string);

describe('belfry', () => {
  it('alone does the main job, and so does ring', () => {
    const alone = belfry();
    expect(alone.err).toBe('');
    expect(alone.status).toBe(0);
    expect(alone.out).toMatch(/rule guest/);
    expect(alone.out).toContain('0x0809_0040');
    expect(alone.out).toContain('F_TRANSLATION');
    expect(belfry('ring').out.replace(/[\d,.]+ interrupts\/s/g, '')).toBe(
      alone.out.replace(/[\d,.]+ interrupts\/s/g, ''),
    );
  });

  it('helps', () => {
    for (const args of [['--help'], ['-h'], ['help'], ['help', 'ring'], ['ring', '--help']]) {
      const { status, out, err } = belfry(...args);
      expect({ status, err }).toEqual({ status: 0, err: '' });
      expect(out).toMatch(/^NAME\n/);
      for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(110);
    }
    expect(belfry('--version').out).toMatch(/^belfry \d+\.\d+\.\d+\n$/);
  });

  it('the last line of --json is the summary', () => {
    const { status, out } = belfry('ring', '--json', '--count', '300', '--vectors', '3');
    expect(status).toBe(0);
    for (const line of out.trimEnd().split('\n')) expect(JSON.parse(line)).toHaveProperty('kind');
    expect(summaryOf(out)).toMatchObject({
      kind: 'summary',
      sent: 300,
      delivered: 300,
      coalesced: 0,
      pending: 0,
      lost: 0,
      losses: {},
      faults: 0,
      rule: 'guest',
      doorbells: [{ iova: '0x8090000', pa: '0x50810000', users: 3 }],
    });
  });

  it.each([
    ['arm-its', 'guest', []],
    ['arm-v2m', 'guest', ['--allow-unsafe-interrupts']],
    ['x86', 'bypass', []],
  ])('--iommu iommufd on %s: all of it arrives, by the same rule', (host, rule, options) => {
    const { status, out } = belfry(
      'ring',
      '--iommu',
      'iommufd',
      '--host',
      host,
      '--count',
      '300',
      '--json',
      ...options,
    );
    expect(status).toBe(0);
    expect(summaryOf(out)).toMatchObject({ sent: 300, delivered: 300, lost: 0, faults: 0, rule });
    expect(JSON.parse(out.split('\n')[0] as string)).toMatchObject({ kind: 'set-up', iommu: 'iommufd' });
  });

  it('--iommu iommufd says where the guest is mapped, and shows the same fault without the doorbell', () => {
    const { status, out } = belfry('ring', '--iommu', 'iommufd');
    expect(status).toBe(0);
    expect(out).toContain('mapped for DMA 1:1, in IOAS 1 of iommufd');
    expect(out).toContain('0x0809_0000 -> 0x5081_0000');
    expect(out).toContain('F_TRANSLATION');
  });

  it.each([
    ['type1', 'VFIO_SET_IOMMU', 'vfio_iommu_type1.allow_unsafe_interrupts'],
    ['iommufd', 'VFIO_DEVICE_BIND_IOMMUFD', 'iommufd.allow_unsafe_interrupts'],
  ])(
    '--explain on %s: the call, the errno, the check, the advice, and what was tried and passes',
    (iommu, call, advice) => {
      const { status, out, err } = belfry('ring', '--host', 'arm-v2m', '--iommu', iommu, '--explain');
      expect(status).toBe(1);
      expect(err).toMatch(new RegExp(`^belfry: ${call}: EPERM: .*\\n$`));
      const rows = Object.fromEntries(out.split('\n').map((line) => [line.slice(2, 14).trim(), line.slice(16)]));
      expect(rows).toMatchObject({ call, answer: 'EPERM (1)', 'would pass': '--allow-unsafe-interrupts' });
      expect(rows['check']).toContain('not isolated');
      expect(rows['advice']).toContain(advice);
    },
  );

  it('--explain of a doorbell in guest memory, as JSON; of a set-up that passes it says nothing', () => {
    const { status, out } = belfry('ring', '--doorbell', '0x40000000', '--explain', '--json');
    expect(status).toBe(1);
    expect(summaryOf(out)).toMatchObject({
      kind: 'refusal',
      request: 'doorbell',
      code: 'EADDRINUSE',
      errno: 98,
      field: 'iova',
      passes: ['--doorbell auto'],
    });
    expect(belfry('ring', '--explain').out).not.toContain('The set-up was refused');
  });

  it('--explain names two options where one alone does not do', () => {
    const { out } = belfry('ring', '--host', 'arm-v2m', '--doorbell', '0x40000000', '--explain');
    expect(out).toContain('would pass    --allow-unsafe-interrupts --doorbell auto\n');
  });

  it.each([
    ['0x712345000', 'user', '0x712345000'],
    ['auto', 'guest', '0x8090000'],
    ['window', 'window', '0x8000000'],
  ])(
    '--iommu nested --doorbell %s: through the stage 1 of the VMM onto the window, and all of it arrives',
    (where, rule, iova) => {
      const { status, out } = belfry('ring', '--iommu', 'nested', '--doorbell', where, '--count', '300', '--json');
      expect(status).toBe(0);
      expect(summaryOf(out)).toMatchObject({
        sent: 300,
        delivered: 300,
        lost: 0,
        faults: 0,
        rule,
        doorbells: [{ iova, ipa: '0x8000000', pa: '0x50810000', users: 3 }],
      });
    },
  );

  it('--iommu nested without a doorbell is lost in the stage 1; on x86 it says what is missing', () => {
    const { out } = belfry('ring', '--iommu', 'nested', '--json');
    const lines = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines.find(({ kind }) => kind === 'without')).toMatchObject({ delivered: 0, losses: { IOMMU_FAULT: 3 } });
    // Slot 1 of the guest is device 0x08: what the VMM called it for its virtual SMMU.
    const events = lines.filter(({ kind }) => kind === 'event');
    expect(events.length).toBe(3);
    expect(events[0]).toMatchObject({
      sequence: 0,
      name: 'F_TRANSLATION',
      streamId: 8,
      input: '0x50810040',
      words: ['0x800000010', '0x20000000000', '0x50810040', '0x0'],
    });
    const x86 = belfry('ring', '--iommu', 'nested', '--host', 'x86', '--explain');
    expect([x86.status, x86.out.includes('would pass    --iommu type1; or --iommu iommufd')]).toEqual([1, true]);
    expect(x86.err).toContain('IOMMU_GET_HW_INFO: EOPNOTSUPP');
  });

  it('--iommu nested --doorbell none: every interrupt is lost, with a record under the virtual stream id', () => {
    const { status, out } = belfry('ring', '--iommu', 'nested', '--doorbell', 'none');
    expect(status).toBe(1);
    expect(out).toContain("The VMM's own record, from its event queue\n");
    expect(out).toMatch(/F_TRANSLATION +0x0000_0008_0000_0010 {2}0x0000_0200_0000_0000 {2}virtual stream id 0x08\n/);
    expect(out).toContain('3 interrupts sent, 0 delivered, 3 lost (IOMMU_FAULT), 3 event records\n');
    const { out: json } = belfry('ring', '--iommu', 'nested', '--doorbell', 'none', '--json');
    const events = json.split('\n').filter((line) => line.includes('"kind":"event"'));
    expect(events.map((line) => JSON.parse(line).streamId)).toEqual([8, 8, 8]);
  });

  it.each([
    ['arm-v2m', 'auto', 'VFIO_DEVICE_BIND_IOMMUFD', 'EPERM (1)', '--allow-unsafe-interrupts'],
    ['arm-its', '0x40000000', 'doorbell', 'EADDRINUSE (98), for its iova', '--doorbell auto'],
  ])('--iommu nested --explain on %s with --doorbell %s', (preset, doorbell, call, code, passes) => {
    const { status, out } = belfry('ring', '--iommu', 'nested', '--host', preset, '--doorbell', doorbell, '--explain');
    expect(status).toBe(1);
    const rows = Object.fromEntries(out.split('\n').map((line) => [line.slice(2, 14).trim(), line.slice(16)]));
    expect(rows).toMatchObject({ call, answer: code, 'would pass': passes });
  });

  it('without acknowledging, what coalesces is counted', () => {
    const { out } = belfry('ring', '--json', '--count', '300', '--vectors', '3', '--no-ack');
    expect(summaryOf(out)).toMatchObject({ sent: 300, delivered: 0, coalesced: 297, pending: 3, lost: 0 });
  });

  it('with none on Arm nothing is delivered, and the losses have their reason', () => {
    const { status, out } = belfry('ring', '--json', '--count', '300', '--doorbell', 'none');
    expect(status).toBe(1);
    expect(summaryOf(out)).toMatchObject({
      sent: 300,
      delivered: 0,
      lost: 300,
      losses: { IOMMU_FAULT: 300 },
      rule: 'none',
      doorbells: [],
    });
  });

  it('writes a trace that is Chrome trace JSON', () => {
    const path = join(scratch, 'trace.json');
    expect(belfry('ring', '--count', '5', '--trace', path).status).toBe(0);
    const events = JSON.parse(readFileSync(path, 'utf8')) as { ph: string; name: string }[];
    // Nine hops of each interrupt, from the device's write to the end of the guest's interrupt.
    expect(events.filter((event) => event.ph === 'X')).toHaveLength(5 * 9);
  });

  it('does not mind a reader that goes away', () => {
    const line = `${process.execPath} ${main} ring --json --vectors 16 | head -n 1`;
    const result = spawnSync('bash', ['-c', `set -o pipefail; ${line}`], { encoding: 'utf8' });
    expect(result.stdout).toMatch(/^\{"kind":"set-up"/);
    expect(result.stderr).toBe('');
  });

  it('says in a sentence that its output has no room', () => {
    const result = spawnSync('bash', ['-c', `${process.execPath} ${main} ring > /dev/full`], { encoding: 'utf8' });
    expect(result.status).toBe(1);
    expect(result.stderr).toMatch(/^belfry: standard output: ENOSPC.*\n$/);
  });

  it('several messages of MSI on x86, which a device numbers in the low bits of its data', () => {
    const args = ['ring', '--host', 'x86', '--device', 'bell,msi=32', '--vectors', '32', '--count', '320', '--json'];
    const { status, out } = belfry(...args);
    expect(status).toBe(0);
    expect(summaryOf(out)).toMatchObject({ sent: 320, delivered: 320, outOfOrder: 0, granted: 32 });
  });

  it('serves a guest with more memory than one view of bytes holds', () => {
    const large = file('large.json', JSON.stringify({ ...armGuest, ram: [{ base: 0x4000_0000, size: 2 ** 33 }] }));
    expect(belfry('ring', '--guest', large).out).toContain('3 interrupts sent, 3 delivered');
  });

  it('tells which memory of the guest no DMA reaches', () => {
    const ram = [{ base: 0, size: 0x1000_0000 }];
    const interrupts = {
      ...armGuest.interrupts,
      distributor: 2 ** 30,
      redistributors: 2 ** 30 + 0xa_0000,
      its: 2 ** 31,
    };
    const { status, out } = belfry(
      'ring',
      '--guest',
      file('window.json', JSON.stringify({ ...armGuest, ram, interrupts })),
    );
    expect(status).toBe(0);
    expect(out).toContain('but not 0x0800_0000-0x080f_ffff');
  });

  it('runs without koffi or any other native module', () => {
    const probe = file(
      'loaded.mjs',
      `import { createRequire } from 'node:module';
       process.argv = [process.argv[0], 'belfry', 'ring', '--count', '3'];
       const before = process.dlopen; let native = 0;
       process.dlopen = (...args) => { native += 1; return before.apply(process, args); };
       await import(${JSON.stringify(`file://${main}`)});
       process.stderr.write('native modules: ' + native);`,
    );
    const result = spawnSync(process.execPath, [probe], { encoding: 'utf8' });
    expect(result.stderr).toBe('native modules: 0');
    expect(result.status).toBe(0);
  });
});

describe('a command line that is wrong: status 2, the option named, no stack trace', () => {
  it.each([
    [['rign'], 'rign'],
    [['--bogus'], '--bogus'],
    [['ring', 'extra'], 'extra'],
    [['ring', '--vectors', '2049'], '--vectors'],
    [['ring', '--vectors', '0'], '--vectors'],
    [['ring', '--vectors', '-1'], '--vectors'],
    [['ring', '--vectors', '1.5'], '--vectors'],
    [['ring', '--vectors', 'many'], '--vectors'],
    [['ring', '--vectors'], '--vectors'],
    [['ring', '--count', '0'], '--count'],
    [['ring', '--count', '1e99'], '--count'],
    [['ring', '--doorbell', 'somewhere'], '--doorbell'],
    [['ring', '--doorbell', '0x'], '--doorbell'],
    [['ring', '--iommu', 'type2'], '--iommu'],
    [['ring', '--iommu'], '--iommu'],
    [['ring', '--doorbell', '0x10000000000000000'], '--doorbell'],
    [['ring', '--device', 'bell,msi=8', '--vectors', '7'], '--vectors'],
    [['ring', '--device', 'bell,msix=2049'], 'msix'],
    [['ring', '--device', 'bell,msix'], 'msix'],
    [['ring', '--device', 'bell,colour=red'], 'colour'],
    [['help', 'nothing'], 'nothing'],
  ])('%j', (args, named) => {
    const { status, out, err } = belfry(...args);
    expect(status).toBe(2);
    expect(out).toBe('');
    expect(err).toContain(named);
    expect(err).not.toMatch(/\n\s+at /);
  });
});

describe('what the command line names is wrong: status 1 or 2, the field named, no stack trace', () => {
  it.each([
    [['--host', join(scratch, 'absent.json')], 'absent.json'],
    [['--host', file('empty.json', '')], 'empty.json: file'],
    [['--host', file('array.json', '[]')], 'machine'],
    [['--host', file('pages.json', '{"name":"x","architecture":"arm64","pageSize":8192}')], 'pageSize'],
    [['--host', file('binary.json', new Uint8Array([0, 255, 254, 1, 2]))], 'file'],
    [['--host', file('sid.json', JSON.stringify(eightBits))], 'iommu: stream id 0x0000_0100 is beyond 8 bits'],
    [['--device', join(scratch, 'absent.txt')], 'absent.txt'],
    [['--device', file('noise.txt', 'this is no capture\n')], 'noise.txt'],
    [['--device', file('short', new Uint8Array(17))], 'short'],
    [['--device', file('lspci.txt', '00:01.0 Class 0200: x\n00: zz zz\n')], 'lspci.txt'],
    [['--guest', join(scratch, 'no-guest.json')], 'no-guest.json'],
    [['--guest', file('guest.json', '{"ram": 5}')], 'guest.json: '],
    [['--doorbell', '0xffffffffffffffff'], 'iova'],
    [['--doorbell', '0xfffffffffffff000'], 'iova'],
    [['--doorbell', '0x40000000'], 'doorbell: EADDRINUSE'],
    [['--doorbell', '0x1000000000000'], 'doorbell: EINVAL'],
    [['--trace', join(scratch, 'no-such-folder', 'trace.json')], 'no-such-folder'],
    [['--trace', '/dev/full'], '--trace /dev/full: ENOSPC'],
    [['--host', 'arm-v2m'], 'allow_unsafe_interrupts'],
    [['--host', 'x86', '--vectors', '2048'], '828 free vectors'],
    [['--host', 'x86', '--guest', file('arm.json', JSON.stringify(armGuest))], 'architecture'],
    [['--guest', file('small.json', JSON.stringify({ ...armGuest, ram: [{ base: 0x4000_0000, size: 4096 }] }))], 'RAM'],
    [['--host', scratch], scratch],
  ])('%j', (args, named) => {
    const { status, err, out } = belfry('ring', ...args);
    expect([1, 2]).toContain(status);
    expect(err + out).toContain(named);
    expect(err).not.toMatch(/\n\s+at /);
  });
});
