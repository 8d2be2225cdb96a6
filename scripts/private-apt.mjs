// Debian packages by name, without installing them: apt on a private configuration, with the mirror that this machine is configured with.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';

/** Where the packages of Linux 7.2 are. */
export const SUITES = ['sid', 'forky'];

/** Options that make apt use the configured mirror, {@link SUITES}, and folders below `cache`. null: no Debian mirror is configured here. */
export function privateApt(cache) {
  const mirror = configuredMirror();
  if (mirror === null) return null;
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  const signed = existsSync(keyring) ? `[signed-by=${keyring}] ` : '';
  const apt = join(cache, 'apt');
  for (const folder of ['lists/partial', 'cache/archives/partial', 'state'])
    mkdirSync(join(apt, folder), { recursive: true });
  const sources = join(apt, 'sources.list');
  writeFileSync(sources, SUITES.map((suite) => `deb ${signed}${mirror} ${suite} main\n`).join(''));
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

function configuredMirror() {
  if (!existsSync('/etc/os-release')) return null;
  const release = Object.fromEntries(
    readFileSync('/etc/os-release', 'utf8')
      .split('\n')
      .map((line) => line.split('='))
      .map(([key, value = '']) => [key, value.replaceAll('"', '')]),
  );
  const format = '$(REPO_URI)|$(RELEASE)|$(COMPONENT)';
  const listed = spawnSync('apt-get', ['indextargets', '--format', format, 'Created-By: Packages'], {
    encoding: 'utf8',
  });
  const main = (listed.stdout ?? '').split('\n').find((line) => line.endsWith(`|${release.VERSION_CODENAME}|main`));
  return release.ID === 'debian' && main !== undefined ? main.split('|')[0] : null;
}
