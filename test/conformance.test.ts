/** The cases of `npm run conformance` on the simulated kernel, on a host like each machine of the lab; there they run on real Linux too. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

interface Step {
  readonly what: string;
  readonly expected: unknown;
  readonly got: unknown;
}
interface Result {
  readonly id: string;
  readonly steps: readonly Step[];
}
interface Difference {
  readonly id: string;
  readonly kernels: readonly string[];
  readonly why: string;
  readonly source: string;
}

const load = (name: string): Promise<unknown> => import(new URL(`../conformance/${name}.mjs`, import.meta.url).href);
const { runSimulated } = (await load('sim')) as { runSimulated: (platform: string) => Promise<Result[]> };
const { PLATFORM_NAMES } = (await load('platforms')) as { PLATFORM_NAMES: readonly string[] };
const { DIFFERENCES } = (await load('differences')) as { DIFFERENCES: readonly Difference[] };
const { surprises } = (await load('run-cases')) as { surprises: (result: Result) => Step[] };
const { allCases } = (await load('suite')) as { allCases: () => readonly { id: string; source: string }[] };

describe('the cases of the conformance matrix', () => {
  it.each(PLATFORM_NAMES)('as expected on a simulated %s', async (platform) => {
    const results = await runSimulated(platform);
    const wrong = results
      .filter(({ id }) => !DIFFERENCES.some((each) => each.id === id && each.kernels.includes('sim')))
      .flatMap((result) => surprises(result).map((step) => ({ id: result.id, ...step })));
    expect(wrong).toEqual([]);
    expect(results.filter(({ steps }) => steps.length === 0)).toEqual([]);
  });

  it('every case names the branch of Linux that it examines', () => {
    expect(allCases().filter(({ source }) => !/\.[ch] \w/.test(source))).toEqual([]);
  });

  it('every difference is of a case that exists, with its reason and its source, and they are few', () => {
    const ids = new Set(allCases().map(({ id }) => id));
    expect(DIFFERENCES.filter(({ id, why, source }) => !ids.has(id) || why === '' || !/\.[ch]/.test(source))).toEqual(
      [],
    );
    expect(DIFFERENCES.length).toBeLessThanOrEqual(0.02 * ids.size);
  });
});

describe('the command lines', () => {
  it.each([
    ['main', ['--kernel', 'bsd'], '--kernel bsd'],
    ['main', ['--kernel', 'sim', '--case', 'no such case'], '--case no such case'],
    ['main', ['--kernel', 'sim', '--write'], '--write needs all'],
    ['main', ['--kernel', 'sim', '--kernel', 'sim', '--json', '/nowhere/answers.json'], '/nowhere/answers.json'],
    ['fuzz', ['--calls', 'many'], '--calls many'],
    ['fuzz', ['--kernel', 'sim'], '--kernel sim'],
  ])('%s %j is a usage error, before anything runs', (script, args, words) => {
    const path = fileURLToPath(new URL(`../conformance/${script}.mjs`, import.meta.url));
    const { status, stdout, stderr } = spawnSync(process.execPath, [path, ...args], { encoding: 'utf8' });
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toContain(words);
  });
});
