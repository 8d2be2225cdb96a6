/** The parts of the lab that need neither QEMU nor a network: its command line, archives, versions, tables, and how a console is read. */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

interface LabOptions {
  readonly help?: boolean;
  readonly name: string;
  readonly kernel: string;
  readonly timeout: number;
  readonly append: readonly string[];
  readonly shell: boolean;
  readonly script: string | null;
  readonly args: readonly string[];
}
interface Cpio {
  file(path: string, bytes: Uint8Array, mode?: number): void;
  link(path: string, target: string): void;
  device(path: string, major: number, minor: number): void;
  end(): void;
}
interface Guest {
  readonly status: number | null;
  readonly ready: { readonly text: string } | null;
  readonly problem: string | null;
}
type RunGuest = (run: {
  qemu: { command: string; environment: NodeJS.ProcessEnv };
  args: readonly string[];
  timeout: number;
  output: (line: string) => void;
  noise: (line: string) => void;
}) => Promise<Guest>;
type QemuArguments = (parts: object) => readonly string[];

const load = (name: string): Promise<unknown> => import(new URL(`../lab/${name}.mjs`, import.meta.url).href);
const { parseLabOptions, UsageError } = (await load('options')) as {
  parseLabOptions: (argv: readonly string[]) => LabOptions;
  UsageError: new () => Error;
};
const { PLATFORMS } = (await load('platforms')) as {
  PLATFORMS: Readonly<Record<string, { append: readonly string[] }>>;
};
const { CpioWriter } = (await load('cpio')) as { CpioWriter: new (path: string) => Cpio };
const { parseVersion, newEnough } = (await load('qemu')) as {
  parseVersion: (text: string) => readonly number[];
  newEnough: (version: readonly number[]) => boolean;
};
const { withCanwbs } = (await load('nesting')) as { withCanwbs: (table: Uint8Array) => Buffer };
const { runGuest, qemuArguments } = (await load('guest-run')) as { runGuest: RunGuest; qemuArguments: QemuArguments };

const scratch = mkdtempSync(join(tmpdir(), 'belfry-lab-'));

describe('the command line', () => {
  it('names platform, kernel, words for the kernel, and the script behind --', () => {
    const options = parseLabOptions([
      'x86',
      '--append',
      ' a=1  b ',
      '--timeout',
      '30',
      '--',
      's.mjs',
      '--verbose',
      'x',
    ]);
    expect(options).toMatchObject({ name: 'x86', kernel: 'debian', timeout: 30, append: ['a=1', 'b'], shell: false });
    expect([options.script, options.args]).toEqual(['s.mjs', ['--verbose', 'x']]);
    expect(parseLabOptions(['arm64-nesting', '--', 's']).kernel).toBe('lab');
    expect(parseLabOptions(['arm64-its', '--shell'])).toMatchObject({ shell: true, script: null });
    expect(parseLabOptions(['--help'])).toEqual({ help: true });
  });

  it.each([
    [[], 'which platform'],
    [['riscv64', '--', 's'], 'riscv64'],
    [['constructor', '--', 's'], 'no platform is called constructor'],
    [['x86', '--timeout', 'Infinity', '--', 's'], '--timeout Infinity'],
    [['x86'], '--shell'],
    [['x86', 's.mjs'], 'behind --'],
    [['x86', '--kernel', 'own', '--', 's'], '--kernel own'],
    [['arm64-nesting', '--kernel', 'debian', '--', 's'], '--kernel lab'],
    [['x86', '--timeout', 'soon', '--', 's'], '--timeout soon'],
    [['x86', '--bogus', '--', 's'], 'bogus'],
  ])('%j is a usage error', (argv, words) => {
    expect(() => parseLabOptions(argv)).toThrow(UsageError);
    expect(() => parseLabOptions(argv)).toThrow(words);
  });
});

describe('QEMU', () => {
  it.each([
    ['QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1)\nCopyright', [11, 1, 3], true],
    ['QEMU emulator version 9.1.0', [9, 1, 0], true],
    ['QEMU emulator version 9.0.4', [9, 0, 4], false],
    ['QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)', [7, 2, 22], false],
    ['something else', [0, 0, 0], false],
  ])('%j', (text, version, enough) => {
    expect(parseVersion(text)).toEqual(version);
    expect(newEnough(parseVersion(text))).toBe(enough);
  });

  it('is started with the platform’s words for the kernel, and those of the command line behind them', () => {
    const words = qemuArguments({
      qemu: { args: ['--library-path', 'l'] },
      platform: PLATFORMS['x86'],
      kernel: { image: 'vmlinuz' },
      image: 'run.cpio',
      kind: 'debian',
      append: ['more=1'],
    });
    expect(words.slice(0, 2)).toEqual(['--library-path', 'l']);
    expect(words.at(-1)).toMatch(/^console=ttyS0 panic=-1 quiet intel_iommu=on .*no_timer_check more=1$/);
    for (const pair of [
      ['-kernel', 'vmlinuz'],
      ['-initrd', 'run.cpio'],
      ['-smp', '1'],
      ['-cpu', 'qemu64,+rdrand'],
    ])
      expect(words[words.indexOf(pair[0]!) + 1]).toBe(pair[1]);
  });
});

/** `newc`: 13 fields of 8 hexadecimal digits, a name, contents, each padded to 4 bytes (Documentation/driver-api/early-userspace/buffer-format). */
function unpack(bytes: Buffer) {
  const found: { name: string; mode: number; device: string; text: string }[] = [];
  for (let at = 0; ; ) {
    expect(bytes.toString('latin1', at, at + 6)).toBe('070701');
    const field = (i: number): number => Number.parseInt(bytes.toString('latin1', at + 6 + i * 8, at + 14 + i * 8), 16);
    const [size, nameSize] = [field(6), field(11)];
    const name = bytes.toString('latin1', at + 110, at + 110 + nameSize - 1);
    if (name === 'TRAILER!!!') return found;
    const start = Math.ceil((at + 110 + nameSize) / 4) * 4;
    const text = bytes.toString('utf8', start, start + size);
    found.push({ name, mode: field(1), device: `${field(9)}:${field(10)}`, text });
    at = Math.ceil((start + size) / 4) * 4;
  }
}

describe('the first file system', () => {
  it('has directories before what is in them, once each, files, links and devices, in whole blocks', () => {
    const path = join(scratch, 'archive.cpio');
    const cpio = new CpioWriter(path);
    cpio.file('/a/b/one', Buffer.from('eins'), 0o755);
    cpio.file('a/b/two', Buffer.from('zwei!'));
    cpio.link('a/three', 'b/one');
    cpio.device('dev/console', 5, 1);
    cpio.end();
    const bytes = readFileSync(path);
    expect(bytes.length % 512).toBe(0);
    expect(unpack(bytes)).toEqual([
      { name: 'a', mode: 0o040755, device: '0:0', text: '' },
      { name: 'a/b', mode: 0o040755, device: '0:0', text: '' },
      { name: 'a/b/one', mode: 0o100755, device: '0:0', text: 'eins' },
      { name: 'a/b/two', mode: 0o100644, device: '0:0', text: 'zwei!' },
      { name: 'a/three', mode: 0o120777, device: '0:0', text: 'b/one' },
      { name: 'dev', mode: 0o040755, device: '0:0', text: '' },
      { name: 'dev/console', mode: 0o020600, device: '5:1', text: '' },
    ]);
  });
});

describe('the table that allows nesting', () => {
  /** A header of 36 bytes, then two nodes: a SMMUv3 (4) and a root complex (2), of 24 and 40 bytes (DEN 0049). */
  function iort(types: readonly number[]): Buffer {
    const table = Buffer.alloc(48 + types.length * 40);
    table.write('IORT', 'latin1');
    table.writeUInt32LE(table.length, 4);
    table.writeUInt32LE(7, 24);
    table.writeUInt32LE(types.length, 36);
    table.writeUInt32LE(48, 40);
    for (const [i, type] of types.entries()) {
      table[48 + i * 40] = type;
      table.writeUInt16LE(40, 48 + i * 40 + 1);
      table[48 + i * 40 + 23] = 3;
    }
    return table;
  }

  it('sets CANWBS of the root complex alone, a higher revision, and the sum to 0', () => {
    const patched = withCanwbs(iort([4, 2]));
    expect([patched[48 + 23], patched[88 + 23], patched.readUInt32LE(24)]).toEqual([3, 7, 8]);
    expect(patched.reduce((sum, byte) => (sum + byte) & 0xff, 0)).toBe(0);
  });

  it('has to have a root complex', () => {
    expect(() => withCanwbs(iort([4]))).toThrow('no root complex');
  });
});

describe('the guest’s console', () => {
  async function console(script: string, timeout = 10) {
    const path = join(scratch, 'guest.sh');
    writeFileSync(path, script);
    const [output, noise]: [string[], string[]] = [[], []];
    const qemu = { command: '/bin/sh', environment: process.env };
    const into = { output: (line: string) => output.push(line), noise: (line: string) => noise.push(line) };
    return { ...(await runGuest({ qemu, args: [path], timeout, ...into })), output, noise };
  }

  it('gives the script’s output between the marks, its status, and all else as noise', async () => {
    const text = ['boot', '@@LAB-READY 1.5 Linux 7.2', '@@LAB-BEGIN', 'one\r', 'last@@LAB-END 3', 'reboot'];
    const found = await console(`printf '${text.join('\\n')}\\n'`);
    expect(found).toMatchObject({ status: 3, problem: null, ready: { text: '1.5 Linux 7.2' } });
    expect(found.output).toEqual(['one', 'last']);
    expect(found.noise).toEqual(['boot', 'reboot']);
  });

  it('says when the guest died, and when it did not end', async () => {
    expect(await console("printf '@@LAB-BEGIN\\nhalf'; exit 5")).toMatchObject({
      status: null,
      problem: 'the guest ended before the script did (QEMU: 5)',
      output: ['half'],
    });
    expect(await console('exec sleep 20', 0.2)).toMatchObject({ status: null, problem: 'no end after 0.2 seconds' });
  });
});
