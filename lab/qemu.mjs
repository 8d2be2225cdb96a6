/** A QEMU that is new enough: the system's, or Debian unstable's, unpacked into the cache and run from there. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { run, which } from './command.mjs';
import { Debian } from './debian.mjs';

/** 9.1 brought stage 2 behind stage 1 to the SMMUv3 model; the igb device came with 8.0. */
const OLDEST = [9, 1];
const PACKAGES = { 'qemu-system-aarch64': 'qemu-system-arm', 'qemu-system-x86_64': 'qemu-system-x86' };

/** `{ command, args, environment, version }`: how to start the emulator `name`. */
export async function findQemu(name) {
  const system = which(name);
  if (system !== null) {
    const version = versionOf(system, [], process.env);
    if (newEnough(version)) return { command: system, args: [], environment: process.env, version };
  }
  const debian = Debian.open();
  debian.update();
  const tree = await debian.unpackWithDependencies('qemu', [PACKAGES[name]]);
  return fromTree(tree, name);
}

function fromTree(tree, name) {
  const { command, args, libraries } = loaderOf(tree);
  const start = [...args, join(tree, 'usr/bin', name)];
  const environment = { ...process.env, QEMU_MODULE_DIR: join(libraries, 'qemu') };
  const version = versionOf(command, start, environment);
  const data = ['usr/share/qemu', 'usr/share/seabios', 'usr/lib/ipxe/qemu']
    .map((path) => join(tree, path))
    .filter(existsSync);
  return { command, args: [...start, ...data.flatMap((path) => ['-L', path])], environment, version };
}

/**
 * How to start a program of an unpacked tree: the tree has a C library of its own, newer than this machine's, and its loader starts
 * the program, with its libraries. So no chroot is needed, and no rights.
 */
export function loaderOf(tree) {
  const below = join(tree, 'usr/lib');
  const libraries = join(
    below,
    readdirSync(below).find((entry) => entry.endsWith('-linux-gnu')),
  );
  const loader = readdirSync(libraries).find((entry) => /^ld-linux.*\.so/.test(entry));
  return { command: join(libraries, loader), args: ['--library-path', libraries], libraries };
}

function versionOf(command, args, environment) {
  const text = run(command, [...args, '--version'], { env: environment });
  return parseVersion(text);
}

/** `[11, 1, 3]` of what `--version` prints; zeros where there is none. */
export function parseVersion(text) {
  return (/version (\d+\.\d+\.\d+)/.exec(text)?.[1] ?? '0.0.0').split('.').map(Number);
}

export function newEnough([major, minor]) {
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]);
}
