/** `belfry exec` with programs that know nothing of it: coreutils, and a VFIO program in C. Expected values are Linux's, or stand in the program. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const main = process.env['BELFRY_MAIN'] ?? join(root, 'dist', 'cli', 'main.js');
const scratch = mkdtempSync(join(tmpdir(), 'exec-test-'));

function run(args: string[], env: Record<string, string> = {}) {
  const result = spawnSync(process.execPath, [main, 'exec', ...args], {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, ...env },
  });
  return { status: result.status, signal: result.signal, out: result.stdout, err: result.stderr };
}

/** Why programs cannot be run here, or null. */
function obstacle(): string | null {
  if (process.platform !== 'linux') return 'this is not Linux';
  if (!existsSync(main)) return 'dist/ is not built';
  const { status, err } = run(['--quiet', '--', 'true']);
  return status === 0 ? null : err.trim() || `exec -- true ends with ${status}`;
}

/** A C program of test/support, linked as asked; null without a compiler that can. */
function compiled(kind: 'static' | 'dynamic', name = 'vfio-program'): string | null {
  const program = join(scratch, `${name}-${kind}`);
  const source = join(root, 'test', 'support', `${name}.c`);
  const flags = kind === 'static' ? ['-static', '-pthread'] : ['-pthread'];
  return spawnSync('gcc', ['-O1', '-w', ...flags, '-o', program, source]).status === 0 ? program : null;
}

const why = obstacle();
const title = (text: string, reason: string | null): string =>
  reason === null ? text : `${text} (skipped: ${reason})`;

describe.skipIf(why !== null)(title('any program', why), () => {
  it('sees the simulated tree', () => {
    const list = run([
      '--quiet',
      '--',
      'ls',
      '/dev/vfio',
      '/sys/kernel/iommu_groups/1/devices',
      '/sys/bus/pci/devices',
    ]);
    expect(list).toMatchObject({ status: 0, err: '' });
    expect(list.out.split(/\s+/)).toEqual(expect.arrayContaining(['vfio', '1', '0000:01:00.0', '0000:00:01.0']));
    const text = run(['--quiet', '--', 'cat', '/sys/bus/pci/devices/0000:01:00.0/vendor']);
    expect(text.out).toBe('0x1b36\n');
    const link = run(['--quiet', '--', 'readlink', '/sys/bus/pci/devices/0000:01:00.0/driver']);
    expect(link.out).toMatch(/\/vfio-pci\n$/);
    // The SMMU is called by its address, as Linux' driver does.
    const iommus = run([
      '--quiet',
      '--',
      'ls',
      '/sys/class/iommu',
      '/sys/class/iommu/smmu3.0x0000000052000000/devices',
    ]);
    expect([iommus.out, iommus.err]).toEqual([expect.stringContaining('0000:01:00.0'), '']);
    const real = run(['--quiet', '--', 'realpath', '/sys/bus/pci/devices/0000:01:00.0/iommu_group']);
    expect(real.out).toBe('/sys/kernel/iommu_groups/1\n');
    const kind = run(['--quiet', '--', 'stat', '-c', '%F %t:%T', '/dev/vfio/vfio']);
    expect(kind.out).toBe('character special file a:c4\n');
  });

  it('writes to sysfs have their effect', () => {
    const device = '/sys/bus/pci/devices/0000:01:00.0';
    const script = [
      `echo 0000:01:00.0 > ${device}/driver/unbind; ls ${device} /dev/vfio; echo --`,
      'echo 0000:01:00.0 > /sys/bus/pci/drivers/vfio-pci/bind; ls /dev/vfio',
    ].join('; ');
    const { out, status } = run(['--quiet', '--', 'sh', '-c', script]);
    expect(status).toBe(0);
    const [before = [], after = []] = out.split('--\n').map((part) => part.split('\n'));
    expect(before).toEqual(expect.arrayContaining(['vfio', 'vendor']));
    expect(before).not.toContain('driver');
    expect(before).not.toContain('1');
    expect(after).toContain('1');
    const refused = run([
      '--explain',
      '--quiet',
      '--',
      'sh',
      '-c',
      `echo nonsense > /sys/bus/pci/drivers/vfio-pci/bind`,
    ]);
    expect(refused.err).toContain('there is no PCI device "nonsense"');
  });

  const python = spawnSync('python3', ['--version']).status === 0;
  it.runIf(python)('attributes are appended to as Python does it, and modules are listed beside the real ones', () => {
    const script = [
      'import os',
      'f = open("/sys/bus/pci/drivers/vfio-pci/unbind", "a")',
      'print(f.tell())',
      'f.write("0000:01:00.0")',
      'f.close()',
      'print(os.path.exists("/sys/bus/pci/devices/0000:01:00.0/driver"))',
      'names = os.listdir("/sys/module/")',
      'print(all(os.path.isdir("/sys/module/" + name) for name in names), len(names) == len(set(names)))',
      'print({"vfio", "vfio_pci", "iommufd"} <= set(names), len(names) > 5)',
    ].join('\n');
    const { out, err } = run(['--quiet', '--', 'python3', '-c', script]);
    expect([out, err]).toEqual(['4096\nFalse\nTrue True\nTrue True\n', '']);
  });

  it('ends as the program ends', () => {
    expect(run(['--quiet', '--', 'sh', '-c', 'exit 42']).status).toBe(42);
    expect(run(['--quiet', '--', 'sh', '-c', 'kill -TERM $$']).signal).toBe('SIGTERM');
    expect(run(['--quiet', '--', '/does/not/exist'])).toMatchObject({ status: 127 });
    expect(run(['--quiet', '--', '/etc/passwd'])).toMatchObject({ status: 126 });
    expect(run(['--quiet', '--']).status).toBe(2);
  });

  it('ends by the same signal, whichever it is, and says nothing more', () => {
    const ended = (signal: string) => run(['--quiet', '--', 'sh', '-c', `kill -${signal} $$`]);
    expect(ended('USR1')).toMatchObject({ signal: 'SIGUSR1', err: '' });
    expect(ended('SEGV')).toMatchObject({ signal: 'SIGSEGV', err: '' });
    // Node has no name for a real-time signal: 40 is SIGRTMIN + 6.
    const told = '"$0" "$1" exec --json -- sh -c \'kill -40 $$\'; echo $?';
    const shell = spawnSync('sh', ['-c', told, process.execPath, main], { encoding: 'utf8' });
    expect(shell.stdout).toBe('168\n');
    expect(shell.stderr).toContain('"status":null,"signal":"SIGRTMIN+6"');
  });

  it('leaves the program its own core, not one of belfry', () => {
    const directory = mkdtempSync(join(scratch, 'core-'));
    const script =
      'ulimit -c "$(ulimit -H -c)"; cd "$2"; "$0" "$1" exec --quiet -- sh -c \'ulimit -c 0; kill -SEGV $$\'';
    spawnSync('sh', ['-c', script, process.execPath, main, directory]);
    expect(readdirSync(directory)).toEqual([]);
  });

  it('leaves the pipes it was given as they are: a program that writes much waits, and is not refused', () => {
    const script = '"$0" "$1" exec --quiet -- head -c 20000000 /dev/zero | (sleep 0.5; wc -c)';
    const { stdout, stderr } = spawnSync('sh', ['-c', script, process.execPath, main], { encoding: 'utf8' });
    expect([stdout.trim(), stderr]).toEqual(['20000000', '']);
  });

  it('keeps the status of the program when nobody can be told anything', () => {
    const status = (redirect: string): number | null =>
      spawnSync('sh', ['-c', `"$0" "$1" exec -- sh -c 'ls /dev/vfio; exit 5' >&- ${redirect}`, process.execPath, main])
        .status;
    expect([status('2>/dev/full'), status('2>&-')]).toEqual([5, 5]);
  });

  it('reaches a device by preadv2 and pwritev2, as Python does, and names the nodes that could be opened', () => {
    const script = `
import fcntl, os, struct
c = os.open('/dev/vfio/vfio', os.O_RDWR)
g = os.open('/dev/vfio/1', os.O_RDWR)
fcntl.ioctl(g, 0x3b68, struct.pack('i', c))
fcntl.ioctl(c, 0x3b66, 3)
d = fcntl.ioctl(g, 0x3b6a, bytearray(b'0000:01:00.0' + bytes(20)))
parts = [bytearray(2), bytearray(2)]
print(os.preadv(d, parts, 7 << 40), parts[0].hex(), parts[1].hex())
print(os.pwritev(d, [b'\\x06'], (7 << 40) + 4), os.pread(d, 1, (7 << 40) + 4).hex())
try: os.preadv(d, parts, 7 << 40, os.RWF_NOWAIT)
except OSError as e: print(e.strerror)
try: os.open('/dev/vfio/1', os.O_RDWR)
except OSError as e: print(e.strerror)
try: os.open('/dev/vfio/2', os.O_RDWR)
except OSError as e: print(e.strerror)`;
    const { out, err } = run(['--', 'python3', '-c', script]);
    expect(out).toBe(
      '4 361b 11be\n1 06\nOperation not supported\nDevice or resource busy\nNo such file or directory\n',
    );
    expect(err).toContain('arm-its: /dev/vfio/vfio /dev/vfio/1; ');
  });

  it('leaves the rest of the system alone', () => {
    const script = 'readlink /proc/self/exe; ls /dev/null; ulimit -n; echo $HELLO; cat; exit 3';
    const result = spawnSync(
      'sh',
      ['-c', `ulimit -n 1024; exec ${process.execPath} ${main} exec -- sh -c '${script}'`],
      {
        encoding: 'utf8',
        input: 'from standard input\n',
        env: { ...process.env, HELLO: 'environment' },
      },
    );
    expect(result.status).toBe(3);
    expect(result.stdout).toMatch(/^\/\S+\n\/dev\/null\n1024\nenvironment\nfrom standard input\n$/);
    expect(result.stderr).toMatch(/^belfry: arm-its: no device node opened; 0 requests, 0 refused; .*\n$/);
  });

  it('hands on a signal that it is sent, and leaves nothing in the temporary directory', async () => {
    const child = spawn(process.execPath, [main, 'exec', '--quiet', '--', 'sh', '-c', 'ls /dev/vfio; sleep 60'], {
      env: { ...process.env, TMPDIR: scratch },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    expect(readdirSync(scratch).filter((name) => name.startsWith('belfry-'))).toHaveLength(1);
    child.kill('SIGTERM');
    const signal = await new Promise((resolve) => child.once('exit', (_status, by) => resolve(by)));
    expect(signal).toBe('SIGTERM');
    expect(readdirSync(scratch).filter((name) => name.startsWith('belfry-'))).toEqual([]);
  });
});

describe.each(['static', 'dynamic'] as const)('a VFIO program in C, %s', (kind) => {
  const program = why === null ? compiled(kind) : null;
  const reason = why ?? (program === null ? 'gcc cannot build it' : null);
  const vfio = (what: string, ...options: string[]) => run([...options, '--', program ?? '', what]);

  it.skipIf(reason !== null)(title('opens, asks, and is refused as on Linux', reason), () => {
    const { out, status, err } = vfio('basic', '--explain');
    expect(status).toBe(0);
    expect(out).toContain('regions 9 irqs 5');
    expect(out).toContain('id be111b36 bell 0001be11');
    expect(out).toContain('twice -1 Device or resource busy');
    expect(out).toContain('unknown -1 Inappropriate ioctl for device');
    expect(out).toContain('fault -1 Bad address');
    expect(err).toContain('EBUSY: group 1 is open already');
    expect(err).toMatch(/belfry: arm-its: \/dev\/vfio\/vfio \/dev\/vfio\/1; 6 requests, 3 refused; /);
  });

  it.skipIf(reason !== null)(title('gets its interrupts through eventfds', reason), () => {
    for (const host of ['arm-its', 'x86']) {
      const { out, err } = vfio('irq', '--host', host);
      expect(out).toBe('enable 0 \npoll 1 \nread 8 \ncount 3\nblocking 8 \ncount 1\n');
      expect(err).toContain('4 of 4 interrupts delivered');
    }
    const v2m = vfio('irq', '--host', 'arm-v2m', '--allow-unsafe-interrupts', '--json');
    expect(JSON.parse(v2m.err)).toMatchObject({ kind: 'summary', interrupts: { sent: 4, delivered: 4, lost: {} } });
  });

  for (const memory of ['dma-private', 'dma-shared']) {
    it.skipIf(reason !== null)(title(`${memory}: pages stay what they were when they were pinned`, reason), () => {
      const { out, status } = vfio(memory, '--quiet');
      expect(status).toBe(0);
      expect(out.split('\n')).toEqual([
        'map 0 ',
        'dma 2',
        'memory written by the device',
        'unmapped 6',
        'dma 2',
        'pinned written by the device',
        'dma 2',
        'new page nnnn',
        'dma 2',
        'old page ZZZZ',
        'unmap 0 ',
        'unmapped 8192',
        'hole -1 Bad address',
        '',
      ]);
    });
  }

  it.skipIf(reason !== null)(title('maps a BAR of memory, and gets SIGBUS while decoding is off', reason), () => {
    expect(vfio('bar', '--quiet').out).toBe(
      'mmap 0 \nread through the mapping\nmapped through pwrite\nbeyond -1 Invalid argument\ndecoding off: signal 7\ndecoding on: through the mapping\n',
    );
  });

  it.skipIf(reason !== null)(title('fork, dup, kill: a file lives as long as its last descriptor', reason), () => {
    expect(vfio('files', '--quiet').out.split('\n')).toEqual([
      'held by the child -1 Device or resource busy',
      "child's bell 0001be11",
      'after its death open',
      'held by the copy -1 Device or resource busy',
      'copy works 0 ',
      'after the copy open',
      '',
    ]);
    expect(vfio('kill', '--quiet').signal).toBe('SIGKILL');
  });

  it.skipIf(reason !== null)(
    title('killed while it maps, enables and fires: all is released, each time', reason),
    () => {
      const { out, err } = vfio('storm', '--json');
      expect(out).toBe('free again 30 of 30\n');
      const { interrupts } = JSON.parse(err);
      expect(interrupts.delivered).toBe(interrupts.sent);
    },
  );

  it.skipIf(reason !== null)(title('requests that make no sense are answered', reason), () => {
    expect(vfio('nonsense', '--quiet')).toMatchObject({ out: 'answered 1\n', status: 0, err: '' });
  });
});

describe('a program that maps registers', () => {
  const program = why === null && process.arch === 'x64' ? compiled('dynamic', 'registers-program') : null;
  const reason =
    why ?? (process.arch !== 'x64' ? 'x86-64 only' : program === null ? 'gcc cannot build registers-program.c' : null);
  const drive = (what: string, ...options: string[]) => run([...options, '--', program ?? '', what]);

  it.skipIf(reason !== null)(title('drives edu by its BAR alone: interrupts, DMA, threads, fork', reason), () => {
    const { out, err, status } = drive('edu', '--device', 'edu');
    // The answers are those of QEMU's docs/specs/edu; 10! is 3,628,800; accesses below 0x80 are of four bytes, others read all ones.
    expect(out.split('\n')).toEqual([
      'id 010000ed',
      'liveness edcba987',
      'narrow ff ffff',
      'factorial 3628800',
      'interrupt 1 status 40 then 0',
      'dma interrupt 1 status 100 by way of the device',
      'threads 800',
      'child 010000ed fffffffe',
      'child ended 7, liveness fffffffe',
      '',
    ]);
    expect(status).toBe(0);
    expect(err).toMatch(/ 0 refused; 2 of 2 interrupts delivered/);
  });

  it.skipIf(reason !== null)(title('each instruction leaves what the processor leaves', reason), () => {
    expect(drive('instructions', '--quiet').out).toBe('all alike of 2148\n');
  });

  it.skipIf(reason !== null)(title('gets SIGBUS while decoding is off, and for what cannot be done', reason), () => {
    const { out, err } = drive('revoked', '--explain', '--quiet', '--device', 'edu');
    expect(out.split('\n')).toEqual([
      'signal 7 code 2 at 4',
      'again 010000ed',
      'unknown instruction: signal 7',
      'sent: signal 7 code 0',
      'still 010000ed',
      '',
    ]);
    expect(err).toMatch(/the instruction at 0x[0-9a-f]+ cannot be done on registers: db 0\d /);
  });

  it.skipIf(reason !== null)(title('moves, forks, closes, protects and unmaps it as any memory', reason), () => {
    expect(drive('lifetimes', '--quiet', '--device', 'edu').out.split('\n')).toEqual([
      'moved 010000ed',
      'after fork and exec 9',
      'after close 010000ed',
      'read only: signal 11',
      'unmapped: signal 11',
      'group is free',
      '',
    ]);
  });

  it.skipIf(reason !== null)(title('killed between two accesses: all is released, each time', reason), () => {
    expect(drive('storm', '--quiet', '--device', 'edu').out).toBe('free again 20 of 20\n');
  });

  it.skipIf(reason !== null)(title('is refused with the reason when somebody traces it', reason), () => {
    const { out, err } = drive('traced', '--explain', '--quiet', '--device', 'edu');
    expect(out).toBe('flag 0 mmap No such device\n');
    expect(err).toMatch(/registers cannot be mapped: process \d+ is traced by process \d+ already/);
  });
});

const qemu =
  why ?? (spawnSync('qemu-system-x86_64', ['--version']).status === 0 ? null : 'qemu-system-x86_64 is not here');

describe('a program that waits for page faults', () => {
  const program = why === null ? compiled('dynamic', 'fault-program') : null;
  const reason = why ?? (program === null ? 'gcc cannot build it' : null);

  it.skipIf(reason !== null)(title('finds the queue readable while one waits, and sleeps meanwhile', reason), () => {
    const { out, status } = run(['--quiet', '--iommufd-test', '--', program ?? '']);
    expect(status).toBe(0);
    // POLLIN 1, POLLOUT 4 (eventq.c iommufd_eventq_fops_poll); a record has 40 bytes, an answer 8; ESPIPE: nonseekable_open.
    expect(out.split('\n')).toEqual([
      'nested 0',
      'replace 0',
      'quiet 4',
      'fault 5',
      'read 40 group 7, now 4',
      'answer 8',
      'seek -1',
      'child woke for 1, events 1',
      'child read 40 group 8',
      '',
    ]);
  });
});

describe('QEMU', () => {
  it.skipIf(qemu !== null)(title('has the device in its guest, through its own vfio-pci', qemu), () => {
    const argv = ['-M', 'q35', '-accel', 'tcg', '-m', '64', '-display', 'none', '-monitor', 'stdio'];
    const command = ['qemu-system-x86_64', ...argv, '-device', 'vfio-pci,host=0000:01:00.0'];
    const result = spawnSync(
      'sh',
      [
        '-c',
        `(sleep 5; echo info pci; sleep 1; echo quit) | "$0" "$@"`,
        process.execPath,
        main,
        'exec',
        '--host',
        'x86',
        '--',
        ...command,
      ],
      {
        encoding: 'utf8',
        timeout: 60_000,
      },
    );
    expect(result.status).toBe(0);
    expect(result.stdout).toMatch(
      /PCI device 1b36:be11[\s\S]*BAR0: 32 bit memory at 0x[\s\S]*BAR4: 64 bit prefetchable memory at 0x/,
    );
    expect(result.stderr).toMatch(/\/dev\/vfio\/1.* requests, 0 refused/);
  });
});

describe('the help', () => {
  it('names every option', () => {
    const text = spawnSync(process.execPath, [main, 'help', 'exec'], { encoding: 'utf8' }).stdout;
    const source = readFileSync(join(root, 'src', 'cli', 'exec', 'options.ts'), 'utf8');
    for (const [, name] of source.matchAll(/^ {2}'?([a-z-]+)'?: \{ type:/gm)) expect(text).toContain(`--${name}`);
  });
});
