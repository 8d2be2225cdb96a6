/** Runs the cases that a kernel has what they need for, one after another on the same host. */

import { Subject } from './subject.mjs';
import { allCases } from './suite.mjs';
import './cases/index.mjs';

/**
 * @param only a part of a case's id, or null for all
 * @returns `{ id, steps: [{ what, expected, got }] }` for each; a case that throws has a step that says so
 */
export async function runCases(kernel, platform, { only = null, advance, done = () => {} } = {}) {
  const results = [];
  for (const each of applicable(platform, only)) {
    const subject = new Subject(kernel, platform, advance === undefined ? {} : { advance });
    await guarded(subject, () => each.run(subject));
    await guarded(subject, () => subject.end());
    const result = { id: each.id, steps: subject.steps };
    results.push(result);
    done(result);
  }
  return results;
}

export const applicable = (platform, only = null) =>
  allCases().filter(
    ({ id, needs }) =>
      needs.every((feature) => platform.features.includes(feature)) && (only === null || id.includes(only)),
  );

async function guarded(subject, run) {
  try {
    await run();
  } catch (error) {
    subject.steps.push({ what: 'threw', expected: 'nothing', got: String(error?.message ?? error) });
  }
}

/** The steps of a result that are not as expected. */
export const surprises = ({ steps }) =>
  steps.filter(({ expected, got }) => JSON.stringify(expected) !== JSON.stringify(got));
