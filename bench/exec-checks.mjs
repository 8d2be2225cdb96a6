/** What `belfry exec` costs the programs that it runs, and what it takes to start. Where no program can be run here, the rows say why. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { compile } from './support/compiler.mjs';
import { median } from './support/statistics.mjs';

const command = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

const REQUEST_LIMIT = 1.5;
const READ_LIMIT = 3;
const START_LIMIT = 150;

/** NODE_EXTRA_CA_CERTS is left out: where it is set, Node 20 reads the file at every start. */
const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;

/** What a program prints, as numbers. @throws Error with what it said of why not */
function run(file, args) {
  const { status, stdout, stderr } = spawnSync(file, args, { env, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr.trim() || `status ${status}`);
  return stdout.trim().split(' ').map(Number);
}
const belfry = (options, argv) => run(process.execPath, [command, 'exec', '--quiet', ...options, '--', ...argv]);

/** Runs `body` with a program of c/, where there is a compiler and programs can be run. */
function withProgram(name, body) {
  const built = compile(name);
  if ('why' in built) return { holds: null, text: built.why };
  try {
    belfry([], ['true']);
  } catch (error) {
    return { holds: null, text: error.message };
  }
  return { holds: null, ...body(built.program) };
}

const ascending = (values) => [...values].sort((a, b) => a - b);
const fixed = (value, digits = 1) => value.toFixed(digits);
const missed = (value, limit) => (value > limit ? ', missed' : '');
const count = (value) => Math.round(value).toLocaleString('en');

/** Both answer the same requests of the same program; rounds take turns. */
function request({ quick }) {
  return withProgram('trapped-call', (program) => {
    const times = { c: [], belfry: [] };
    const calls = '20000';
    for (let round = 0; round < (quick ? 3 : 11); round++) {
      times.c.push(run(program, ['constant', calls]));
      times.belfry.push(belfry([], [program, 'client', calls]));
    }
    const of = (side, at) => median(times[side].map((values) => values[at]));
    const ratios = [0, 1].map((at) => of('belfry', at) / of('c', at));
    const text =
      `p50 ${fixed(of('belfry', 0), 2)} µs, C ${fixed(of('c', 0), 2)} µs: ${fixed(ratios[0], 2)} (goal ${REQUEST_LIMIT}${missed(ratios[0], REQUEST_LIMIT)}); ` +
      `p99 ${fixed(of('belfry', 1))} µs, C ${fixed(of('c', 1))} µs: ${fixed(ratios[1], 2)}; medians of ${times.c.length}`;
    return { text, times };
  });
}

/** The same program alone and under the filter, by turns. */
function untrapped({ quick }) {
  return withProgram('exec-program', (program) => {
    const results = [];
    for (const size of [4096, 131_072]) {
      const args = ['read', String(size), String(Math.round((quick ? 2e8 : 1e9) / (size + 4096)))];
      const times = { alone: [], belfry: [] };
      for (let round = 0; round < (quick ? 3 : 11); round++) {
        times.alone.push(run(program, args)[0]);
        times.belfry.push(belfry([], [program, ...args])[0]);
      }
      // What disturbs them only adds: the least is what they take.
      const [alone, under] = [Math.min(...times.alone), Math.min(...times.belfry)];
      results.push({ size, alone, under, loss: (under / alone - 1) * 100 });
    }
    const text = results
      .map(
        ({ size, alone, under, loss }) =>
          `${size / 1024} KiB ${fixed(alone / 1000, 2)} µs alone, ${fixed(under / 1000, 2)} µs under the filter: ${fixed(loss)} %`,
      )
      .join('; ');
    return { text: `${text} (goal ${READ_LIMIT} %${missed(results[1].loss, READ_LIMIT)})`, results };
  });
}

/** Milliseconds from its start to its end, and of CPU time, its own and its children's. */
function taken(cpu, args) {
  const [before, used] = [performance.now(), cpu()];
  const options = { env, encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] };
  const { status, stderr } = spawnSync(process.execPath, args, options);
  if (status !== 0) throw new Error(stderr.trim() || `status ${status}`);
  return { elapsed: performance.now() - before, cpu: cpu() - used };
}

/** getrusage(RUSAGE_CHILDREN): struct rusage has user time (seconds@0, microseconds@8) and the system's (@16, @24). */
async function childrenCpu() {
  const { Libc } = await import('../dist/libc/libc.js');
  const { cLibrary } = await import('../dist/libc/library.js');
  const { koffi } = await Libc.load();
  const getrusage = cLibrary(koffi).func('int getrusage(int who, void *usage)');
  const words = new BigInt64Array(new ArrayBuffer(256));
  const bytes = new Uint8Array(words.buffer);
  return () => {
    getrusage(-1, bytes);
    return Number(words[0] + words[2]) * 1e3 + Number(words[1] + words[3]) / 1e3;
  };
}

async function start({ quick }) {
  const cases = {
    node: ['--input-type=module', '-e', '0'],
    untouched: [command, 'exec', '--quiet', '--', 'true'],
    touched: [command, 'exec', '--quiet', '--', 'ls', '/dev/vfio'],
  };
  const rounds = { node: [], untouched: [], touched: [] };
  try {
    const cpu = await childrenCpu();
    for (let round = -1; round < (quick ? 3 : 11); round++) {
      for (const [name, args] of Object.entries(cases)) {
        const each = taken(cpu, args);
        if (round >= 0) rounds[name].push(each);
      }
    }
  } catch (error) {
    return { holds: null, text: error.message };
  }
  const least = (values) => Math.min(...values);
  const over = (name, what, of) =>
    of(rounds[name].map((each) => each[what])) - of(rounds.node.map((each) => each[what]));
  const row = (name) =>
    `${fixed(over(name, 'cpu', median), 0)} ms of CPU time, ${fixed(over(name, 'elapsed', median), 0)} ms elapsed (least ${fixed(over(name, 'elapsed', least), 0)})`;
  const text =
    `over Node's own start: \`exec -- true\` ${row('untouched')}, goal ${START_LIMIT}${missed(over('untouched', 'elapsed', median), START_LIMIT)}; ` +
    `\`exec -- ls /dev/vfio\`, which boots the host, ${row('touched')}; medians of ${rounds.node.length}`;
  return { holds: null, text, rounds };
}

function interrupts({ quick }) {
  return withProgram('exec-program', (program) => {
    const number = quick ? '4000' : '40000';
    const rates = { interrupts: [], storm: [] };
    for (let round = 0; round < (quick ? 1 : 5); round++) {
      for (const name of Object.keys(rates)) rates[name].push(belfry([], [program, name, number])[0]);
    }
    const text =
      `${count(median(rates.interrupts))} a second, each rung by pwrite and read from the eventfd before the next (most ${count(ascending(rates.interrupts).at(-1))}); ` +
      `${count(median(rates.storm))} when they are counted at the end`;
    return { text, rates };
  });
}

function register({ quick }) {
  return withProgram('exec-program', (program) => {
    const rounds = [];
    for (let round = 0; round < (quick ? 1 : 7); round++) {
      rounds.push(belfry(['--device', 'edu'], [program, 'register', quick ? '1000' : '10000']));
    }
    const text = `p50 ${fixed(median(rounds.map(([middle]) => middle)))} µs, p99 ${fixed(median(rounds.map(([, late]) => late)))} µs`;
    return { text, rounds };
  });
}

export const execChecks = [
  {
    name: 'exec-request',
    title: 'exec: a request that stops, against a supervisor in C that answers with a constant',
    run: request,
  },
  {
    name: 'exec-read',
    title: "exec: reads of a file, which do not stop, CPU time against the program's own",
    run: untrapped,
  },
  { name: 'exec-start', title: 'exec: start and end of a program', run: start },
  { name: 'exec-interrupts', title: "exec: interrupts into a program's eventfd", run: interrupts },
  { name: 'exec-register', title: 'exec: a read of a register that the program has mapped', run: register },
];
