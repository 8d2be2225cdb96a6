/** Deferred work and simulated time. Nothing here looks at the wall clock: whoever drives the machine steps it. */
import type { Clock, Job, WorkQueue } from '../ports/work.ts';

/** Jobs in the order of posting; a job that waits already is not queued twice. */
export class JobQueue implements WorkQueue {
  private readonly waiting = new Set<Job>();
  private draining = false;

  post(job: Job): void {
    this.waiting.add(job);
  }

  /** When a job throws, the exception reaches the caller and the jobs behind it keep waiting. */
  drain(): void {
    if (this.draining || this.waiting.size === 0) return;
    this.draining = true;
    try {
      for (const job of this.waiting) {
        // Out of the set first, so that a job may post itself again.
        this.waiting.delete(job);
        job.run();
      }
    } finally {
      this.draining = false;
    }
  }
}

interface Alarm {
  readonly at: number;
  readonly job: Job;
}

/** Simulated time in nanoseconds, moved by {@link SimClock.advance} alone. */
export class SimClock implements Clock {
  private time = 0;
  /** Sorted by time; alarms of one instant in the order of their making. */
  private readonly alarms: Alarm[] = [];

  now(): number {
    return this.time;
  }

  after(delay: number, job: Job): () => void {
    if (!(delay >= 0)) throw new RangeError(`delay: expected 0 or more nanoseconds, got ${delay}`);
    const alarm: Alarm = { at: this.time + delay, job };
    this.alarms.splice(this.firstAfter(alarm.at), 0, alarm);
    return () => {
      const index = this.alarms.indexOf(alarm);
      if (index >= 0) this.alarms.splice(index, 1);
    };
  }

  /**
   * Moves time forward by `ns` nanoseconds, stopping at each alarm on the way: a job sees `now()` as it asked for, and
   * what it schedules within the span runs too.
   */
  advance(ns: number): void {
    if (!(ns >= 0)) throw new RangeError(`advance: expected 0 or more nanoseconds, got ${ns}`);
    const until = this.time + ns;
    while (this.alarms.length > 0 && this.alarms[0].at <= until) {
      const alarm = this.alarms.shift()!;
      this.time = Math.max(this.time, alarm.at);
      alarm.job.run();
    }
    this.time = Math.max(this.time, until);
  }

  private firstAfter(at: number): number {
    let low = 0;
    let high = this.alarms.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.alarms[middle].at <= at) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
