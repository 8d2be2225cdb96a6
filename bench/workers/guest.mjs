import { Count } from '../../dist/ports/ledger.js';
import { bootGuests } from '../support/guests.mjs';
import { inSlices, randomSequence, serveRounds } from '../support/rounds.mjs';

const ORDER = 65_536;
/** One scene in a process: which is the argument. */
const scene = process.argv[2] ?? 'guest-1x1';
const [devices, vectors] = scene.split('-')[1].split('x').map(Number);

const { host } = bootGuests(devices, vectors);
const { functions } = host.machine.pci;
const { ledger } = host.machine.tap;
const { work } = host.machine;

const random = randomSequence();
const deviceOrder = new Int32Array(ORDER);
const vectorOrder = new Int32Array(ORDER);
for (let i = 0; i < ORDER; i++) {
  deviceOrder[i] = random() % devices;
  vectorOrder[i] = random() % vectors;
}

/** Each interrupt is acknowledged and ended before the next is raised. */
function raise(operations) {
  const before = ledger[Count.DELIVERED];
  inSlices(operations, raiseEach);
  if (ledger[Count.DELIVERED] - before !== operations) throw new Error('interrupts were lost');
}

function raiseEach(from, end) {
  const last = ORDER - 1;
  for (let n = from; n < end; n++) {
    functions[deviceOrder[n & last]].raise(vectorOrder[n & last]);
    work.drain();
  }
}

serveRounds({ [scene]: raise });
