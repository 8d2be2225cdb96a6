/** docs/programs.md: what was run, and what came of it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './belfry.mjs';

const HEAD = `# Other people's programs

Programs that know nothing of belfry, run under \`belfry exec\` on a simulated host: what each does there, and what it does not. \`npm run programs\` runs them
and writes this page; \`npm run programs -- --only NAME\` runs one. Nothing is installed: what they need is unpacked from Debian unstable by package
name (\`qemu-system-arm\`, \`qemu-system-x86\`, \`dpdk-dev\`, \`golang-go\`, \`busybox-static\`, …) into the cache of [the lab](lab.md), whose kernel the guests boot. QEMU translates (TCG); KVM is not
used. A program whose needs cannot be had is *skipped*, which is neither passed nor failed.
`;

/** Writes the page from the results of all programs. */
export function writePage(results) {
  writeFileSync(join(root, 'docs', 'programs.md'), page(results));
}

function page(results) {
  const date = new Date().toISOString().slice(0, 10);
  const lines = [HEAD, `Run on ${date}, Node ${process.versions.node}, ${process.arch}.`, ''];
  lines.push(
    '| Program | Version | What was looked for | There | Not there |',
    '|---|---|---:|---:|---|',
    selftests(),
    ...results.map(row),
    '',
  );
  for (const result of results) lines.push(...section(result));
  return `${lines.join('\n').trimEnd()}\n`;
}

/** They have a page of their own, which `npm run selftests` writes. */
function selftests() {
  const page = readFileSync(join(root, 'docs', 'selftests.md'), 'utf8');
  const version = /`linux-source-7\.\d+` ([^\s,]+),/.exec(page)?.[1] ?? '';
  const cells = (pattern) => (pattern.exec(page)?.[1] ?? '').split('|').map((cell) => cell.trim());
  const names = cells(/^\| Binary \|(.*)\|$/m);
  const total = cells(/^\| \*\*Total\*\* \|(.*)\|$/m).map(Number);
  if (names.length !== total.length || total.some(Number.isNaN)) throw new Error('docs/selftests.md has no total');
  const missing = names.flatMap((name, i) =>
    /^(Passed|Cases)/.test(name) || total[i] === 0 ? [] : [`${total[i]} ${name.toLowerCase()}`],
  );
  const passed = names.reduce((sum, name, i) => sum + (name.startsWith('Passed') ? total[i] : 0), 0);
  const row = [version, total[names.indexOf('Cases')], passed, missing.join(', ')];
  return `| [The kernel’s own VFIO and iommufd selftests](selftests.md) | ${row.join(' | ')} |`;
}

function row({ program, version, checks, skipped }) {
  const link = `[${program.title}](#${anchor(program.title)})`;
  if (skipped !== undefined) return `| ${link} | | | | skipped: ${skipped} |`;
  const missing = checks.filter(({ ok }) => !ok).map(({ what }) => what);
  const there = checks.length - missing.length;
  return `| ${link} | ${version} | ${checks.length} | ${there} | ${missing.join('; ')} |`;
}

function section({ program, checks, evidence, skipped }) {
  const lines = [`## ${program.title}`, '', program.about, '', '```sh', program.command, '```', ''];
  if (skipped !== undefined) return [...lines, `Skipped: ${skipped}.`, ''];
  for (const { what, ok } of checks) lines.push(`- ${ok ? 'works' : '**does not**'}: ${what}`);
  lines.push('', '```text', ...evidence.flatMap((block, i) => (i === 0 ? block : ['', ...block])), '```', '');
  return lines;
}

/** As the usual renderers make an anchor of a heading. */
const anchor = (title) =>
  title
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
