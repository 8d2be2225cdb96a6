/** What the ledger counted, as values that a test can compare. */
import { Count, LEDGER_SIZE, lossName } from '../../src/ports/ledger.ts';
import type { Tap } from '../../src/ports/tap.ts';

export interface Counts {
  readonly sent: number;
  readonly delivered: number;
  readonly coalesced: number;
  readonly pending: number;
  /** By reason; reasons that did not occur are absent. */
  readonly lost: Readonly<Record<string, number>>;
}

export function countsOf({ ledger }: Tap): Counts {
  const lost: Record<string, number> = {};
  for (let slot = Count.LOST as number; slot < LEDGER_SIZE; slot++) {
    if (ledger[slot]! !== 0) lost[lossName(slot - Count.LOST)] = ledger[slot]!;
  }
  return {
    sent: ledger[Count.SENT]!,
    delivered: ledger[Count.DELIVERED]!,
    coalesced: ledger[Count.COALESCED]!,
    pending: ledger[Count.PENDING]!,
    lost,
  };
}

/** What became of the interrupts that `act` sent. */
export function during(tap: Tap, act: () => void): Counts {
  const before = countsOf(tap);
  act();
  const after = countsOf(tap);
  const lost: Record<string, number> = {};
  for (const [name, count] of Object.entries(after.lost)) {
    const more = count - (before.lost[name] ?? 0);
    if (more !== 0) lost[name] = more;
  }
  return {
    sent: after.sent - before.sent,
    delivered: after.delivered - before.delivered,
    coalesced: after.coalesced - before.coalesced,
    pending: after.pending - before.pending,
    lost,
  };
}

export const sumOf = (lost: Readonly<Record<string, number>>): number =>
  Object.values(lost).reduce((sum, count) => sum + count, 0);
