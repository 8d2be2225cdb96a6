/** What the simulated kernel answers to programs, on one host like the lab's machine. */
import { PLATFORMS } from '../platforms.mjs';
import { hostLike } from '../sim.mjs';
import { allowUnsafe, Executor } from './execute.mjs';

export const needsUnsafe = (name) => PLATFORMS[name].features.includes('unsafe');

/** @returns `{ batch: { program, answers }[], calls }` */
export function simulate(name, programs) {
  const { kernel } = hostLike(name).process();
  if (needsUnsafe(name)) allowUnsafe(kernel);
  const executor = new Executor(kernel);
  const batch = programs.map((program) => ({ program, answers: executor.run(program) }));
  return { batch, calls: executor.calls };
}
