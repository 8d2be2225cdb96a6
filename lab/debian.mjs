/**
 * Packages of Debian unstable, without installing any: apt with a configuration, lists and cache of its own. apt checks the
 * archive's signature and each package's hash; nothing of the system is touched, and no rights are needed.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory, made } from './cache.mjs';
import { run, which } from './command.mjs';
import { Skip } from './skip.mjs';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const SUITE = 'sid';

export class Debian {
  /** @throws Skip where apt, dpkg or Debian's keys are missing */
  static open() {
    for (const name of ['apt-get', 'apt-cache', 'dpkg-deb']) {
      if (which(name) === null) throw new Skip(`the lab unpacks Debian packages, and ${name} is not here`);
    }
    if (!existsSync(KEYRING)) throw new Skip(`${KEYRING} is not here: install debian-archive-keyring`);
    return new Debian();
  }

  constructor() {
    this.root = cacheDirectory('apt');
    const directories = ['etc/preferences.d', 'etc/parts', 'state/lists/partial', 'cache/archives/partial', 'dpkg'];
    for (const directory of directories) mkdirSync(join(this.root, directory), { recursive: true });
    const sources = `deb [signed-by=${KEYRING}] ${mirror()} ${SUITE} main\n`;
    writeFileSync(join(this.root, 'etc/sources.list'), sources);
    writeFileSync(join(this.root, 'dpkg/status'), '');
    const configuration = join(this.root, 'etc/apt.conf');
    writeFileSync(configuration, this.#configuration());
    this.environment = { ...process.env, APT_CONFIG: configuration, LC_ALL: 'C' };
  }

  /** Fetches the lists; once a day is enough. */
  update({ force = false } = {}) {
    const stamp = join(this.root, `updated-${today()}`);
    if (!force && existsSync(stamp)) return;
    try {
      // Without this apt calls it a success when nothing came.
      run('apt-get', ['update', '-q', '-o', 'APT::Update::Error-Mode=any'], { env: this.environment });
    } catch (error) {
      // Yesterday's lists do, when the network does not.
      if (readdirSync(join(this.root, 'state/lists')).some((name) => name.endsWith('_Packages'))) return;
      throw new Skip(`Debian's package lists cannot be fetched: ${error.message}`);
    }
    writeFileSync(stamp, '');
  }

  /** `Depends` of a package, by name. */
  depends(name) {
    const options = ['depends', '--no-recommends', '--no-suggests', '--no-conflicts', '--no-breaks', '--no-replaces'];
    const text = this.#ask([...options, '--no-enhances', name]);
    return [...text.matchAll(/^\s+\|?Depends: (\S+)$/gm)].map(([, found]) => found);
  }

  /** The version that would be downloaded, or null. */
  version(name) {
    const text = this.#ask(['policy', name]);
    const found = /Candidate: (\S+)/.exec(text)?.[1] ?? '(none)';
    return found === '(none)' ? null : found;
  }

  /** A tree with just these packages unpacked: `{ path, versions }`. */
  async unpack(label, names) {
    const versions = names.map((name) => `${name}=${this.#known(name)}`);
    const path = await made(`${label}-${versions.map(short).join('+')}`.slice(0, 200), (into) => {
      const debs = cacheDirectory('apt', 'debs');
      const before = new Set(readdirSync(debs));
      run('apt-get', ['download', '-q', ...versions], { env: this.environment, cwd: debs });
      const wanted = names.map((name) => debFile(debs, name, this.#known(name), before));
      for (const file of wanted) {
        run('dpkg-deb', ['-x', join(debs, file), into]);
        rmSync(join(debs, file));
      }
    });
    return { path, versions };
  }

  /** A tree with these packages and all that they depend on. */
  async unpackWithDependencies(label, names) {
    const versions = names.map((name) => `${name}=${this.#known(name)}`);
    return made(`${label}-${versions.map(short).join('+')}`.slice(0, 200), (into) => {
      // A directory of their own: all that lies in it in the end belongs to it.
      const archives = join(into, '.archives');
      mkdirSync(join(archives, 'partial'), { recursive: true });
      const place = ['-o', `Dir::Cache::archives=${archives}/`];
      run('apt-get', ['install', '-y', '-q', '--download-only', ...place, ...versions], { env: this.environment });
      for (const file of readdirSync(archives).filter((name) => name.endsWith('.deb'))) {
        run('dpkg-deb', ['-x', join(archives, file), into]);
      }
      rmSync(archives, { recursive: true });
    });
  }

  /** apt-cache's answer, kept for the day: it reads tens of megabytes each time. */
  #ask(args) {
    const path = join(this.root, `answers-${today()}.json`);
    const answers = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {};
    const question = args.join(' ');
    if (answers[question] === undefined) {
      answers[question] = run('apt-cache', args, { env: this.environment });
      writeFileSync(path, JSON.stringify(answers));
    }
    return answers[question];
  }

  #known(name) {
    const version = this.version(name);
    if (version === null) throw new Skip(`Debian ${SUITE} has no package ${name}`);
    return version;
  }

  #configuration() {
    return [
      `Dir "${this.root}/";`,
      'Dir::Etc "etc/";',
      'Dir::Etc::sourcelist "sources.list";',
      'Dir::Etc::sourceparts "parts";',
      'Dir::Etc::parts "parts";',
      'Dir::State "state/";',
      `Dir::State::status "${this.root}/dpkg/status";`,
      'Dir::Cache "cache/";',
      // The guest's packages, and QEMU of this machine.
      'APT::Architectures { "amd64"; "arm64"; };',
      `APT::Architecture "${hostArchitecture()}";`,
      'APT::Install-Recommends "false";',
      'APT::Sandbox::User "root";',
      'Acquire::Languages "none";',
      // A mirror may be older than its Release file allows; the signature still holds.
      'Acquire::Check-Valid-Until "false";',
      'Acquire::Retries "3";',
      '',
    ].join('\n');
  }
}

export const hostArchitecture = () => (process.arch === 'arm64' ? 'arm64' : 'amd64');

/** Debian's mirror as this machine is set up; BELFRY_LAB_MIRROR overrides it. */
function mirror() {
  if (process.env.BELFRY_LAB_MIRROR) return process.env.BELFRY_LAB_MIRROR;
  const format = '$(REPO_URI) $(SIGNED_BY) $(CODENAME)';
  const lines = run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']).split('\n');
  const debian = lines.find((line) => /\/debian\/? /.test(line) && !line.includes('security'));
  if (debian === undefined) throw new Skip('no Debian mirror is configured on this machine: set BELFRY_LAB_MIRROR');
  return debian.split(' ')[0];
}

const today = () => new Date().toISOString().slice(0, 10);
const short = (version) => version.replace(/[:=~]/g, '_');

function debFile(directory, name, version, before) {
  const [plain, architecture] = name.split(':');
  const prefix = `${plain}_${version.replaceAll(':', '%3a')}_`;
  const fits = (file) => file.startsWith(prefix) && (architecture === undefined || file.includes(`_${architecture}.`));
  const files = readdirSync(directory).filter(fits);
  const file = files.find((candidate) => !before.has(candidate)) ?? files[0];
  if (file === undefined) throw new Error(`apt-get download ${name}: no file ${prefix}*.deb appeared`);
  return file;
}
