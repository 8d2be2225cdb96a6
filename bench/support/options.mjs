/** The command line of the benchmark. */
import { parseArgs } from 'node:util';

const USAGE = `usage: npm run bench -- [options]

  --quick      few rounds: a look, not a measurement (about a minute)
  --only NAME  one of the parts, or of the cases of a part; may be given more than once
  --json       everything as JSON on standard output
  --list       the parts and their cases
`;

/** @returns the options, or null after printing the usage (then the exit status is set). */
export function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
        only: { type: 'string', multiple: true, default: [] },
      },
    });
    if (!values.help) return values;
    process.stdout.write(USAGE);
  } catch (error) {
    process.stderr.write(`bench: ${error.message}\n${USAGE}`);
    process.exitCode = 2;
  }
  return null;
}
