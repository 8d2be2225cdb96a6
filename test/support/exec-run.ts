/** `belfry exec` as a command, and the C programs of this folder: for the suites that run programs. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
export const main = process.env['BELFRY_MAIN'] ?? join(root, 'dist', 'cli', 'main.js');
/** Programs and files of the suites. Others than the user may read it. */
export const scratch = mkdtempSync(join(tmpdir(), 'exec-test-'));

export interface Ran {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
}

export function spawned(command: string, args: readonly string[], input = ''): Ran {
  const result = spawnSync(command, args, { encoding: 'utf8', timeout: 120_000, input, maxBuffer: 2 ** 26 });
  return { status: result.status, signal: result.signal, out: result.stdout ?? '', err: result.stderr ?? '' };
}

export const run = (args: readonly string[], input = ''): Ran =>
  spawned(process.execPath, [main, 'exec', ...args], input);

/** Objects that belfry wrote on standard error with --json. */
export const jsonLines = ({ err }: Ran): Record<string, unknown>[] =>
  err
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>);

let known: string | null | undefined;

/** Why programs cannot be run here, or null. */
export function obstacle(): string | null {
  known ??= found();
  return known === '' ? null : known;
}

function found(): string {
  if (process.platform !== 'linux') return 'this is not Linux';
  if (!existsSync(main)) return 'dist/ is not built';
  const { status, err } = run(['--quiet', '--', 'ls', '/dev/vfio']);
  return status === 0 ? '' : err.trim() || `exec -- ls ends with ${status}`;
}

/** A C program of this folder; null without a compiler that can build it. */
export function compiled(name: string, ...flags: string[]): string | null {
  const program = join(scratch, name);
  const source = join(root, 'test', 'support', `${name}.c`);
  if (existsSync(program)) return program;
  return spawnSync('gcc', ['-O1', '-w', '-pthread', ...flags, '-o', program, source]).status === 0 ? program : null;
}

/** A test's title with the reason why it does not run, if there is one. */
export const titled = (text: string, reason: string | null): string =>
  reason === null ? text : `${text} (skipped: ${reason})`;

/** The C program, and why suites on it cannot run. */
export function programOf(name: string): { readonly program: string; readonly reason: string | null } {
  const why = obstacle();
  const program = why === null ? compiled(name) : null;
  return { program: program ?? '', reason: why ?? (program === null ? `gcc cannot build ${name}.c` : null) };
}
