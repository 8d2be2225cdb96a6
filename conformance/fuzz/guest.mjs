/**
 * In the lab's guest: `guest.mjs`, with a batch beside it: `{ unsafe, programs: [{ program, answers }] }`. Runs each program and prints the answers of those that
 * answered something else than is written there, one JSON line for each; and how far it is.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LinuxKernel } from 'belfry/linux';
import { allowUnsafe, Executor } from './execute.mjs';

const batch = JSON.parse(readFileSync(join(dirname(fileURLToPath(import.meta.url)), 'batch.json'), 'utf8'));
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const kernel = await LinuxKernel.load();
if (batch.unsafe) allowUnsafe(kernel);
const executor = new Executor(kernel);
// Where a program ends its kernel, or waits for ever, the last line says which call it was.
if (batch.trace) executor.before = (call) => print({ making: call });
for (const [index, { program, answers }] of batch.programs.entries()) {
  const got = executor.run(program);
  if (JSON.stringify(got) !== JSON.stringify(answers)) print({ index, answers: got });
  print({ done: index + 1, calls: executor.calls });
}
process.exit(0);
