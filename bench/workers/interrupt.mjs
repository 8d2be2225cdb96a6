import { bootHostDriver } from '../support/host.mjs';
import { inSlices, randomSequence, serveRounds } from '../support/rounds.mjs';

const VECTORS = 2048;
const ORDER = 65_536;

const { port, counter } = bootHostDriver(VECTORS);

const random = randomSequence();
const order = Int32Array.from({ length: ORDER }, () => random() & (VECTORS - 1));

function raise(operations, mask) {
  const before = counter.seen;
  inSlices(operations, (from, end) => raiseEach(port, from, end, mask));
  if (((counter.seen - before) | 0) !== operations) throw new Error('interrupts were lost');
}

function raiseEach(device, from, end, mask) {
  const last = ORDER - 1;
  for (let n = from; n < end; n++) device.raise(order[n & last] & mask);
}

serveRounds({
  'host-1': (n) => raise(n, 0),
  'host-2048': (n) => raise(n, -1),
});
