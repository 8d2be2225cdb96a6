// Makes a fresh clone ready: installs what package-lock.json pins, when it is not installed yet, and builds dist/.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const [major] = process.versions.node.split('.').map(Number);
if (major < 20) {
  console.error(`belfry needs Node.js 20 or newer; this is ${process.version}`);
  process.exit(1);
}

const stamp = join(root, 'node_modules', '.belfry-installed');
const wanted = createHash('sha256')
  .update(readFileSync(join(root, 'package-lock.json')))
  .digest('hex');
const installed = existsSync(stamp) ? readFileSync(stamp, 'utf8') : '';
if (installed !== wanted) {
  // Not `npm ci`: it refuses a lock file that lacks optional packages of other platforms which a mirror does not have.
  // This installs what the lock file says too, checks it against its hashes, and leaves the file alone.
  run('npm', ['install', '--no-save', '--ignore-scripts', '--no-fund', '--no-audit', '--loglevel=error']);
  writeFileSync(stamp, wanted);
}
run(process.execPath, [
  join(root, 'node_modules', 'typescript', 'bin', 'tsc'),
  '-p',
  join(root, 'tsconfig.build.json'),
]);

prune();

/** Removes what an earlier build left in dist/ and this one does not make: files whose source is gone, or is a test's. */
function prune() {
  const dist = join(root, 'dist');
  for (const name of readdirSync(dist, { recursive: true })) {
    const source = /^(.*)\.(?:d\.ts|js)$/.exec(name)?.[1];
    if (source === undefined) continue;
    const forTests = /(?:^|[\\/])(?:testing[\\/]|testing$|test-(?:context|host|requests|vm)$)|-fixture$|\.test$/.test(
      source,
    );
    if (forTests || !existsSync(join(root, 'src', `${source}.ts`))) rmSync(join(dist, name), { force: true });
  }
}

/** Runs one command with its output on standard error, so that standard output stays the program's own. */
function run(command, args) {
  const shell = process.platform === 'win32' && command === 'npm';
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], shell });
  if (result.status !== 0) {
    console.error(`setup: ${command} ${args.join(' ')} ended with status ${result.status ?? result.error?.message}`);
    process.exit(1);
  }
}
