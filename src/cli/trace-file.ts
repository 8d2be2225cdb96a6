/** `--trace FILE`: Chrome trace JSON. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { HopObserver } from '../ports/tap.ts';
import { type ChromeSlice, ChromeTrace, teeObservers } from '../trace/index.ts';
import { ProblemError } from './usage.ts';

/** Characters that are gathered for one write. */
const CHUNK = 1 << 16;

export interface TraceFile {
  readonly alone: HopObserver;
  with(other: HopObserver): HopObserver;
  slice(slice: ChromeSlice): void;
  /** @throws ProblemError as every hop does when the file cannot be written and nobody is to be told otherwise */
  end(): void;
}

/**
 * `now` in nanoseconds. `onLost` is told once when the file can be written no more, and what follows is dropped.
 * @throws ProblemError when the file cannot be made
 */
export function openTrace(path: string, now: () => number, onLost?: (error: Error) => void): TraceFile {
  let lost = false;
  const guarded = <T>(act: () => T): T => {
    try {
      return act();
    } catch (error) {
      throw new ProblemError(`--trace ${path}: ${(error as Error).message}`);
    }
  };
  const file = guarded(() => openSync(path, 'w'));
  let waiting = '';
  const flush = (): void => {
    try {
      for (let bytes = Buffer.from(lost ? '' : waiting); bytes.length > 0; ) {
        bytes = bytes.subarray(guarded(() => writeSync(file, bytes)));
      }
    } catch (error) {
      if (onLost === undefined) throw error;
      lost = true;
      onLost(error as Error);
    }
    waiting = '';
  };
  const write = (text: string): void => {
    waiting += text;
    if (waiting.length >= CHUNK) flush();
  };
  const trace = new ChromeTrace(write, { now });
  return {
    alone: trace,
    with: (other) => teeObservers(trace, other) ?? trace,
    slice: (slice) => trace.slice(slice),
    end: () => {
      trace.end();
      flush();
      guarded(() => closeSync(file));
    },
  };
}
