/** The tap that all rooms of one simulated host share. */
import { LEDGER_SIZE } from '../ports/ledger.ts';
import type { Tap } from '../ports/tap.ts';

/** A tap with an empty ledger and nobody looking. */
export function createTap(): Tap {
  return { observer: null, ledger: new Float64Array(LEDGER_SIZE) };
}
