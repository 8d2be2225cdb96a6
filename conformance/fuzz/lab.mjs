/** Batches of programs on real Linux: one boot of the lab's machine for each. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../..');
const SKIPPED = 77;
/** Milliseconds. The slowest program takes a few seconds; the guest's start is among them. */
const SILENCE = 150_000;

/**
 * @param batch `{ program, answers }[]`, the answers of the simulated kernel
 * @returns `{ differences: [{ index, answers }], done, calls }` — `done` is less than the batch when the guest died —, or `{ skipped: reason }`
 */
export async function runBatch(name, batch, { unsafe, trace = false, say }) {
  // The lab puts the directory of a script into the guest; below node_modules it is nobody's to keep.
  const home = join(root, 'node_modules/.cache/belfry-fuzz');
  mkdirSync(home, { recursive: true });
  const directory = mkdtempSync(join(home, 'batch-'));
  try {
    for (const file of ['guest.mjs', 'execute.mjs']) copyFileSync(join(here, file), join(directory, file));
    writeFileSync(join(directory, 'batch.json'), JSON.stringify({ unsafe, trace, programs: batch }));
    return await boot(name, join(directory, 'guest.mjs'), { say });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function boot(name, script, { say }) {
  const words = ['lab/run.mjs', name, '--kernel', 'lab', '--timeout', '3600', '--', script];
  const child = spawn(process.execPath, words, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const found = { differences: [], done: 0, calls: 0 };
  const watch = watchdog(child);
  const told = [];
  createInterface({ input: child.stdout }).on('line', (line) => {
    watch.refresh();
    const record = parsed(line);
    if (record === null) told.push(line);
    else if (record.answers !== undefined) found.differences.push(record);
    else Object.assign(found, record);
  });
  createInterface({ input: child.stderr }).on('line', (line) => {
    told.push(line);
    say(line);
  });
  const [status] = await once(child, 'close');
  clearTimeout(watch);
  if (status === SKIPPED) return { skipped: told.at(-1) ?? 'the lab gave no reason' };
  if (status !== 0) found.problem = `the lab ended with status ${status}: ${told.slice(-8).join('\n')}`;
  return found;
}

/** Ends the machine when the guest says nothing any more: a call that waits for ever. The lab is the leader of its own group, which QEMU is in. */
const watchdog = ({ pid }) => setTimeout(() => process.kill(-pid, 'SIGKILL'), SILENCE);

/** A line of the guest's program, or null: the kernel writes to the same console. */
function parsed(line) {
  if (!line.startsWith('{')) return null;
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
