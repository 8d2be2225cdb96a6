/** Several sinks behind one observer. */
import type { Hop, HopObserver } from '../ports/tap.ts';

/** Each hop goes to all of `observers`, in their order; null for none, so that the walk builds no hops. */
export function teeObservers(...observers: readonly HopObserver[]): HopObserver | null {
  if (observers.length <= 1) return observers[0] ?? null;
  return {
    hop(hop: Hop): void {
      for (const observer of observers) observer.hop(hop);
    },
  };
}
