// Runs other people's programs under `belfry exec`, and writes docs/programs.md from what came of it.
import { parseArgs } from 'node:util';
import { SKIPPED, Skip } from '../lab/skip.mjs';
import { failed } from './programs/checks.mjs';
import { programs } from './programs/list.mjs';
import { writePage } from './programs/page.mjs';

const USAGE = `npm run programs [-- --only NAME[,NAME…]] [--list]

  Runs other people's programs under belfry exec. What they need comes by name from Debian (unpacked, never installed), Go's
  and Rust's registries, and is kept in the cache. All of them together write docs/programs.md.

  Exit status: 0 all that was looked for was there, but for what is known to be a limit; 1 something was not; 2 usage;
  77 nothing could be run.`;

process.exitCode = await main();

async function main() {
  const { values: options } = parseArgs({
    options: { only: { type: 'string' }, list: { type: 'boolean' }, help: { type: 'boolean' } },
  });
  if (options.help) return say(USAGE);
  if (options.list) return say(programs.map(({ name, title }) => `${name.padEnd(18)}${title}`).join('\n'));
  const names = options.only?.split(',');
  const unknown = names?.find((name) => !programs.some((each) => each.name === name));
  if (unknown !== undefined) {
    console.error(`programs: there is no ${unknown}; --list tells the names`);
    return 2;
  }
  const results = [];
  for (const program of programs.filter(({ name }) => names === undefined || names.includes(name)))
    results.push({ program, ...(await outcome(program)) });
  if (names === undefined) writePage(results);
  const examined = results.filter(({ skipped }) => skipped === undefined);
  if (examined.length === 0) return SKIPPED;
  return examined.every(({ checks }) => failed(checks).length === 0) ? 0 : 1;
}

/** Runs one and tells of it. What it needs and cannot have makes it skipped, which is neither passed nor failed. */
async function outcome(program) {
  const started = Date.now();
  say(`== ${program.name}: ${program.title}`);
  try {
    const result = await program.run();
    for (const block of result.evidence) say(block.map((line) => `   ${line}`).join('\n'));
    for (const { what, ok, known } of result.checks) say(`${ok ? 'ok    ' : known ? 'limit ' : 'FAILED'} ${what}`);
    say(`   ${result.version}; ${((Date.now() - started) / 1000).toFixed(0)} s`);
    return result;
  } catch (error) {
    if (!(error instanceof Skip)) throw error;
    say(`skipped: ${error.message}`);
    return { skipped: error.message, checks: [], evidence: [], version: '' };
  }
}

function say(text) {
  process.stdout.write(`${text}\n`);
  return 0;
}
