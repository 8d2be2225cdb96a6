/** What differs between two runs of the probe: `node lab/compare.mjs linux.jsonl sim.jsonl`. Status 1 when something does. */
import { readFileSync } from 'node:fs';

if (process.argv.length !== 4) {
  process.stderr.write('usage: node lab/compare.mjs FIRST.jsonl SECOND.jsonl\n');
  process.exit(2);
}
const [first, second] = process.argv.slice(2).map(read);
const names = [...new Set([...first.keys(), ...second.keys()])];
const text = (value) => (value === undefined ? '(absent)' : JSON.stringify(value));
const different = names.filter((name) => text(first.get(name)) !== text(second.get(name)));
for (const name of different) {
  process.stdout.write(
    `${name}\n  ${process.argv[2]}: ${text(first.get(name))}\n  ${process.argv[3]}: ${text(second.get(name))}\n`,
  );
}
process.stdout.write(`${names.length} compared, ${different.length} different\n`);
process.exitCode = different.length === 0 ? 0 : 1;

function read(path) {
  const lines = readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('{'));
  return new Map(lines.map((line) => JSON.parse(line)).map(({ name, value }) => [name, value]));
}
