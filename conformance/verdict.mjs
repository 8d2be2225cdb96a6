/** What the results of all kernels come to: for each case and kernel `ok`, `differs`, or nothing where it did not run. */
import { DIFFERENCES } from './differences.mjs';
import { surprises } from './run-cases.mjs';

/** No more than this part of all cases may differ, each with its reason. */
export const LARGEST_PART = 0.02;

/**
 * @param runs `{ kernel: 'sim' or a platform, platform, results }[]`
 * @returns `{ rows, unexplained, gone, explained }`; a row is `{ case, marks: Map(kernel → 'ok' | 'differs') }`
 */
export function judge(cases, runs, { complete }) {
  const rows = new Map(cases.map((each) => [each.id, { case: each, marks: new Map() }]));
  const unexplained = [];
  const met = new Set();
  for (const { kernel, platform, results } of runs) {
    for (const result of results) {
      const wrong = surprises(result);
      const { marks } = rows.get(result.id);
      if (marks.get(kernel) !== 'differs') marks.set(kernel, wrong.length === 0 ? 'ok' : 'differs');
      if (wrong.length === 0) continue;
      const reason = DIFFERENCES.find(({ id, kernels }) => id === result.id && kernels.includes(kernel));
      if (reason === undefined) unexplained.push({ id: result.id, kernel, platform, wrong });
      else met.add(reason);
    }
  }
  return {
    rows: [...rows.values()],
    unexplained,
    explained: [...met],
    gone: complete ? DIFFERENCES.filter((each) => !met.has(each)) : [],
  };
}
