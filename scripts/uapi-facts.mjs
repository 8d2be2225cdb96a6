// Asks a C compiler what Linux 7.2's headers say of every struct and number in src/uapi, and writes uapi.facts.json.
//
//   node scripts/uapi-facts.mjs                 fetch the headers (Debian's linux-libc-dev, not installed) and write the facts
//   node scripts/uapi-facts.mjs --check         the same, but only compare; exit status 1 when they differ, 77 when they cannot be had
//   node scripts/uapi-facts.mjs --deb <file>    a linux-libc-dev package that is already here
//
// Needs a Debian machine with apt-get, dpkg-deb and gcc. Nothing is installed and no system file changes: apt works on a
// private configuration in the cache folder. The mirror is the one that this machine is configured with.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { privateApt, SUITES } from './private-apt.mjs';

const PACKAGE = 'linux-libc-dev';
const SERIES = '7.2.';
const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'belfry', 'uapi');
const factsFile = join(root, 'src', 'uapi', 'uapi.facts.json');

const { values: options } = parseArgs({ options: { check: { type: 'boolean' }, deb: { type: 'string' } } });
main();

function main() {
  mkdirSync(cache, { recursive: true });
  const deb = options.deb === undefined ? fetchHeaders() : resolve(options.deb);
  const headers = unpack(deb);
  const version = run('dpkg-deb', ['-f', deb, 'Version']).trim();
  if (!version.startsWith(SERIES)) fail(`${deb} is version ${version}; the facts are those of Linux ${SERIES}x`);
  build().then((tables) => {
    const facts = textOf({ package: PACKAGE, version, ...collect(tables, headers) });
    const before = existsSync(factsFile) ? readFileSync(factsFile, 'utf8') : '';
    if (options.check) {
      if (facts !== before)
        fail(`${factsFile} differs from what ${PACKAGE} ${version} says; run this script without --check`);
      console.log(`${PACKAGE} ${version}: the facts are current`);
    } else {
      writeFileSync(factsFile, facts);
      console.log(`${PACKAGE} ${version}: wrote ${factsFile}`);
    }
  });
}

/** JSON with one struct or number on a line, so that a difference can be read. */
function textOf({ structs, constants, ...rest }) {
  const lines = (object) =>
    Object.entries(object)
      .map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)}`)
      .join(',\n');
  const head = Object.entries(rest).map(([name, value]) => ` ${JSON.stringify(name)}: ${JSON.stringify(value)},\n`);
  return `{\n${head.join('')} "structs": {\n${lines(structs)}\n },\n "constants": {\n${lines(constants)}\n }\n}\n`;
}

/** The package of the wanted series from the configured mirror, in the cache folder; reused when it is there. */
function fetchHeaders() {
  const kept = readdirSync(cache).find((name) => name.startsWith(`${PACKAGE}_${SERIES}`) && name.endsWith('.deb'));
  if (kept !== undefined) return join(cache, kept);
  const apt = privateApt(cache);
  if (apt === null) skip('this machine has no Debian mirror configured; hand over the package with --deb <file>');
  const updated = spawnSync('apt-get', [...apt, 'update'], { encoding: 'utf8' });
  if (updated.error) skip('apt-get is not here; hand over the package with --deb <file>');
  const offered = run('apt-cache', [...apt, 'madison', PACKAGE])
    .split('\n')
    .map((line) => line.split('|')[1]?.trim() ?? '')
    .filter((version) => version !== '');
  const version = offered.find((candidate) => candidate.startsWith(SERIES));
  if (version === undefined) {
    const found = offered.length === 0 ? 'none' : [...new Set(offered)].join(', ');
    skip(
      `cannot fetch ${PACKAGE} ${SERIES}x from ${SUITES.join(' or ')} (versions found: ${found})\n${updated.stderr}`,
    );
  }
  const got = spawnSync('apt-get', [...apt, 'download', `${PACKAGE}=${version}`], { encoding: 'utf8', cwd: cache });
  const file = readdirSync(cache).find((name) => name.startsWith(`${PACKAGE}_${SERIES}`) && name.endsWith('.deb'));
  if (got.status !== 0 || file === undefined) skip(`cannot download ${PACKAGE} ${version}\n${got.stderr}`);
  return join(cache, file);
}

/** Unpacks the package; answers the folder that holds `linux/`. */
function unpack(deb) {
  const into = join(cache, 'headers');
  rmSync(into, { recursive: true, force: true });
  run('dpkg-deb', ['-x', deb, into]);
  const include = join(into, 'usr', 'include');
  for (const triplet of ['x86_64-linux-gnu', 'aarch64-linux-gnu']) {
    if (!existsSync(join(include, triplet, 'asm'))) {
      fail(`${deb} has no ${triplet}/asm: the facts need a package that holds the headers of both architectures`);
    }
  }
  return include;
}

/** Compiles src/uapi into the cache folder and loads its tables. */
async function build() {
  const out = join(cache, 'tables');
  mkdirSync(out, { recursive: true });
  const config = join(cache, 'tsconfig.json');
  const uapi = join(root, 'src', 'uapi');
  const compilerOptions = {
    rootDir: uapi,
    outDir: out,
    declaration: false,
    incremental: false,
    tsBuildInfoFile: null,
    types: [],
  };
  writeFileSync(
    config,
    JSON.stringify({
      extends: join(root, 'tsconfig.build.json'),
      compilerOptions,
      include: [],
      files: [join(uapi, 'tables.ts')],
    }),
  );
  writeFileSync(join(out, 'package.json'), '{ "type": "module" }\n');
  run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', config]);
  return import(pathToFileURL(join(out, 'tables.js')).href);
}

function collect({ TABLES, NOT_IN_LINUX, LEFT_OUT }, headers) {
  const structs = {};
  const constants = {};
  const unknown = [];
  for (const table of TABLES) {
    const known = Object.entries(table.exports).filter(([name]) => !NOT_IN_LINUX.has(name));
    const result = ask(table, known, headers);
    Object.assign(structs, result.structs);
    Object.assign(constants, result.constants);
    if (!table.whole) continue;
    const have = new Set(known.map(([name]) => name));
    const missing = namesIn(readFileSync(join(headers, table.header), 'utf8')).filter((name) => !have.has(name));
    unknown.push(...missing.filter((name) => !LEFT_OUT.some((pattern) => pattern.test(name))));
  }
  return { structs, constants, notInTables: unknown.sort() };
}

/** Names of structs, object-like macros with a value, and enumerators. */
function namesIn(header) {
  const text = header.replace(/\/\*[\s\S]*?\*\//g, '');
  const structs = [...text.matchAll(/^struct (\w+) \{/gm)].map((match) => match[1]);
  const macros = [...text.matchAll(/^[ \t]*#define[ \t]+(\w+)[ \t]+\S/gm)].map((match) => match[1]);
  const enumerators = [...text.matchAll(/^enum\b[^{]*\{([\s\S]*?)\}/gm)]
    .flatMap((match) => match[1].split(','))
    .map((item) => item.trim().split(/[\s=]/)[0])
    .filter((name) => name !== '');
  return [...new Set([...structs, ...macros, ...enumerators])];
}

/** Generates, compiles and runs one C program for one header. */
function ask(table, entries, headers) {
  const structs = entries.filter(([, value]) => Array.isArray(value?.layout));
  const numbers = entries.filter(([, value]) => typeof value === 'number' || typeof value === 'bigint');
  const source = join(cache, `facts-${table.header.replace(/\W/g, '-')}.c`);
  const program = source.replace(/\.c$/, '');
  writeFileSync(
    source,
    programFor(
      table,
      structs.map(([, struct]) => struct),
      numbers.map(([name]) => name),
    ),
  );
  const include = [join(headers), join(headers, `${table.architecture}-linux-gnu`)].flatMap((path) => ['-I', path]);
  run('gcc', ['-std=gnu11', '-w', ...include, source, '-o', program]);
  const facts = { structs: {}, constants: {} };
  for (const line of run(program, []).trim().split('\n')) {
    const [kind, name, ...rest] = line.split(' ');
    if (kind === 'struct') facts.structs[name] = { size: Number(rest[0]), align: Number(rest[1]), fields: {} };
    else if (kind === 'field')
      facts.structs[name].fields[rest[0]] = [Number(rest[1]), Number(rest[2]), ...(rest[3] === '1' ? ['signed'] : [])];
    else if (kind === 'constant')
      facts.constants[name] = Number.isSafeInteger(Number(rest[0])) ? Number(rest[0]) : rest[0];
  }
  return facts;
}

function programFor(table, structs, constants) {
  // The arm64 header counts in SZ_64K, which it leaves to its user.
  const lines = ['#include <stddef.h>', '#include <stdio.h>', '#define SZ_64K 0x10000', `#include <${table.header}>`];
  lines.push(
    '#define CONSTANT(x) printf((x) < 0 ? "constant " #x " %lld\\n" : "constant " #x " %llu\\n", (unsigned long long)(x))',
  );
  lines.push('#define STRUCT(s) printf("struct " #s " %zu %zu\\n", sizeof(struct s), _Alignof(struct s))');
  lines.push(
    '#define AT(s, f, size, sign) printf("field " #s " " #f " %zu %zu %d\\n", offsetof(struct s, f), (size_t)(size), (int)(sign))',
  );
  lines.push('#define OF(s, f) (((struct s *)0)->f)');
  lines.push('int main(void) {');
  for (const { name, layout } of structs) {
    lines.push(`STRUCT(${name});`);
    for (const { name: field, field: type } of layout) {
      if (type.kind === 'hole') continue;
      const size = type.kind === 'tail' ? `sizeof(OF(${name}, ${field})[0])` : `sizeof(OF(${name}, ${field}))`;
      const scalar = type.kind === 'scalar' || type.kind === 'overlay';
      lines.push(`AT(${name}, ${field}, ${size}, ${scalar ? `(__typeof__(OF(${name}, ${field})))-1 < 0` : '0'});`);
    }
  }
  lines.push(...constants.map((name) => `CONSTANT(${name});`), 'return 0; }', '');
  return lines.join('\n');
}

function run(command, args) {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  if (result.status === 0) return result.stdout;
  fail(
    `${command} ${args.join(' ')}: ${result.error?.message ?? `status ${result.status}`}\n${result.stdout}${result.stderr}`,
  );
}

/** The headers cannot be had here: neither current nor stale. */
function skip(message) {
  console.error(`uapi-facts: skipped: ${message}`);
  process.exit(77);
}

function fail(message) {
  console.error(`uapi-facts: ${message}`);
  process.exit(1);
}
