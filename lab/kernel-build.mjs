/** Builds the lab's own kernel from Debian's linux-source: allnoconfig, two fragments, no patch. About 20 minutes of two cores. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheDirectory } from './cache.mjs';
import { run, which } from './command.mjs';
import { Debian } from './debian.mjs';
import { Skip } from './skip.mjs';

const FRAGMENTS = join(dirname(fileURLToPath(import.meta.url)), 'kernel');
const TARGETS = {
  arm64: {
    arch: 'arm64',
    make: 'Image',
    built: 'arch/arm64/boot/Image',
    cross: 'aarch64-linux-gnu-',
    file: (v) => `linux-${v}-lab-arm64.Image`,
  },
  amd64: {
    arch: 'x86',
    make: 'bzImage',
    built: 'arch/x86/boot/bzImage',
    cross: 'x86_64-linux-gnu-',
    file: (v) => `linux-${v}-lab-x86_64.bzImage`,
  },
};

/** Into `kept`: `{ file, version }`. @throws Skip when a tool is missing, with the packages that bring them */
export async function buildKernel(kept, architecture) {
  const target = TARGETS[architecture];
  const compiler = compilerFor(target);
  const debian = Debian.open();
  debian.update();
  const source = unpackSource(await sourcePackage(debian));
  const make = (...words) =>
    run(
      'make',
      [`ARCH=${target.arch}`, `CROSS_COMPILE=${compiler}`, 'KBUILD_BUILD_USER=lab', 'KBUILD_BUILD_HOST=lab', ...words],
      { cwd: source },
    );
  process.stderr.write(`lab: building Linux for ${architecture}; this takes a while\n`);
  configure(source, architecture, make);
  make(`-j${availableParallelism()}`, target.make);
  const version = make('-s', 'kernelversion').trim();
  const file = target.file(version);
  copyFileSync(join(source, target.built), join(kept, file));
  rmSync(source, { recursive: true, force: true });
  return { file, version };
}

function compilerFor({ cross }) {
  const tools = { make: 'make', flex: 'flex', bison: 'bison', bc: 'bc', xz: 'xz-utils', perl: 'perl' };
  const missing = Object.keys(tools)
    .filter((name) => which(name) === null)
    .map((name) => tools[name]);
  const native = run(which('gcc') ?? 'true', ['-dumpmachine'])
    .trim()
    .startsWith(cross.split('-')[0]);
  const prefix = native ? '' : cross;
  if (which(`${prefix}gcc`) === null) missing.push(native ? 'gcc' : `gcc-${cross.slice(0, -1).replace('_', '-')}`);
  if (!existsSync('/usr/include/libelf.h')) missing.push('libelf-dev');
  if (!existsSync('/usr/include/openssl/opensslv.h')) missing.push('libssl-dev');
  if (missing.length === 0) return prefix;
  throw new Skip(
    `the lab’s own kernel is not in the cache, and building it needs these Debian packages: ${missing.join(' ')} (or set BELFRY_LAB_SEED to a directory that has it)`,
  );
}

/** The newest linux-source that is of 7.2 or later. */
async function sourcePackage(debian) {
  const name = debian.depends('linux-source').find((found) => /^linux-source-\d/.test(found));
  if (name === undefined) throw new Skip('Debian has no linux-source');
  const { path } = await debian.unpack('linux-source', [name]);
  const directory = join(path, 'usr/src');
  return join(
    directory,
    readdirSync(directory).find((file) => /^linux-source-.*\.tar\.xz$/.test(file)),
  );
}

function unpackSource(archive) {
  const into = join(cacheDirectory('build'), String(process.pid));
  rmSync(into, { recursive: true, force: true });
  mkdirSync(into, { recursive: true });
  run('tar', ['-xJf', archive, '-C', into, '--strip-components=1']);
  return into;
}

function configure(source, architecture, make) {
  const fragments = ['common.config', `${architecture}.config`].map((file) =>
    readFileSync(join(FRAGMENTS, file), 'utf8'),
  );
  const wanted = join(source, 'lab.config');
  writeFileSync(wanted, fragments.join('\n'));
  make(`KCONFIG_ALLCONFIG=${wanted}`, 'allnoconfig');
  const made = readFileSync(join(source, '.config'), 'utf8');
  for (const option of ['CONFIG_IOMMUFD=y', 'CONFIG_VFIO_DEVICE_CDEV=y', 'CONFIG_VFIO_PCI=y']) {
    if (!made.includes(`${option}\n`))
      throw new Error(`the configuration lacks ${option}: an option it depends on has changed`);
  }
}
