/** Compiles the C sides into a cache outside of the tree; without a compiler it says so and the ratios stay away. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const sources = fileURLToPath(new URL('../c/', import.meta.url));
export const FLAGS = ['-O2', '-Wall', '-Wextra'];

/** `gcc (Debian 12.2.0-14) 12.2.0`, or null when there is no such compiler. */
export function compilerVersion(compiler) {
  const { status, stdout } = spawnSync(compiler, ['--version'], { encoding: 'utf8' });
  return status === 0 ? stdout.split('\n', 1)[0] : null;
}

/** @returns {{ program: string } | { why: string }} the built program, or why there is none. */
export function compile(name) {
  const cpp = existsSync(join(sources, `${name}.cc`));
  const compiler = cpp ? 'g++' : 'gcc';
  const version = compilerVersion(compiler);
  if (version === null) return { why: `no ${compiler} here` };
  const cache = join(tmpdir(), `belfry-bench-${process.getuid?.() ?? 0}`);
  mkdirSync(cache, { recursive: true });
  const program = join(cache, `${name}-${fingerprint(version)}`);
  if (existsSync(program)) return { program };
  const fresh = `${program}.${process.pid}`;
  const standard = cpp ? '-std=c++17' : '-std=gnu11';
  const source = join(sources, `${name}.${cpp ? 'cc' : 'c'}`);
  const { status, stderr } = spawnSync(compiler, [...FLAGS, standard, source, '-o', fresh], { encoding: 'utf8' });
  if (status !== 0) return { why: `${compiler}: ${stderr.split('\n').slice(0, 3).join(' ')}` };
  renameSync(fresh, program);
  return { program };
}

/** Changes with any source, the flags and the compiler. */
function fingerprint(version) {
  const hash = createHash('sha256').update(version).update(FLAGS.join(' '));
  for (const file of readdirSync(sources).sort()) hash.update(readFileSync(join(sources, file)));
  return hash.digest('hex').slice(0, 16);
}
