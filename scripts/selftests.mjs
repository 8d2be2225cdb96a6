// The kernel's own VFIO and iommufd selftests of Linux 7.2, sources untouched, run under `belfry exec`.
//
//   node scripts/selftests.mjs                    fetch, build, run, and write docs/selftests.md
//   node scripts/selftests.mjs --only NAME,…      these binaries only (docs/selftests.md stays as it is)
//   node scripts/selftests.mjs --build            fetch and build only
//   node scripts/selftests.mjs --verbose          every line that the binaries print
//   node scripts/selftests.mjs --strict           exit status 1 when a case failed
//   node scripts/selftests.mjs --main FILE        another build of the command than dist/cli/main.js
//
// Exit status 77 means skipped: what is needed cannot be had here, and the last line says what.
// Needs a Debian machine (x86-64) with apt-get, dpkg-deb, gcc, make, uuid-dev and libcap-dev. Nothing is installed: apt works on a private
// configuration in the cache folder, with the mirror that this machine is configured with.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { privateApt, SUITES } from './private-apt.mjs';

const PACKAGE = 'linux-source-7.2';
const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'belfry', 'selftests');
const tree = join(cache, PACKAGE);
const tests = join(tree, 'tools', 'testing', 'selftests');

/** What of the kernel's tree the selftests and its user-space headers are made from. */
const MEMBERS = [
  'Makefile',
  'Kbuild',
  'Kconfig',
  'arch/x86',
  'include',
  'scripts',
  'tools/arch',
  'tools/build',
  'tools/include',
];
MEMBERS.push(
  'tools/lib',
  'tools/scripts',
  'tools/testing/selftests',
  'usr/include',
  'lib/vdso',
  'drivers/dma/ioat',
  'drivers/dma/idxd',
  'drivers/iommu/iommufd',
);

const { values: options } = parseArgs({
  options: {
    build: { type: 'boolean' },
    only: { type: 'string' },
    verbose: { type: 'boolean' },
    strict: { type: 'boolean' },
    main: { type: 'string' },
  },
});

/** The binaries, how many cases each has in 7.2, and the device that it is given. */
const BINARIES = [
  { name: 'vfio/vfio_iommufd_setup_test', cases: 6 },
  { name: 'vfio/vfio_pci_device_test', cases: 5 },
  { name: 'vfio/vfio_dma_mapping_test', cases: 30 },
  { name: 'vfio/vfio_dma_mapping_mmio_test', cases: 15 },
  { name: 'vfio/vfio_pci_device_init_perf_test', cases: 5 },
  {
    name: 'vfio/vfio_pci_sriov_uapi_test',
    cases: 45,
    device: 'bell,vfs=4',
    before: 'echo Y > /sys/module/vfio_pci/parameters/enable_sriov',
  },
  {
    name: 'vfio/vfio_pci_driver_test',
    cases: 35,
    // Its storm copies 65,535 times as much as the device moves at once, within 60 s: 4 GiB instead of 64 GiB.
    device: 'ioat,xfercap=16',
  },
  { name: 'iommu/iommufd', cases: 246, mock: true },
  { name: 'iommu/iommufd_fail_nth', cases: 8 },
];
const BDF = '0000:01:00.0';
/** Huge pages that the binaries' cases take at once, by their kB: 128 MiB and its alignment, and one of 1 GiB. */
const HUGE_PAGES = { 2048: 80, 1048576: 1 };
/** What a case says when its mmap of huge pages failed. */
const NO_HUGE_PAGES = /Expected MAP_FAILED \(\d+\) != \w+|Assertion `vrc == self->buffer' failed/;
/** A binary that hangs is ended after so long: the harness itself gives each case 30 s. */
const TIMEOUT = 300_000;

const STATES = ['passed', 'passed on the mock', 'failed', 'skipped'];
const number = (cases, state) => cases.filter((each) => each.state === state).length;
const countsOf = (cases) => STATES.map((state) => `${number(cases, state)} ${state}`).join(', ');

await main();

async function main() {
  if (process.arch !== 'x64') skip('the selftests are built for x86-64 here, and this machine is not');
  mkdirSync(cache, { recursive: true });
  const version = fetchSource();
  build();
  if (options.build) return console.log(`${PACKAGE} ${version}: built in ${tests}`);
  const only = options.only?.split(',');
  const wanted = BINARIES.filter(({ name }) => only === undefined || only.some((part) => name.endsWith(part)));
  const huge = reserveHugePages();
  const results = wanted.map(runBinary);
  huge.giveBack();
  for (const result of results) console.log(`${result.name}: ${countsOf(result.cases)}`);
  const all = results.flatMap(({ cases }) => cases);
  console.log(`total: ${countsOf(all)}`);
  if (only === undefined) writeFileSync(join(root, 'docs', 'selftests.md'), report(version, results));
  const expected = all.filter(({ state }) => state === 'failed').length;
  process.exitCode = options.strict && expected > 0 ? 1 : 0;
}

/** Runs one binary; its cases by name and state. Those that a binary did not come to have failed. */
function runBinary({ name, cases, device = 'bell', before, mock = false }) {
  const main = options.main ?? join(root, 'dist', 'cli', 'main.js');
  const program = join(tests, name);
  const argv = [program, ...(name.startsWith('vfio/') ? [BDF] : [])];
  // What an administrator does first is done on the simulated host, by a shell that then becomes the binary.
  // Its standard error carries why a case failed, and belongs between the cases.
  const command = ['sh', '-c', `${before === undefined ? '' : `${before}; `}exec "$0" "$@" 2>&1`, ...argv];
  const test = mock ? ['--iommufd-test'] : [];
  const args = [main, 'exec', '--quiet', '--device', device, ...test, '--', ...command];
  const short = hugePagesShort();
  const started = Date.now();
  const result = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    timeout: TIMEOUT,
    maxBuffer: 256 << 20,
    cwd: cache,
  });
  if (options.verbose) console.log(`${result.stdout}${result.stderr}`);
  const seen = casesOf(result.stdout, mock, short ?? hugePagesShort());
  const missing = Math.max(0, cases - seen.length);
  const why = `the binary ended before them (status ${result.status ?? result.signal})`;
  const rest = Array.from({ length: missing }, () => ({ test: '', state: 'failed', why }));
  return { name, device, seconds: (Date.now() - started) / 1000, cases: [...seen, ...rest] };
}

/** The cases in what a binary printed. A case whose mmap of huge pages failed on a machine that is short of them was not examined. */
function casesOf(output, mock, short) {
  const cases = [];
  let said = '';
  for (const line of output.split('\n')) {
    const found = /^(ok|not ok) \d+ (\S+)(?: # SKIP (.*))?$/.exec(line);
    if (found === null) {
      said += `${line}\n`;
      continue;
    }
    const [, verdict, test, skipped] = found;
    const why = skipped ?? (verdict !== 'ok' && short !== null && NO_HUGE_PAGES.test(said) ? short : undefined);
    const state = why !== undefined ? 'skipped' : verdict !== 'ok' ? 'failed' : mock ? 'passed on the mock' : 'passed';
    cases.push({ test, state, why: why ?? '' });
    said = '';
  }
  return cases;
}

/** The cases with huge pages take them from the machine: where it lets us, they are reserved for the time of the run. */
function reserveHugePages() {
  const before = [];
  const giveBack = () => {
    for (const { file, old } of before.splice(0)) writeFileSync(file, old);
  };
  for (const [size, wanted] of Object.entries(HUGE_PAGES)) {
    const missing = wanted - hugePages(size, 'free_hugepages');
    if (missing <= 0) continue;
    const file = hugePageFile(size, 'nr_hugepages');
    const old = String(hugePages(size, 'nr_hugepages'));
    try {
      writeFileSync(file, String(Number(old) + missing));
      before.push({ file, old });
    } catch {
      // Not ours to set: what is there is what there is.
    }
  }
  process.once('exit', giveBack);
  return { giveBack };
}

/** Why mmap with MAP_HUGETLB fails here now; null: it need not. */
function hugePagesShort() {
  const wanted = HUGE_PAGES[2048];
  const free = hugePages(2048, 'free_hugepages');
  if (free >= wanted) return null;
  return `mmap with MAP_HUGETLB failed: the machine has ${free} free huge pages of 2 MiB, and the cases take up to ${wanted}`;
}

function hugePageFile(size, name) {
  return `/sys/kernel/mm/hugepages/hugepages-${size}kB/${name}`;
}

function hugePages(size, name) {
  const file = hugePageFile(size, name);
  return existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
}

function report(version, results) {
  const all = results.flatMap(({ cases }) => cases);
  const row = (label, cases) =>
    `| ${label} | ${STATES.map((state) => number(cases, state)).join(' | ')} | ${cases.length} |`;
  const lines = [
    "# The kernel's own selftests",
    '',
    `The VFIO and iommufd selftests of Linux 7.2 (\`${PACKAGE}\` ${version}, sources untouched), run under \`belfry exec\` on the simulated host`,
    '`arm-its`. This page is written by `npm run selftests`, which fetches, builds and runs them.',
    '',
    '*Passed on the mock*: the binary drives mock devices through IOMMU_TEST_CMD, which a kernel has with CONFIG_IOMMUFD_TEST and belfry with',
    '`--iommufd-test`; what it examines is the iommufd of the simulated kernel. *Failed* includes requests that are not built.',
    '*Skipped* is what the binary itself skips on this machine, and what needs huge pages that the machine does not have.',
    '',
    '| Binary | Passed | Passed on the mock | Failed | Skipped | Cases |',
    '|---|---:|---:|---:|---:|---:|',
    ...results.map(({ name, cases }) => row(`\`${name}\``, cases)),
    row('**Total**', all),
    '',
  ];
  for (const state of ['failed', 'skipped']) {
    const some = all.filter((each) => each.state === state);
    if (some.length === 0) continue;
    lines.push(`## ${state[0].toUpperCase()}${state.slice(1)}`, '');
    for (const { name, cases } of results) {
      const groups = new Map();
      for (const { test, why } of cases.filter((each) => each.state === state))
        groups.set(why, [...(groups.get(why) ?? []), test]);
      for (const [why, names] of groups) {
        const list = names.filter((each) => each !== '').map((each) => `\`${each}\``);
        const cases = list.length > 0 ? `: ${list.join(', ')}` : '';
        lines.push(`- \`${name}\`: ${names.length} ${why === '' ? '' : `(${why})`}${cases}`.replace(/ +:/, ':'));
      }
    }
    lines.push('');
  }
  return lines.join('\n');
}

/** Unpacks the package's tree in the cache folder, once. Answers its version. */
function fetchSource() {
  const stamp = join(tree, '.version');
  if (existsSync(stamp)) return readFileSync(stamp, 'utf8').trim();
  const deb = debFile();
  const version = run('dpkg-deb', ['-f', deb, 'Version']).trim();
  console.log(`unpacking ${PACKAGE} ${version}`);
  run('dpkg-deb', ['-x', deb, join(cache, 'deb')]);
  const archive = join(cache, 'deb', 'usr', 'src', `${PACKAGE}.tar.xz`);
  run('tar', ['-xJf', archive, '-C', cache, ...MEMBERS.map((member) => `${PACKAGE}/${member}`)]);
  writeFileSync(stamp, `${version}\n`);
  return version;
}

function debFile() {
  const kept = () => readdirSync(cache).find((name) => name.startsWith(`${PACKAGE}_`) && name.endsWith('.deb'));
  if (kept() !== undefined) return join(cache, kept());
  const apt = privateApt(cache);
  if (apt === null) skip('this machine has no Debian mirror configured');
  const updated = spawnSync('apt-get', [...apt, 'update'], { encoding: 'utf8' });
  if (updated.error) skip('apt-get is not here');
  console.log(`fetching ${PACKAGE} (some 150 MB) from the configured mirror`);
  const got = spawnSync('apt-get', [...apt, 'download', PACKAGE], { encoding: 'utf8', cwd: cache });
  if (got.status !== 0 || kept() === undefined)
    skip(`cannot download ${PACKAGE} from ${SUITES.join(' or ')}\n${updated.stderr}${got.stderr}`);
  return join(cache, kept());
}

function build() {
  const missing = [];
  for (const [header, name] of [
    ['uuid/uuid.h', 'uuid-dev'],
    ['sys/capability.h', 'libcap-dev'],
  ])
    if (!existsSync(join('/usr/include', header))) missing.push(name);
  for (const tool of ['gcc', 'make']) if (spawnSync(tool, ['--version']).error) missing.push(tool);
  if (missing.length > 0) skip(`missing: ${missing.join(', ')}; install with: apt-get install ${missing.join(' ')}`);
  if (!existsSync(join(tree, 'usr', 'include', 'linux', 'vfio.h')))
    run('make', ['-C', tree, 'headers', 'ARCH=x86', '-j2']);
  // lib/vfio_pci_device.c of 7.2 calls calloc_assert(), which is defined nowhere in the tree.
  run('make', ['-C', join(tests, 'vfio'), 'EXTRA_CFLAGS=-Dcalloc_assert=calloc', '-j2']);
  run('make', ['-C', join(tests, 'iommu'), '-j2']);
}

function run(command, args) {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  if (result.status === 0) return result.stdout;
  fail(
    `${command} ${args.join(' ')}: ${result.error?.message ?? `status ${result.status}`}\n${result.stdout}${result.stderr}`,
  );
}

/** Something that the selftests need cannot be had here: neither passed nor failed. */
function skip(message) {
  console.error(`selftests: skipped: ${message}`);
  process.exit(77);
}

function fail(message) {
  console.error(`selftests: ${message}`);
  process.exit(1);
}
