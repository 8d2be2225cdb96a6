/** The guest's first file system: busybox, Node, koffi, kernel modules; and over it belfry and the script, made anew each time. */
import { appendFileSync, copyFileSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { cacheDirectory, made } from './cache.mjs';
import { CpioWriter } from './cpio.mjs';
import { Debian } from './debian.mjs';
import { koffiVersion, npmPackage } from './npm.mjs';

const LIBRARIES = /^(ld-linux-.*\.so\.\d|lib(c|m|dl|pthread|rt|gcc_s|stdc\+\+)\.so\.\d+)$/;

/** Node with what it needs, as a cpio archive in the cache. Uncompressed: unpacking costs the guest more than reading. */
export async function baseImage(root, platform) {
  const { architecture } = platform;
  const node = await npmPackage(platform.node);
  const koffi = await npmPackage(`koffi@${koffiVersion(root)}`);
  const native = await npmPackage(`${platform.koffi}@${koffiVersion(root)}`);
  const debian = Debian.open();
  debian.update();
  const names = ['busybox-static', 'libc6', 'libgcc-s1', 'libstdc++6'].map((name) => `${name}:${architecture}`);
  const { path: tree, versions } = await debian.unpack(`guest-${architecture}`, names);
  const label = `base-${architecture}-node${node.version}-koffi${koffi.version}-${versions.join('+').replace(/[^\w.+-]/g, '_')}`;
  const directory = await made(label.slice(0, 200), (into) => {
    const cpio = new CpioWriter(join(into, 'base.cpio'));
    addUserland(cpio, tree);
    cpio.copy('usr/bin/node', join(node.path, 'bin/node'));
    cpio.tree('node_modules/koffi', koffi.path, (path) =>
      /^(package\.json|.*\.c?js|src|src\/koffi|src\/koffi\/src)$/.test(path),
    );
    cpio.tree(`node_modules/${platform.koffi}`, native.path);
    cpio.end();
  });
  return { path: join(directory, 'base.cpio'), node: node.version };
}

function addUserland(cpio, tree) {
  for (const directory of ['proc', 'sys', 'dev', 'tmp', 'run', 'root', 'bin', 'usr/bin']) cpio.directory(directory);
  cpio.device('dev/console', 5, 1);
  cpio.device('dev/null', 1, 3, 0o666);
  const busybox = ['usr/bin/busybox', 'bin/busybox'].map((path) => join(tree, path)).find(existsSync);
  cpio.copy('bin/busybox', busybox);
  for (const path of readdirSync(tree, { recursive: true })) {
    if (LIBRARIES.test(basename(path)) && /^(usr\/)?lib\//.test(path))
      cpio.copy(`lib/${basename(path)}`, join(tree, path));
  }
  cpio.link('lib64', 'lib');
}

/**
 * Base, modules, belfry's own files, and the script at the path that it has in the repository.
 * @returns the path of the archive; the caller removes it
 */
export function runImage({ root, base, modules, script, args, shell, tables = [] }) {
  removeLeftovers(cacheDirectory('run'));
  const path = join(cacheDirectory('run'), `${process.pid}.cpio`);
  const over = `${path}.over`;
  const cpio = new CpioWriter(over);
  cpio.copy('init', join(root, 'lab/guest/init'));
  for (const { name, bytes } of modules) cpio.file(`modules/${name}.ko`, bytes);
  cpio.file('modules/order', modules.map(({ name }) => `${name}\n`).join(''));
  cpio.tree('belfry/dist', join(root, 'dist'), (file) => !file.endsWith('.d.ts'));
  cpio.copy('belfry/package.json', join(root, 'package.json'));
  cpio.tree('belfry/captures', join(root, 'captures'));
  cpio.link('node_modules/belfry', '../belfry');
  if (script !== null) addScript(cpio, root, script, args);
  if (shell) cpio.file('lab/shell', '');
  cpio.end();
  // ACPI tables are looked for in the first archive only, and that must not be compressed.
  if (tables.length === 0) copyFileSync(base, path);
  else {
    const first = new CpioWriter(path);
    for (const table of tables) first.copy(`kernel/firmware/acpi/${basename(table)}`, table);
    first.end();
    appendFileSync(path, readFileSync(base));
  }
  appendFileSync(path, readFileSync(over));
  rmSync(over);
  return path;
}

/** What runs left that were ended by a signal. */
function removeLeftovers(directory) {
  for (const file of readdirSync(directory)) {
    if (!existsSync(`/proc/${Number.parseInt(file, 10)}`)) rmSync(join(directory, file), { force: true });
  }
}

/** A script of the repository has its neighbours with it; another stands alone. */
function addScript(cpio, root, script, args) {
  const place = relative(root, resolve(script));
  const own = !place.startsWith('..');
  const inside = own ? `belfry/${place}` : `script/${basename(script)}`;
  if (own) cpio.tree(dirname(inside), dirname(resolve(script)));
  else cpio.copy(inside, resolve(script));
  // The lab's own scripts use parts of the examples.
  if (own && !place.startsWith('docs/examples')) cpio.tree('belfry/docs/examples', join(root, 'docs/examples'));
  const words = ['node', '--disable-warning=ExperimentalWarning', `/${inside}`, ...args].map(
    (word) => `'${word.replaceAll("'", "'\\''")}'`,
  );
  cpio.file('lab/command', `#!/bin/sh\nexec ${words.join(' ')}\n`, 0o755);
}
