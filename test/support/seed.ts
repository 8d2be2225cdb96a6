/**
 * The seed of random programs. `npm test` takes the same ones each time, so that what it says of a commit does not depend on chance; `npm run nightly` sets
 * BELFRY_SEED=random and finds new ones. A number there repeats a run that failed.
 */
import fc from 'fast-check';

const wanted = process.env['BELFRY_SEED'] ?? '20261122';
if (wanted !== 'random') fc.configureGlobal({ seed: Number(wanted) });
