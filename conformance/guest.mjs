/** The cases on real Linux, in the lab's guest: `guest.mjs PLATFORM [PART-OF-A-NAME]`; one JSON line for each. */
import { LinuxKernel } from 'belfry/linux';
import { PLATFORMS } from './platforms.mjs';
import { runCases } from './run-cases.mjs';

const [name, only = null] = process.argv.slice(2);
const kernel = await LinuxKernel.load();
await runCases(kernel, PLATFORMS[name], {
  only,
  done: (result) => process.stdout.write(`${JSON.stringify(result)}\n`),
});
process.exit(0);
