/** What a form of output is told of the two runs, in this order. */
import type { Explanation } from './explain.ts';
import type { HopList } from './hop-list.ts';
import type { RingSession, Totals } from './session.ts';

/** The part of a run between two looks at the clock: with a trace, what came after it. */
export interface Timed {
  readonly sent: number;
  readonly seconds: number;
}

export interface Report {
  /** With --explain: a request of the set-up was refused. */
  refused(explanation: Explanation): void;
  setUp(session: RingSession): void;
  firstInterrupt(session: RingSession, hops: HopList): void;
  totals(session: RingSession, totals: Totals, timed: Timed): void;
  without(session: RingSession, hops: HopList, totals: Totals): void;
  end(): void;
}
