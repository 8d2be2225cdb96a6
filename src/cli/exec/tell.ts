/** Standard error, which belfry shares with the program. */
import { writeSync } from 'node:fs';

const STDERR = 2;
/** Milliseconds until a full pipe is tried again. */
const PAUSE = 5;

/**
 * Writes a text, and waits while its reader is busy. Not by process.stderr: that makes a pipe non-blocking for the program as well, whose own writes then fail
 * with EAGAIN. Where nobody listens nothing is told, and the program goes on.
 */
export function tell(text: string): void {
  for (let rest = Buffer.from(text); rest.length > 0; ) {
    try {
      rest = rest.subarray(writeSync(STDERR, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE);
    }
  }
}
