/** A part against C: rounds of both sides take turns, so that what disturbs the machine disturbs both. */
import { compile } from './support/compiler.mjs';
import { Contestant, javascript } from './support/contestant.mjs';
import { median } from './support/statistics.mjs';

/**
 * @param {{ name: string, cases: import('./catalogue.mjs').Case[] }} part
 * @param {{ rounds: number, warmUp: number, scale: number }} effort rounds that count and rounds before them; share of a full round
 */
export async function compare({ name, cases, args = [] }, { rounds, warmUp, scale }) {
  const built = compile(name);
  const js = javascript(name, args);
  const c = 'program' in built ? new Contestant(`${name} (C)`, built.program, args) : null;
  const times = new Map(cases.map((each) => [each.name, { js: [], c: [] }]));
  try {
    for (let round = -warmUp; round < rounds; round++) {
      for (const each of cases) {
        const operations = Math.max(Math.round(each.operations * scale), 1);
        const taken = { js: await js.round(each.name, operations), c: await c?.round(each.name, operations) };
        if (round < 0) continue;
        times.get(each.name).js.push(taken.js);
        if (taken.c !== undefined) times.get(each.name).c.push(taken.c);
      }
    }
  } finally {
    js.close();
    c?.close();
  }
  return cases.map((each) => summary(name, each, times.get(each.name), built.why));
}

function summary(part, { name, title, per, goal }, { js, c }, why) {
  const result = { part, name, title, per, goal, js: spread(js), c: c.length > 0 ? spread(c) : null };
  if (result.c === null) return { ...result, ratio: null, why };
  return { ...result, ratio: result.js.median / result.c.median };
}

/** Nanoseconds per operation. */
const spread = (times) => ({ median: median(times), min: Math.min(...times), rounds: times.length });
