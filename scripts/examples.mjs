// Runs every example of README.md and docs/: ```ts blocks as programs, type-checked, ```console blocks as commands whose output must
// match. A line `…` in an expected output stands for any lines; `~` in front of a number stands for any number there.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const pages = [
  'README.md',
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];
// Inside the package, so that `import … from 'belfry/vfio'` finds the package itself.
const scratch = mkdtempSync(join(root, 'dist', 'examples-'));
let passed = 0;
let failed = 0;

try {
  const blocks = pages.flatMap((page) => blocksOf(page));
  compile(blocks.filter(({ kind }) => kind === 'ts'));
  for (const block of blocks) check(block);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
console.log(`examples: ${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

function blocksOf(page) {
  const text = readFileSync(join(root, page), 'utf8');
  const blocks = [...text.matchAll(/^```(ts|console)\n([\s\S]*?)^```$/gm)];
  return blocks.map((match) => {
    const line = text.slice(0, match.index).split('\n').length;
    return { page, kind: match[1], body: match[2], line, name: `${page.replace(/\W/g, '-')}-${line}` };
  });
}

/** All programs in one go; what TypeScript says of them stays with the block that it is about. */
function compile(programs) {
  for (const { name, body } of programs) writeFileSync(join(scratch, `${name}.mts`), `${body}\nexport {};\n`);
  const compilerOptions = {
    ...{ target: 'ES2022', module: 'NodeNext', lib: ['ES2023', 'ESNext.Disposable'], types: ['node'] },
    ...{ strict: true, skipLibCheck: true },
  };
  writeFileSync(join(scratch, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.mts'] }));
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const result = spawnSync(process.execPath, [tsc, '-p', '.'], { cwd: scratch, encoding: 'utf8' });
  for (const program of programs) {
    const lines = result.stdout.split('\n').filter((line) => line.startsWith(`${program.name}.mts`));
    program.complaint = lines.length === 0 ? null : lines.join('\n');
  }
}

function check({ page, kind, body, line, name, complaint }) {
  const problem = kind === 'ts' ? (complaint ?? runProgram(name, body)) : runConsole(body);
  if (problem === null) passed += 1;
  else {
    failed += 1;
    console.log(`${page}:${line}: ${problem}`);
  }
}

function runProgram(name, body) {
  const result = spawnSync(process.execPath, [join(scratch, `${name}.mjs`)], {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
  });
  if (result.status !== 0) return `the program ended with status ${result.status}\n${result.stderr}`;
  const expected = [...body.matchAll(/\/\/ prints: (.*)$/gm)].map((match) => match[1]);
  const printed = result.stdout.trimEnd().split('\n');
  if (expected.length > 0 && !matches(expected, printed))
    return `printed\n${result.stdout}instead of\n${expected.join('\n')}`;
  return null;
}

function runConsole(body) {
  const parts = body.split(/^\$ /m).filter((part) => part !== '');
  for (const part of parts) {
    const [command, ...expected] = part.trimEnd().split('\n');
    const line = command.replace(/^belfry\b/, `${process.execPath} dist/cli/main.js`);
    const result = spawnSync('bash', ['-c', line], { cwd: root, encoding: 'utf8', timeout: 120_000 });
    const printed = (result.stdout + result.stderr).trimEnd().split('\n');
    if (!matches(expected, printed)) return `$ ${command} printed\n${printed.join('\n')}\n`;
  }
  return null;
}

/** Do the lines match the pattern? */
function matches(pattern, lines) {
  if (pattern.length === 0) return lines.length === 0 || (lines.length === 1 && lines[0] === '');
  if (pattern[0].trim() === '…') {
    for (let skip = 0; skip <= lines.length; skip++) if (matchesRest(pattern.slice(1), lines.slice(skip))) return true;
    return false;
  }
  return lines.length > 0 && same(pattern[0], lines[0]) && matchesRest(pattern.slice(1), lines.slice(1));
}

function matchesRest(pattern, lines) {
  return pattern.length === 0 ? lines.length === 0 : matches(pattern, lines);
}

function same(pattern, line) {
  const escaped = pattern.trimEnd().replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`^${escaped.replace(/~[\d,_]+(\\\.\d+)?/g, '[\\d,_.]+').replace(/ +/g, ' +')}$`).test(
    line.trimEnd(),
  );
}
