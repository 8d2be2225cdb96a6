/** What is measured without C: checks that must hold, and the start of the command. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { execChecks } from './exec-checks.mjs';
import { compile } from './support/compiler.mjs';
import { median } from './support/statistics.mjs';

const worker = (name) => fileURLToPath(new URL(`workers/${name}.mjs`, import.meta.url));
const command = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

/** LPIs of 16 bits, which start at 8,192. */
const LPIS = 57_344;
const RESIDENT_LIMIT = 2 ** 30;
const START_LIMIT = 25;
const AREAS_LIMIT = 3;
const WAKE_UP_LIMIT = 1.6;
/** Share of a CPU that listeners may take while nothing comes: what V8 does now and then. */
const IDLE_LIMIT = 0.005;

/** @typedef {{ holds: boolean | null, text: string }} Verdict `holds` null: reported, never a failure */

/** @type {{ name: string, title: string, run: (options: { quick: boolean }) => Verdict & Record<string, unknown> }[]} */
export const checks = [
  {
    name: 'gc-host',
    title: 'No garbage collection, device to host handler (node --trace-gc)',
    run: ({ quick }) => collections('host', quick ? 2_000_000 : 10_000_000),
  },
  {
    name: 'gc-guest',
    title: 'No garbage collection, device to guest, acknowledged (node --trace-gc)',
    run: ({ quick }) => collections('guest', quick ? 2_000_000 : 10_000_000),
  },
  {
    name: 'memory',
    title: '1,024 functions of 2,048 MSI-X vectors, all 57,344 LPIs armed: resident set under 1 GiB',
    run: resident,
  },
  { name: 'ioas', title: 'iommufd with 1, 1,000 and 100,000 areas: cost does not grow with their number', run: areas },
  { name: 'wake-up', title: 'Linux: eventfd to listener, against a poll loop in C', run: wakeUp },
  { name: 'start', title: 'belfry --help, against an empty Node program', run: start },
  ...execChecks,
];

/** Node's own trace, between the two lines that the worker prints around the interrupts that count. */
function collections(scene, interrupts) {
  const args = ['--trace-gc', worker('gc'), scene, String(interrupts)];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`gc ${scene}: status ${status}: ${stderr}`);
  const lines = stdout.split('\n');
  const counted = lines.slice(lines.indexOf('begin') + 1, lines.indexOf('end'));
  const seen = counted.filter((line) => /\bms: (Scavenge|Mark-Compact|Mark-sweep|Minor)/i.test(line));
  const traced = lines.some((line) => /\bms: (Scavenge|Mark-Compact)/.test(line));
  if (!traced) throw new Error(`gc ${scene}: this Node traces no collections at all, not even while the host boots`);
  const text = `${seen.length} collections over ${interrupts.toLocaleString('en')} interrupts${seen.length > 0 ? `: ${seen[0].trim()}` : ''}`;
  return { holds: seen.length === 0, text, collections: seen.length, interrupts };
}

function resident() {
  const { status, stdout, stderr } = spawnSync(process.execPath, [worker('memory')], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`memory: status ${status}: ${stderr}`);
  const result = JSON.parse(stdout);
  const mib = (bytes) => `${Math.round(bytes / 2 ** 20)} MiB`;
  const text =
    `${mib(result.resident)} resident with ${result.functions.toLocaleString('en')} functions, ` +
    `${result.tables.toLocaleString('en')} table entries, ${result.armed.toLocaleString('en')} vectors armed; ${result.delivered.toLocaleString('en')} of ${result.raised.toLocaleString('en')} raised came through; ` +
    `${mib(result.empty)} before the host, ${result.seconds.toFixed(1)} s to set up`;
  const complete = result.armed === LPIS && result.delivered === result.raised;
  const holds = result.resident < RESIDENT_LIMIT && complete;
  return { holds, text, ...result };
}

/** From 1,000 areas to 100,000 a tree grows by two thirds, and leaves the caches; a list would grow a hundredfold. */
function areas({ quick }) {
  const args = [worker('ioas'), ...(quick ? ['5', '200'] : ['15', '1000'])];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ioas: status ${status}: ${stderr}`);
  const results = JSON.parse(stdout);
  const [, some, many] = results;
  const names = Object.keys(some).filter((name) => name !== 'areas');
  const micros = (name) => results.map((result) => (result[name] / 1000).toFixed(1)).join(', ');
  const text = `${names.map((name) => `${name} ${micros(name)}`).join('; ')} µs; limit ${AREAS_LIMIT} times from 1,000 to 100,000`;
  return { holds: names.every((name) => many[name] <= some[name] * AREAS_LIMIT), text, results };
}

/** Wall-clock: how long a sleeper needs to wake is what is asked. The ratio depends on the machine; that nothing is done while nothing comes does not. */
function wakeUp({ quick }) {
  const built = compile('wake-up');
  if (!('program' in built)) return { holds: null, text: built.why };
  const args = [worker('wake-up'), built.program, ...(quick ? ['3', '4000'] : ['7', '10000'])];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`wake-up: status ${status}: ${stderr}`);
  const { busy, idle, idleCpu } = JSON.parse(stdout);
  const of = (rounds, part) => median(rounds.map((round) => round[part]));
  const told = (name, { js, c }) => {
    const [p50, ratio] = [of(js, 'p50'), of(js, 'p50') / of(c, 'p50')];
    return `${name}: p50 ${p50.toFixed(1)} µs (C ${of(c, 'p50').toFixed(1)}, ratio ${ratio.toFixed(2)}), p99 ${of(js, 'p99').toFixed(0)} µs (C ${of(c, 'p99').toFixed(0)})`;
  };
  const text = `${told('one after the other', busy)}, goal ${WAKE_UP_LIMIT}; ${told('asleep for 2 ms before', idle)}; a listener to which nothing comes takes ${(idleCpu * 100).toFixed(2)} % of a CPU`;
  return { holds: idleCpu <= IDLE_LIMIT, text, busy, idle, idleCpu };
}

/** Runs take turns. NODE_EXTRA_CA_CERTS is left out: where it is set, Node 20 reads the file at every start. */
function start({ quick }) {
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  const times = { node: [], belfry: [] };
  const empty = ['--input-type=module', '-e', '0'];
  for (let round = quick ? -1 : -3; round < (quick ? 9 : 31); round++) {
    for (const [name, args] of Object.entries({ node: empty, belfry: [command, '--help'] })) {
      const before = performance.now();
      const { status } = spawnSync(process.execPath, args, { env, stdio: ['ignore', 'ignore', 'inherit'] });
      if (status !== 0) throw new Error(`${args.join(' ')}: status ${status}`);
      if (round >= 0) times[name].push(performance.now() - before);
    }
  }
  const [node, belfry] = [median(times.node), median(times.belfry)];
  const over = belfry - node;
  const goal = `goal ${START_LIMIT} ms${over > START_LIMIT ? ', missed' : ''}`;
  return {
    holds: null,
    text: `${over.toFixed(1)} ms over Node's own start (${goal}): ${belfry.toFixed(1)} ms and ${node.toFixed(1)} ms, medians of ${times.node.length}`,
    over,
    node,
    belfry,
    goal: START_LIMIT,
  };
}
