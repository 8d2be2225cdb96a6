/**
 * Deferred work and time. machine/ and kernel/ have no timers, randomness or wall clock: whoever drives them steps them.
 */
export interface Job {
  run(): void;
}

/** Jobs that wait for the end of the walk that posted them. A job already waiting is not queued twice. */
export interface WorkQueue {
  post(job: Job): void;
  /** Runs what waits, and what that posts, in order. Re-entrant calls return at once. */
  drain(): void;
}

/** Simulated time, in nanoseconds since the machine was made. */
export interface Clock {
  now(): number;
  /** Runs `job` when the clock has been advanced by `delay` nanoseconds. Returns a function that cancels it. */
  after(delay: number, job: Job): () => void;
}
