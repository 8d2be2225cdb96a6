/**
 * The worker's side of a round: a line of standard input names a case and a number of operations, the answer is nanoseconds of CPU
 * time per operation, of all threads of the process: a machine with other work on it takes the CPU away in the middle of a round.
 * Input is read without the event loop, so that nothing runs between rounds.
 */
import { readSync, writeSync } from 'node:fs';

/** @param {Record<string, (operations: number) => unknown>} cases an answer keeps the compiler from dropping what computes it @param {(name: string) => void} [prepare] before each round, untimed */
export function serveRounds(cases, prepare = () => {}) {
  const buffer = Buffer.alloc(256);
  let text = '';
  for (;;) {
    const end = text.indexOf('\n');
    if (end < 0) {
      const length = readSync(0, buffer);
      if (length === 0) return;
      text += buffer.toString('latin1', 0, length);
      continue;
    }
    const [name, operations] = text.slice(0, end).split(' ');
    text = text.slice(end + 1);
    writeSync(1, `${timed(cases[name], Number(operations), () => prepare(name))}\n`);
  }
}

function timed(run, operations, prepare) {
  prepare();
  const before = process.cpuUsage();
  run(operations);
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1000) / operations;
}

const SLICE = 1024;

/**
 * `run(from, end)` for slices of 0 to `operations`: a loop of millions would run in code that was made for the middle of a loop (on-stack
 * replacement), which V8 optimizes less well than a function that is called.
 */
export function inSlices(operations, run) {
  for (let from = 0; from < operations; from += SLICE) run(from, Math.min(from + SLICE, operations));
}

/** A reproducible sequence (xorshift32); the C side has the same. */
export function randomSequence(seed = 0x9e3779b9) {
  let state = seed | 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** 0 to count - 1 in random order. */
export function shuffled(count, random = randomSequence()) {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = random() % (i + 1);
    const kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
  return order;
}
