/** Deferred work and simulated time. Nothing here looks at the wall clock: whoever drives the machine steps it. */
import type { Clock, Job, WorkQueue } from '../ports/work.ts';

/** Up to so many waiting jobs are compared one by one; beyond, a set knows them. */
const FEW = 16;

/**
 * Jobs in the order of posting; a job that waits already is not queued twice. An interrupt into a guest passes here, so that a ring is
 * used again and again instead of a set alone, which allocates as jobs come and go.
 */
export class JobQueue implements WorkQueue {
  private ring: (Job | null)[] = new Array<Job | null>(FEW * 2).fill(null);
  /** Jobs are at [head, head + count), modulo the ring's length. */
  private head = 0;
  private count = 0;
  /** Those that wait, while they are more than few. */
  private readonly many = new Set<Job>();
  private draining = false;

  post(job: Job): void {
    if (this.waits(job)) return;
    if (this.count === this.ring.length) this.grow();
    this.ring[(this.head + this.count) & (this.ring.length - 1)] = job;
    this.count += 1;
    if (this.count === FEW + 1) this.gather();
    else if (this.count > FEW) this.many.add(job);
  }

  /** When a job throws, the exception reaches the caller and the jobs behind it keep waiting. */
  drain(): void {
    if (this.draining || this.count === 0) return;
    this.draining = true;
    try {
      while (this.count > 0) this.take().run();
    } finally {
      this.draining = false;
    }
  }

  /** Out of the queue first, so that a job may post itself again. */
  private take(): Job {
    const job = this.ring[this.head]!;
    this.ring[this.head] = null;
    this.head = (this.head + 1) & (this.ring.length - 1);
    this.count -= 1;
    if (this.count > FEW) this.many.delete(job);
    else if (this.count === FEW) this.many.clear();
    return job;
  }

  private waits(job: Job): boolean {
    const { ring, head, count } = this;
    if (count > FEW) return this.many.has(job);
    for (let i = 0; i < count; i++) if (ring[(head + i) & (ring.length - 1)] === job) return true;
    return false;
  }

  private gather(): void {
    for (let i = 0; i < this.count; i++) this.many.add(this.ring[(this.head + i) & (this.ring.length - 1)]!);
  }

  private grow(): void {
    const { ring, head, count } = this;
    const larger = new Array<Job | null>(ring.length * 2).fill(null);
    for (let i = 0; i < count; i++) larger[i] = ring[(head + i) & (ring.length - 1)];
    this.ring = larger;
    this.head = 0;
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

  /** When the first alarm rings; Infinity without one. */
  get next(): number {
    return this.alarms[0]?.at ?? Infinity;
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
