/** The cases on real Linux: boots the lab's machine, whose guest runs them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const SKIPPED = 77;

/** `{ results }`, or `{ skipped: reason }`. @throws Error when the guest did not come to its end */
export async function runInLab(name, only, { say }) {
  const script = ['conformance/guest.mjs', name, ...(only === null ? [] : [only])];
  const words = ['lab/run.mjs', name, '--kernel', 'lab', '--timeout', '600', '--', ...script];
  const child = spawn(process.execPath, words, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  const results = [];
  const told = [];
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (line.startsWith('{')) results.push(JSON.parse(line));
    else told.push(line);
  });
  createInterface({ input: child.stderr }).on('line', (line) => {
    told.push(line);
    say(line);
  });
  const [status] = await once(child, 'close');
  if (status === SKIPPED) return { skipped: told.at(-1) ?? 'the lab gave no reason' };
  if (status !== 0) throw new Error(`the lab ended with status ${status}: ${told.slice(-5).join('\n')}`);
  return { results };
}
