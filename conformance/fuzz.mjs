/** `npm run fuzz`: random programs on the simulated kernel and on real Linux, the first difference shrunk. */
import { parseArgs } from 'node:util';
import { generate } from './fuzz/generate.mjs';
import { KNOWN, reasonFor } from './fuzz/known.mjs';
import { runBatch } from './fuzz/lab.mjs';
import { shown } from './fuzz/show.mjs';
import { firstDifference, shrink } from './fuzz/shrink.mjs';
import { needsUnsafe, simulate } from './fuzz/simulate.mjs';
import { PLATFORM_NAMES, PLATFORMS } from './platforms.mjs';

const SKIPPED = 77;
/** A run of this many calls on one machine meets every known reason. */
const LONG = 50_000;
const USAGE = `npm run fuzz [-- [--kernel ${PLATFORM_NAMES.join('|')}]... [--calls N] [--seed N] [--batch N] [--length N] [--all] [--no-shrink]]

  Runs random programs on the simulated kernel and, in batches, on real Linux in the lab's machines, and compares what each call answers.

  --kernel     only these machines; given once for each. Default: all
  --calls      calls on each machine. Default: 100000
  --seed       the first seed of the programs; a run prints it. Default: 20261122; \`random\` takes a new one
  --batch      calls for one boot of a machine. Default: 20000
  --length     calls of the longest program behind its beginning. Default: 120
  --all        goes on after a difference: each kind of difference is shown once
  --no-shrink  shows a difference as it was found

  Exit status: 0 no difference that is not known; 1 a difference, or a known one that is gone; 2 usage; 77 a machine was skipped.`;

const say = (line) => process.stderr.write(`${line}\n`);
const print = (line) => process.stdout.write(`${line}\n`);

process.exitCode = await main();

async function main() {
  const options = parse();
  if (typeof options === 'number') return options;
  const totals = [];
  for (const kernel of options.kernels) totals.push(await onKernel(kernel, options));
  return conclude(totals, options);
}

async function onKernel(kernel, options) {
  const total = {
    kernel,
    calls: 0,
    programs: 0,
    seconds: 0,
    met: new Map(),
    kinds: new Map(),
    skipped: null,
    died: false,
  };
  const began = Date.now();
  for (let seed = options.seed; total.calls < options.calls && !ended(total, options); seed += 1000) {
    // One call in six is of a descriptor that is closed by then, and not made.
    const wanted = Math.min(options.batch, Math.ceil((options.calls - total.calls) * 1.25));
    await oneBatch(kernel, { ...options, seed, wanted }, total);
  }
  total.seconds = (Date.now() - began) / 1000;
  return total;
}

/** A guest that died is looked at before another is started. */
function ended({ skipped, died, kinds }, { all }) {
  return skipped !== null || died || (kinds.size > 0 && !all);
}

async function oneBatch(kernel, { seed, wanted, length, ...options }, total) {
  const programs = generate(PLATFORMS[kernel], { seed, calls: wanted, most: length });
  const { batch } = simulate(kernel, programs);
  const result = await runBatch(kernel, batch, { unsafe: needsUnsafe(kernel), say });
  if (result.skipped !== undefined) {
    total.skipped = result.skipped;
    return;
  }
  total.calls += result.calls;
  total.programs += result.done;
  say(
    `fuzz: ${kernel}, seed ${seed}: ${result.done} programs, ${result.calls} calls, ${result.differences.length} with a difference`,
  );
  for (const { index, answers } of result.differences)
    await judge(kernel, { ...options, seed, index, batch, answers }, total);
  if (result.done < batch.length) {
    total.died = true;
    total.kinds.set('the guest died', 1);
    print(
      `${kernel}, seed ${seed}: the guest ended behind program ${result.done} of ${batch.length}: ${result.problem}`,
    );
  }
}

async function judge(kernel, { all, shrinks, seed, index, batch, answers }, total) {
  const { program, answers: sim } = batch[index];
  const { at } = firstDifference(sim, answers);
  const difference = { call: program[at], program, at, sim: sim[at], linux: answers[at] };
  const reason = reasonFor(kernel, difference);
  if (reason !== null) {
    total.met.set(reason.name, (total.met.get(reason.name) ?? 0) + 1);
    return;
  }
  const kind = `${difference.call.request ?? difference.call.op}: ${first(difference.sim)}, ${first(difference.linux)}`;
  const times = total.kinds.get(kind) ?? 0;
  total.kinds.set(kind, times + 1);
  if (times > 0 || (total.kinds.size > 1 && !all)) return;
  const run = (programs) => both(kernel, programs);
  const small = shrinks ? await shrink(program, run, { say: (text) => say(`fuzz: shrunk to ${text}`) }) : null;
  const whole = { program: program.slice(0, at + 1), sim: sim.slice(0, at + 1), linux: answers.slice(0, at + 1) };
  print(shown({ kernel, seed, index, ...(small ?? whole), alone: small !== null || !shrinks }));
}

function first(answer) {
  return (answer ?? 'not made').split(' ')[0];
}

/** The answers of both kernels. What a guest that died did not answer is taken to be the same. */
async function both(kernel, programs) {
  const { batch } = simulate(kernel, programs);
  const { differences = [] } = await runBatch(kernel, batch, { unsafe: needsUnsafe(kernel), say: () => {} });
  const found = new Map(differences.map(({ index, answers }) => [index, answers]));
  return batch.map(({ answers }, index) => ({ sim: answers, linux: found.get(index) ?? answers }));
}

function conclude(totals, { seed }) {
  let wrong = false;
  for (const { kernel, calls, programs, seconds, met, kinds, skipped } of totals) {
    if (skipped !== null) print(`${kernel.padEnd(14)} skipped: ${skipped}`);
    else {
      print(
        `${kernel.padEnd(14)} ${calls} calls in ${programs} programs from seed ${seed}, ${seconds.toFixed(0)} s; ${kinds.size} kinds of difference, ${[...met.values()].reduce((a, b) => a + b, 0)} programs with a known one`,
      );
    }
    for (const [kind, times] of kinds) print(`  ${times} x ${kind}`);
    const stale = calls < LONG ? [] : KNOWN.filter(({ name, kernels }) => kernels.includes(kernel) && !met.has(name));
    for (const { name } of stale) print(`  known as different, and not met: ${name}`);
    wrong ||= kinds.size > 0 || stale.length > 0;
  }
  if (wrong) return 1;
  return totals.some(({ skipped }) => skipped !== null) ? SKIPPED : 0;
}

function parse() {
  try {
    const { values } = parseArgs({
      allowNegative: true,
      options: {
        kernel: { type: 'string', multiple: true, default: PLATFORM_NAMES },
        calls: { type: 'string', default: '100000' },
        seed: { type: 'string', default: '20261122' },
        batch: { type: 'string', default: '20000' },
        length: { type: 'string', default: '120' },
        all: { type: 'boolean', default: false },
        shrink: { type: 'boolean', default: true },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    if (values.help) {
      print(USAGE);
      return 0;
    }
    const unknown = values.kernel.find((kernel) => !PLATFORM_NAMES.includes(kernel));
    if (unknown !== undefined) return usage(`--kernel ${unknown}: there are ${PLATFORM_NAMES.join(', ')}`);
    const seed = values.seed === 'random' ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
    const [calls, batch, length] = [values.calls, values.batch, values.length].map(Number);
    for (const [name, value] of Object.entries({ calls, batch, length, seed }))
      if (!Number.isInteger(value) || value < 1) return usage(`--${name} ${values[name]}: expected a positive integer`);
    return {
      kernels: [...new Set(values.kernel)],
      calls,
      seed,
      batch,
      length,
      all: values.all,
      shrinks: values.shrink,
    };
  } catch (error) {
    return usage(error.message);
  }
}

function usage(problem) {
  process.stderr.write(`fuzz: ${problem}\n\n${USAGE}\n`);
  return 2;
}
