/** A program's process before it is the program. The filter here allows everything; what filters do is exec.test.ts's. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { Libc, LibcUnavailable } from '../libc/index.ts';
import { callTable } from './numbers.ts';

/** SECCOMP_RET_ALLOW. */
const ALLOW = Buffer.from('060000000000ff7f', 'hex');
const ENOENT = 2;
const EACCES = 13;

const libc = await Libc.load().catch((error: unknown) => {
  if (error instanceof LibcUnavailable) return null;
  throw error;
});
const built = fileURLToPath(new URL('../../dist/exec/launch.js', import.meta.url));
const possible = libc !== null && callTable(process.arch) !== null && existsSync(built);
const { launch } = possible ? ((await import(built)) as typeof import('./launch.ts')) : { launch: null as never };
const scratch = mkdtempSync(join(tmpdir(), 'launch-test-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const start = (argv: string[], throughNode: boolean, descriptorLimit = 0) => {
  const child = launch(libc as Libc, { filter: ALLOW, descriptorLimit, argv, throughNode });
  const listener = child.report();
  return { child, listener };
};

/** What it told after it was let go, and how it ended. */
const run = (argv: string[], throughNode: boolean, descriptorLimit = 0) => {
  const { child, listener } = start(argv, throughNode, descriptorLimit);
  if (listener === null || listener < 0) throw new Error(`no listener: ${listener}`);
  child.go();
  const errno = child.report();
  const end = child.end();
  child.close();
  return { errno, end };
};

const exited = (code: number) => ({ errno: null, end: { kind: 'exited', code } });

/** Where seccomp may not notify (a container's profile), exec.test.ts says so. */
function allowed(): boolean {
  if (!possible) return false;
  const { child, listener } = start(['true'], false);
  child.close();
  child.end();
  return listener !== null && listener >= 0;
}

describe.skipIf(!allowed()).each([
  ['an image of its own', false],
  ['a second Node', true],
])('a program started through %s', (_name, throughNode) => {
  it('has its arguments, its environment, and its limit of descriptors', () => {
    const script = '[ "$1$2" = "a b" ] && [ "$PATH" = "$3" ] && [ "$(ulimit -n)" = 99 ] && exit 7';
    expect(run(['sh', '-c', script, 'sh', 'a ', 'b', process.env['PATH'] ?? ''], throughNode, 99)).toEqual(exited(7));
  });

  it('has none of the pipes, and no privilege to gain', () => {
    const script =
      'for fd in 3 4; do [ -p /proc/self/fd/$fd ] && exit 1; done; grep -q "NoNewPrivs:.1" /proc/self/status';
    expect(run(['sh', '-c', script], throughNode)).toEqual(exited(0));
  });

  it('ends by SIGPIPE as others do', () => {
    expect(run(['sh', '-c', 'kill -PIPE $$'], throughNode)).toEqual({
      errno: null,
      end: { kind: 'killed', signal: 13 },
    });
  });

  it('may be a script without a first line that names a shell', () => {
    const script = join(scratch, 'script');
    writeFileSync(script, 'exit $1\n', { mode: 0o755 });
    expect(run([script, '9'], throughNode)).toEqual(exited(9));
  });

  it('that cannot be started says why', () => {
    const plain = join(scratch, 'plain');
    writeFileSync(plain, '', { mode: 0o644 });
    expect(run(['belfry-no-such-program'], throughNode)).toEqual({ ...exited(127), errno: ENOENT });
    expect(run([plain], throughNode)).toEqual({ ...exited(126), errno: EACCES });
    expect(run([''], throughNode)).toEqual({ ...exited(127), errno: ENOENT });
  });

  it('does not run when nobody lets it go', () => {
    const { child } = start(['true'], throughNode);
    child.close();
    expect(child.end()).toEqual({ kind: 'exited', code: 125 });
  });
});
