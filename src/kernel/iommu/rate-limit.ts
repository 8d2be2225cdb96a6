/** How much of a flood reaches the kernel's log (lib/ratelimit.c with its defaults): ten records in five seconds of simulated time. */
import type { Clock } from '../../ports/work.ts';

const INTERVAL = 5e9;
const BURST = 10;

export class RateLimit {
  private readonly clock: Clock;
  private begin = Number.NEGATIVE_INFINITY;
  private printed = 0;
  /** Refused since the last that was let through. */
  private missed = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** May one more be logged? */
  allows(): boolean {
    const now = this.clock.now();
    if (now - this.begin >= INTERVAL) {
      this.begin = now;
      this.printed = 0;
    }
    if (this.printed < BURST) {
      this.printed += 1;
      return true;
    }
    this.missed += 1;
    return false;
  }

  /** What was suppressed before the one that is let through now, and forgets it. */
  takeMissed(): number {
    const { missed } = this;
    this.missed = 0;
    return missed;
  }
}
