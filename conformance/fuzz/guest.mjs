/**
 * In the lab's guest: `guest.mjs`, with a batch beside it: `{ unsafe, programs: [{ program, answers }] }`. Runs each program and prints the answers of those that
 * answered something else than is written there, one JSON line for each; and how far it is.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LinuxKernel } from 'belfry/linux';
import { allowUnsafe, Executor } from './execute.mjs';

const EVERY = 100;
const batch = JSON.parse(readFileSync(join(dirname(fileURLToPath(import.meta.url)), 'batch.json'), 'utf8'));
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const kernel = await LinuxKernel.load();
if (batch.unsafe) allowUnsafe(kernel);
const executor = new Executor(kernel);
for (const [index, { program, answers }] of batch.programs.entries()) {
  const got = executor.run(program);
  if (JSON.stringify(got) !== JSON.stringify(answers)) print({ index, answers: got });
  if ((index + 1) % EVERY === 0) print({ done: index + 1, calls: executor.calls });
}
print({ done: batch.programs.length, calls: executor.calls });
process.exit(0);
