/** `npm run bench`: what the hot paths cost against the same algorithms in C, and checks that must hold. */
import { comparisons } from './catalogue.mjs';
import { checks } from './checks.mjs';
import { compare } from './compare.mjs';
import { compilerVersion, FLAGS } from './support/compiler.mjs';
import { readOptions } from './support/options.mjs';
import { machineText, printCheck, printComparison } from './support/report.mjs';

async function main({ quick, json, list, only }) {
  const parts = comparisons
    .map((part) => ({ ...part, cases: part.cases.filter(({ name }) => chosen(only, part.name, name)) }))
    .filter(({ cases }) => cases.length > 0);
  const wanted = checks.filter(({ name }) => chosen(only, name, name));
  if (list) {
    for (const { name, cases } of comparisons) console.log(`${name}: ${cases.map((each) => each.name).join(', ')}`);
    for (const { name } of checks) console.log(name);
    return;
  }
  if (parts.length + wanted.length === 0) {
    process.stderr.write(`bench: nothing is called ${only.join(', ')}; see --list\n`);
    process.exitCode = 2;
    return;
  }
  const effort = quick ? { rounds: 5, warmUp: 4, scale: 0.25 } : { rounds: 21, warmUp: 6, scale: 0.5 };
  const compilers = { c: compilerVersion('gcc'), cpp: compilerVersion('g++'), flags: FLAGS };
  const report = { node: process.version, machine: machineText(), compilers, comparisons: [], checks: [] };
  if (!json) console.log(`Node ${process.version}, ${report.machine}; C: ${compilers.c ?? 'no gcc here'}, ${FLAGS[0]}`);
  for (const part of parts) {
    const results = await compare(part, effort);
    report.comparisons.push(...results);
    if (!json) printComparison(results);
  }
  for (const check of wanted) {
    const result = { name: check.name, title: check.title, ...(await check.run({ quick })) };
    report.checks.push(result);
    if (!json) printCheck(result);
    if (result.holds === false) process.exitCode = 1;
  }
  if (json) console.log(JSON.stringify(report, null, 2));
}

/** Everything, or what `--only` names: a part, or one of its cases. */
const chosen = (only, part, name) => only.length === 0 || only.includes(part) || only.includes(name);

const options = readOptions();
if (options !== null) await main(options);
