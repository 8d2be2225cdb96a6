/**
 * The smallest program that still shows a difference. A boot is dear and a program is cheap: each round makes all candidates of a size, runs them in one boot,
 * and goes on with the smallest that differs.
 */

const ROUNDS = 12;
const CANDIDATES = 240;

/** `{ at, sim, linux }` of the first call that is answered differently, or null. */
export function firstDifference(sim, linux) {
  const at = sim.findIndex((answer, i) => answer !== linux[i]);
  return at < 0 ? null : { at, sim: sim[at], linux: linux[at] };
}

/**
 * @param run `(programs) => Promise<{ sim, linux }[]>`, the answers of both kernels
 * @returns `{ program, sim, linux }`, or null when the program alone does not differ
 */
export async function shrink(program, run, { say = () => {} } = {}) {
  let best = await judged([program], run);
  if (best === null) return null;
  for (let round = 0; round < ROUNDS; round++) {
    const candidates = smaller(best.program).slice(0, CANDIDATES);
    const better = await judged(candidates, run, best);
    if (better === null) break;
    best = better;
    say(`${best.program.length} calls`);
  }
  return best;
}

/** The best of the programs that differ, cut behind the difference; it must be smaller than `than`. */
async function judged(programs, run, than = null) {
  const answers = await run(programs);
  let best = than;
  for (const [i, { sim, linux }] of answers.entries()) {
    const difference = firstDifference(sim, linux);
    if (difference === null) continue;
    const until = difference.at + 1;
    const found = { program: programs[i].slice(0, until), sim: sim.slice(0, until), linux: linux.slice(0, until) };
    if (best === null || weight(found.program) < weight(best.program)) best = found;
  }
  return best === than ? null : best;
}

const weight = (program) => program.length * 10_000 + JSON.stringify(program).length;

/** Programs without some of the calls, the shortest first; and then calls with less in them. */
function smaller(program) {
  const found = [];
  const last = program.length - 1;
  for (let part = Math.ceil(last / 2); part >= 1; part = part === 1 ? 0 : Math.ceil(part / 2)) {
    for (let from = 0; from < last; from += part)
      found.push([...program.slice(0, from), ...program.slice(Math.min(from + part, last))]);
  }
  // Only the calls on what the last one is on, and what opens.
  const { fd } = program[last];
  found.push(program.filter((call, i) => i === last || call.fd === fd || call.as !== undefined));
  for (const [i, call] of program.entries()) {
    for (const less of lesser(call)) found.push(program.map((each, j) => (i === j ? less : each)));
  }
  return found;
}

function lesser(call) {
  const without = (name) => Object.fromEntries(Object.entries(call).filter(([key]) => key !== name));
  const found = ['raw', 'poke', 'peek'].filter((name) => call[name] !== undefined).map(without);
  for (const [name, value] of Object.entries(call.fields ?? {})) {
    if (value !== 0 && value !== '0x0') found.push({ ...call, fields: { ...call.fields, [name]: 0 } });
  }
  return found;
}
