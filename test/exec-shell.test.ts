/** `belfry exec -- bash` at a terminal: what an administrator types on a real host, with job control and the terminal's signals. */
import { spawn } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { main, obstacle, spawned, titled } from './support/exec-run.ts';

const has = (command: string): boolean => spawned(command, ['--version']).status === 0;
const reason = obstacle() ?? (has('script') && has('bash') ? null : 'script (bsdutils) or bash is not here');

/** A shell at a pseudo terminal. `type` sends a line, or a key, and waits until the terminal shows what is expected. */
class Terminal {
  private shown = '';
  private seen = 0;
  private readonly child;
  private readonly ended: Promise<number | null>;

  constructor(...options: string[]) {
    const words = [
      process.execPath,
      main,
      'exec',
      ...options,
      '--',
      'env',
      'PS1=> ',
      'bash',
      '--norc',
      '--noprofile',
      '--noediting',
      '-i',
    ];
    const command = words.map((word) => `'${word}'`).join(' ');
    const env = { ...process.env, TERM: 'dumb' };
    this.child = spawn('script', ['-qec', command, '/dev/null'], { env, stdio: ['pipe', 'pipe', 'inherit'] });
    this.child.stdout.on('data', (bytes) => (this.shown += String(bytes).replaceAll('\r', '')));
    this.ended = new Promise((resolve) => this.child.once('close', resolve));
  }

  /** What came since the last call, when it has the expected text. */
  async until(expected: string): Promise<string> {
    for (const end = Date.now() + 30_000; Date.now() < end; ) {
      const at = this.shown.indexOf(expected, this.seen);
      if (at >= 0) {
        const text = this.shown.slice(this.seen, at + expected.length);
        this.seen = at + expected.length;
        return text;
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`the terminal never showed ${JSON.stringify(expected)}: ${this.shown.slice(this.seen)}`);
  }

  type(text: string): void {
    this.child.stdin.write(text);
  }

  /** The lines that a command prints. */
  async run(line: string): Promise<string[]> {
    this.type(`${line}\n`);
    const text = await this.until('\n> ');
    // The terminal echoes what is typed.
    return text.split('\n').slice(1, -1);
  }

  async end(): Promise<{ status: number | null; rest: string }> {
    const status = await this.ended;
    return { status, rest: this.shown.slice(this.seen) };
  }
}

describe('bash on the simulated host', () => {
  it.skipIf(reason !== null)(titled('lists, reads, binds and unbinds', reason), async () => {
    const shell = new Terminal();
    await shell.until('> ');
    if (has('lspci')) {
      const devices = await shell.run('lspci -n');
      expect(devices.map((line) => line.slice(0, 7))).toEqual(['00:01.0', '01:00.0']);
      expect(devices[1]).toContain('1b36:be11');
    }
    expect(await shell.run('cat /sys/bus/pci/devices/*/vendor')).toEqual(['0x1b36', '0x1b36']);
    const groups = await shell.run('ls -l /sys/kernel/iommu_groups');
    expect(groups.slice(1).map((line) => [line[0], line.split(' ').at(-1)])).toEqual([
      ['d', '0'],
      ['d', '1'],
    ]);
    const device = '/sys/bus/pci/devices/0000:01:00.0';
    const each = 'for d in /sys/kernel/iommu_groups/*/devices/*; do basename "$d"; done';
    expect(await shell.run(each)).toEqual(['0000:00:01.0', '0000:01:00.0']);
    expect(await shell.run(`echo 0000:01:00.0 > ${device}/driver/unbind; ls /dev/vfio`)).toEqual(['vfio']);
    expect(await shell.run('echo 0000:01:00.0 > /sys/bus/pci/drivers/vfio-pci/bind; ls -x /dev/vfio')).toEqual([
      '1  devices  vfio',
    ]);
    expect(await shell.run('echo nonsense > /sys/bus/pci/drivers/vfio-pci/bind')).toEqual([
      'bash: echo: write error: No such device',
    ]);
    shell.type('exit 7\n');
    const { status, rest } = await shell.end();
    expect(status).toBe(7);
    expect(rest).toMatch(/belfry: arm-its: \/dev\/vfio; 0 requests, 1 refused/);
  });

  it.skipIf(reason !== null)(
    titled('has job control, and the terminal’s interrupt is the program’s alone', reason),
    async () => {
      const shell = new Terminal('--quiet');
      await shell.until('> ');
      expect(await shell.run('ls /dev/vfio/vfio')).toEqual(['/dev/vfio/vfio']);
      expect(await shell.run('sleep 60 & jobs')).toEqual([
        expect.stringMatching(/^\[1\] \d+$/),
        expect.stringMatching(/^\[1\]\+ {2}Running +sleep 60 &$/),
      ]);
      await shell.run('kill %1; wait 2> /dev/null');
      shell.type('echo be""gun; sleep 60\n');
      await shell.until('begun');
      shell.type('\x03');
      await shell.until('\n> ');
      expect(await shell.run('echo $?; cat /sys/bus/pci/devices/0000:01:00.0/device')).toEqual(['130', '0xbe11']);
      shell.type('\x04');
      expect((await shell.end()).status).toBe(0);
    },
  );
});
