/** What a form of output is told of the two runs, in this order. */
import type { HopList } from './hop-list.ts';
import type { RingSession, Totals } from './session.ts';

export interface Report {
  setUp(session: RingSession): void;
  firstInterrupt(session: RingSession, hops: HopList): void;
  totals(session: RingSession, totals: Totals, seconds: number): void;
  without(session: RingSession, hops: HopList, totals: Totals): void;
  end(): void;
}
