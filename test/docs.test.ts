/** The pages that ship: links lead somewhere, and the tests that they name exist. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const pages = ['README.md', 'CHANGELOG.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)].filter(
  (name) => name.endsWith('.md'),
);
const text = (page: string): string => readFileSync(join(root, page), 'utf8');
const prose = (page: string): string => text(page).replace(/^```[\s\S]*?^```$/gm, '');

describe('the pages', () => {
  it.each(pages)('%s: every link to a file leads to one', (page) => {
    const links = [...prose(page).matchAll(/\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)/g)].map(
      (match) => match[1] as string,
    );
    expect(links.filter((link) => !existsSync(join(root, dirname(page), link)))).toEqual([]);
  });

  it('the table of the RFC names tests that exist', () => {
    const rows = text('README.md')
      .split('\n')
      .filter((line) => /^\| .*\| "/.test(line));
    const named = rows.map((row) => /\| "([^"…]+)…?" \|/.exec(row)?.[1]);
    expect(named).toHaveLength(8);
    const seed = text('test/seed.test.ts');
    expect(named.filter((title) => title === undefined || !seed.includes(`describe('${title}`))).toEqual([]);
  });

  it('speaks of nothing that only its makers have', () => {
    const all = [...pages, '.ci/run', 'package.json'].map((page) => `${page}\n${text(page)}`).join('\n');
    expect(all).not.toMatch(/\/work\/|\/root\/|\bshared\/|kernel\.md|DESIGN\.md/);
  });
});
