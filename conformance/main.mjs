/** `npm run conformance`: the same cases on the simulated kernel and on real Linux. */
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { runInLab } from './lab-run.mjs';
import { PLATFORM_NAMES } from './platforms.mjs';
import { terminal, writePage } from './report.mjs';
import { runSimulated } from './sim.mjs';
import { allCases } from './suite.mjs';
import { judge, LARGEST_PART } from './verdict.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const KERNELS = ['sim', ...PLATFORM_NAMES];
const SKIPPED = 77;
const USAGE = `npm run conformance [-- [--kernel ${KERNELS.join('|')}]... [--case TEXT] [--json FILE] [--write]]

  Runs every case on each kernel that has what the case needs: on the simulated one, and on real Linux in the lab's machines.

  --kernel  only these; given once for each. Default: all
  --case    only cases whose name contains the text
  --json    every step of every case, as it was answered
  --write   writes the matrix into docs/conformance.md (all kernels, all cases)

  Exit status: 0 all as expected or explained; 1 an unexplained difference; 2 usage; 77 a kernel was skipped, and all others were as expected.`;

process.exitCode = await main();

async function main() {
  const options = parse();
  if (typeof options === 'number') return options;
  const runs = [];
  const skipped = [];
  for (const kernel of options.kernels) {
    if (kernel === 'sim') {
      for (const platform of PLATFORM_NAMES)
        runs.push({ kernel, platform, results: await runSimulated(platform, options.only) });
      continue;
    }
    const say = (line) => process.stderr.write(`${line}\n`);
    const { results, skipped: reason } = await runInLab(kernel, options.only, { say });
    if (results === undefined) skipped.push({ kernel, reason });
    else runs.push({ kernel, platform: kernel, results });
  }
  return conclude(options, runs, skipped);
}

function conclude(options, runs, skipped) {
  const complete = options.only === null && options.kernels.length === KERNELS.length && skipped.length === 0;
  const verdict = judge(allCases(), runs, { complete });
  const kernels = options.kernels.filter((kernel) => runs.some((run) => run.kernel === kernel));
  process.stdout.write(`${terminal(verdict, kernels, skipped)}\n`);
  if (options.json !== null) writeFileSync(options.json, `${JSON.stringify(runs, null, 1)}\n`);
  if (options.write && complete) writePage(join(root, 'docs/conformance.md'), verdict, KERNELS, '7.2');
  if (options.write && !complete) process.stdout.write('nothing is written: a kernel was skipped\n');
  const tooMany = verdict.explained.length > LARGEST_PART * allCases().length;
  if (tooMany) process.stdout.write(`more than ${LARGEST_PART * 100} % of the cases differ\n`);
  if (verdict.unexplained.length > 0 || verdict.gone.length > 0 || tooMany) return 1;
  return skipped.length > 0 ? SKIPPED : 0;
}

function parse() {
  try {
    const { values } = parseArgs({
      options: {
        kernel: { type: 'string', multiple: true, default: KERNELS },
        case: { type: 'string' },
        json: { type: 'string' },
        write: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    if (values.help) {
      process.stdout.write(`${USAGE}\n`);
      return 0;
    }
    const unknown = values.kernel.find((kernel) => !KERNELS.includes(kernel));
    if (unknown !== undefined) return usage(`--kernel ${unknown}: there are ${KERNELS.join(', ')}`);
    const kernels = [...new Set(values.kernel)];
    const only = values.case ?? null;
    if (values.write && (only !== null || kernels.length < KERNELS.length))
      return usage('--write needs all kernels and all cases');
    if (only !== null && !allCases().some(({ id }) => id.includes(only)))
      return usage(`--case ${only}: no case's name contains that`);
    if (values.json !== undefined) writeFileSync(values.json, '');
    return { kernels, only, json: values.json ?? null, write: values.write };
  } catch (error) {
    return usage(error.message);
  }
}

function usage(problem) {
  process.stderr.write(`conformance: ${problem}\n\n${USAGE}\n`);
  return 2;
}
