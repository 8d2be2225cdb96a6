import { bootHostDriver } from '../support/host.mjs';
import { randomSequence, serveRounds } from '../support/rounds.mjs';

const VECTORS = 2048;
const ORDER = 65_536;

const { port, counter } = bootHostDriver(VECTORS);

const random = randomSequence();
const order = Int32Array.from({ length: ORDER }, () => random() & (VECTORS - 1));

function raise(operations, mask) {
  const before = counter.seen;
  for (let n = 0; n < operations; n++) port.raise(order[n & (ORDER - 1)] & mask);
  if (((counter.seen - before) | 0) !== operations) throw new Error('interrupts were lost');
}

serveRounds({
  'host-1': (n) => raise(n, 0),
  'host-2048': (n) => raise(n, -1),
});
