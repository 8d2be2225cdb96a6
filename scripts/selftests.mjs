// The kernel's own VFIO and iommufd selftests of Linux 7.2, sources untouched, run under `belfry exec`.
//
//   node scripts/selftests.mjs                    fetch, build, run, and write docs/selftests.md
//   node scripts/selftests.mjs --only NAME,…      these binaries only (docs/selftests.md stays as it is)
//   node scripts/selftests.mjs --build            fetch and build only
//   node scripts/selftests.mjs --verbose          every line that the binaries print
//
// Needs a Debian machine (x86-64) with apt-get, dpkg-deb, gcc, make, uuid-dev and libcap-dev. Nothing is installed: apt works on a private
// configuration in the cache folder, with the mirror that this machine is configured with.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const PACKAGE = 'linux-source-7.2';
const SUITES = ['sid', 'forky'];
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
  options: { build: { type: 'boolean' }, only: { type: 'string' }, verbose: { type: 'boolean' } },
});

await main();

async function main() {
  if (process.arch !== 'x64') fail('the selftests are built for x86-64 here, and this machine is not');
  mkdirSync(cache, { recursive: true });
  const version = fetchSource();
  build();
  if (options.build) return console.log(`${PACKAGE} ${version}: built in ${tests}`);
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
  const apt = privateApt();
  const updated = spawnSync('apt-get', [...apt, 'update'], { encoding: 'utf8' });
  if (updated.error) fail('apt-get is not here');
  console.log(`fetching ${PACKAGE} (some 150 MB) from the configured mirror`);
  const got = spawnSync('apt-get', [...apt, 'download', PACKAGE], { encoding: 'utf8', cwd: cache });
  if (got.status !== 0 || kept() === undefined)
    fail(`cannot download ${PACKAGE} from ${SUITES.join(' or ')}\n${updated.stderr}${got.stderr}`);
  return join(cache, kept());
}

/** Options that make apt use the configured mirror, other suites, and folders of its own. */
function privateApt() {
  const release = Object.fromEntries(
    readFileSync('/etc/os-release', 'utf8')
      .split('\n')
      .map((line) => line.split('='))
      .map(([key, value = '']) => [key, value.replaceAll('"', '')]),
  );
  const format = '$(REPO_URI)|$(RELEASE)|$(COMPONENT)';
  const targets = run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']);
  const mirror = targets.split('\n').find((line) => line.endsWith(`|${release.VERSION_CODENAME}|main`));
  if (release.ID !== 'debian' || mirror === undefined) fail('this machine has no Debian mirror configured');
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  const signed = existsSync(keyring) ? `[signed-by=${keyring}] ` : '';
  const apt = join(cache, 'apt');
  for (const folder of ['lists/partial', 'cache/archives/partial', 'state'])
    mkdirSync(join(apt, folder), { recursive: true });
  const sources = join(apt, 'sources.list');
  writeFileSync(sources, SUITES.map((suite) => `deb ${signed}${mirror.split('|')[0]} ${suite} main\n`).join(''));
  return [
    ['Dir::Etc::SourceList', sources],
    ['Dir::Etc::SourceParts', '/dev/null'],
    ['Dir::Etc::Preferences', '/dev/null'],
    ['Dir::Etc::PreferencesParts', '/dev/null'],
    ['Dir::State', join(apt, 'state')],
    ['Dir::State::status', '/var/lib/dpkg/status'],
    ['Dir::State::Lists', join(apt, 'lists')],
    ['Dir::Cache', join(apt, 'cache')],
    ['Acquire::Check-Valid-Until', 'false'],
    ['Acquire::Languages', 'none'],
    ['APT::Sandbox::User', userInfo().username],
  ].flatMap(([key, value]) => ['-o', `${key}=${value}`]);
}

function build() {
  const missing = [];
  for (const [header, name] of [
    ['uuid/uuid.h', 'uuid-dev'],
    ['sys/capability.h', 'libcap-dev'],
  ])
    if (!existsSync(join('/usr/include', header))) missing.push(name);
  for (const tool of ['gcc', 'make']) if (spawnSync(tool, ['--version']).error) missing.push(tool);
  if (missing.length > 0) fail(`missing: ${missing.join(', ')}; install with: apt-get install ${missing.join(' ')}`);
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

function fail(message) {
  console.error(`selftests: ${message}`);
  process.exit(1);
}
