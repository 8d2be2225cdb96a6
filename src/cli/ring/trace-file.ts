/** `--trace FILE`: Chrome trace JSON of the first interrupts. */
import type { WriteStream } from 'node:fs';
import type { HopObserver } from '../../ports/tap.ts';
import type { Clock } from '../../ports/work.ts';
import { ChromeTrace, teeObservers } from '../../trace/index.ts';

export interface TraceFile {
  readonly alone: HopObserver;
  with(other: HopObserver): HopObserver;
  end(): void;
}

export function startTrace(stream: WriteStream, clock: Clock): TraceFile {
  const trace = new ChromeTrace((text) => void stream.write(text), { now: () => clock.now() });
  return {
    alone: trace,
    with: (other) => teeObservers(trace, other) ?? trace,
    end: () => {
      trace.end();
      stream.end();
    },
  };
}
