/** Keeps the hops of the interrupt that a report tells. */
import type { Hop, HopObserver } from '../../ports/tap.ts';

export class HopList implements HopObserver {
  readonly hops: Hop[] = [];

  hop(hop: Hop): void {
    this.hops.push(hop);
  }

  /** The first hop of a kind. */
  find<At extends Hop['at']>(at: At): Extract<Hop, { at: At }> | null {
    return (this.hops.find((hop) => hop.at === at) as Extract<Hop, { at: At }> | undefined) ?? null;
  }
}
