/** The matrix for people: on the terminal, and as the second half of docs/conformance.md. */
import { readFileSync, writeFileSync } from 'node:fs';
import { DIFFERENCES } from './differences.mjs';

const BEGIN = '<!-- What follows is written by `npm run conformance -- --write`. -->';

export function terminal({ rows, unexplained, explained, gone }, kernels, skipped) {
  const lines = [];
  for (const kernel of kernels) {
    const marks = rows.map(({ marks }) => marks.get(kernel)).filter((mark) => mark !== undefined);
    const ok = marks.filter((mark) => mark === 'ok').length;
    lines.push(
      `${kernel.padEnd(14)} ${String(marks.length).padStart(4)} cases, ${ok} as expected, ${marks.length - ok} not`,
    );
  }
  for (const { kernel, reason } of skipped) lines.push(`${kernel.padEnd(14)} skipped: ${reason}`);
  for (const { id, where, wrong } of together(unexplained)) {
    lines.push('', `${id}  (${where.join(', ')})`);
    for (const { what, expected, got } of wrong)
      lines.push(`  ${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`);
  }
  for (const { id } of gone) lines.push(`listed as different, and is not: ${id}`);
  const total = rows.filter(({ marks }) => marks.size > 0).length;
  lines.push('', `${total} cases: ${unexplained.length} unexplained differences, ${explained.length} explained`);
  return lines.join('\n');
}

/** The same difference on several machines is told once. */
function together(unexplained) {
  const found = new Map();
  for (const { id, kernel, platform, wrong } of unexplained) {
    const key = `${id} ${JSON.stringify(wrong)}`;
    if (!found.has(key)) found.set(key, { id, wrong, where: [] });
    found.get(key).where.push(kernel === platform ? kernel : `${kernel} of ${platform}`);
  }
  return [...found.values()];
}

/** Replaces what stands behind the mark in the page. */
export function writePage(path, verdict, kernels, version) {
  const page = readFileSync(path, 'utf8');
  const at = page.indexOf(BEGIN);
  const before = at < 0 ? `${page.trimEnd()}\n\n` : page.slice(0, at);
  writeFileSync(path, `${before}${BEGIN}\n\n${matrix(verdict, kernels, version)}`);
}

function matrix({ rows, explained }, kernels, version) {
  const shown = rows.filter(({ marks }) => marks.size > 0);
  const parts = [
    '## The matrix',
    '',
    `${shown.length} cases, each a branch of Linux, run on the simulated kernel (on a host like each of the machines) and on Linux ${version} in the lab's machines (${new Date().toISOString().slice(0, 10)}, \`npm run conformance -- --write\`). *ok*: every call of the case answered what is expected;`,
    '*–*: the machine has not what the case needs; a number: a difference, explained below.',
  ];
  for (const name of new Set(shown.map((row) => row.case.suite))) {
    parts.push(
      '',
      `### ${name}`,
      '',
      `| Case | Linux | ${kernels.join(' | ')} |`,
      `|---|---|${kernels.map(() => '---|').join('')}`,
    );
    for (const row of shown.filter((each) => each.case.suite === name))
      parts.push(
        `| ${escaped(row.case.name)} | \`${row.case.source}\` | ${kernels.map((kernel) => mark(row, kernel)).join(' | ')} |`,
      );
  }
  parts.push('', '### Differences', '');
  if (explained.length === 0) parts.push('None.');
  for (const each of explained)
    parts.push(
      `${DIFFERENCES.indexOf(each) + 1}. ${each.id}, on ${each.kernels.join(', ')}: ${each.why} (\`${each.source}\`)`,
    );
  return `${parts.join('\n')}\n`;
}

function mark(row, kernel) {
  const found = row.marks.get(kernel);
  if (found === undefined) return '–';
  if (found === 'ok') return 'ok';
  const number = DIFFERENCES.findIndex(({ id, kernels }) => id === row.case.id && kernels.includes(kernel));
  return number < 0 ? '**differs**' : `[${number + 1}](#differences)`;
}

const escaped = (text) => text.replaceAll('|', '\\|');
