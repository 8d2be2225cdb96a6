/** A program of `npm run fuzz` as a case: the same calls, and what is expected of each. */
import { allowUnsafe } from './fixtures.mjs';
import { Executor } from './fuzz/execute.mjs';

/** `replay(program, answers)`: each call is a step. */
export function replayed(t) {
  allowUnsafe(t);
  const executor = new Executor(t.kernel);
  t.after(() => executor.end());
  return (program, answers) => {
    for (const [i, got] of executor.run(program).entries())
      t.same(`${i}: ${program[i].request ?? program[i].op}`, got, answers[i]);
  };
}
