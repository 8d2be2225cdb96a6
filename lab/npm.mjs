/** Packages of the npm registry for the guest's architecture, unpacked. npm checks their integrity. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory, made } from './cache.mjs';
import { run } from './command.mjs';
import { Skip } from './skip.mjs';

/** A tree with the package's files, for `name@range`: `{ path, name, version, integrity }`. */
export async function npmPackage(spec) {
  const known = resolve(spec);
  const label = `npm-${known.name.replace('/', '+')}-${known.version}`;
  const path = await made(label, (into) => {
    const tarballs = cacheDirectory('npm');
    const [packed] = JSON.parse(
      run('npm', ['pack', '--json', '--silent', '--pack-destination', tarballs, `${known.name}@${known.version}`]),
    );
    if (packed.integrity !== known.integrity) throw new Error(`${spec}: ${packed.integrity} is not ${known.integrity}`);
    run('tar', ['-xzf', join(tarballs, packed.filename), '-C', into, '--strip-components=1', '--no-same-owner']);
    rmSync(join(tarballs, packed.filename));
  });
  return { ...known, path };
}

/** The newest version in the range; asked once a day. */
function resolve(spec) {
  const day = new Date().toISOString().slice(0, 10);
  const answer = join(cacheDirectory('npm'), `${spec.replaceAll('/', '+')}-${day}.json`);
  if (existsSync(answer)) return JSON.parse(readFileSync(answer, 'utf8'));
  const found = ask(spec);
  writeFileSync(answer, JSON.stringify(found));
  return found;
}

function ask(spec) {
  let text;
  try {
    text = run('npm', ['view', spec, 'name', 'version', 'dist.integrity', '--json']);
  } catch (error) {
    throw new Skip(`the npm registry does not answer for ${spec}: ${error.message.split('\n').slice(0, 3).join(' ')}`);
  }
  const found = [JSON.parse(text)].flat();
  // The registry's order is not the versions'.
  found.sort((a, b) => a.version.localeCompare(b.version, 'en', { numeric: true }));
  const { name, version, 'dist.integrity': integrity } = found.at(-1);
  return { name, version, integrity };
}

/** The version of koffi that belfry itself is pinned to. */
export function koffiVersion(root) {
  return JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).optionalDependencies.koffi;
}
