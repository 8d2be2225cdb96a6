/** Interrupts under `node --trace-gc`: what stands between the lines "begin" and "end" counts. */
import { writeSync } from 'node:fs';
import { Count } from '../../dist/ports/ledger.js';
import { bootGuests } from '../support/guests.mjs';
import { bootHostDriver } from '../support/host.mjs';

const VECTORS = 2048;
const WARM_UP = 1_000_000;
const [scene, interrupts] = process.argv.slice(2);

function hostScene() {
  const { port, counter } = bootHostDriver(VECTORS);
  return {
    raise: (operations) => {
      for (let n = 0; n < operations; n++) port.raise(n & (VECTORS - 1));
    },
    arrived: () => counter.seen,
  };
}

function guestScene() {
  const { host } = bootGuests(1, VECTORS);
  const [port] = host.machine.pci.functions;
  const { tap, work } = host.machine;
  return {
    raise: (operations) => {
      for (let n = 0; n < operations; n++) {
        port.raise(n & (VECTORS - 1));
        work.drain();
      }
    },
    arrived: () => tap.ledger[Count.DELIVERED],
  };
}

const { raise, arrived } = scene === 'host' ? hostScene() : guestScene();
for (let i = 0; i < 10; i++) raise(WARM_UP / 10);
// What setting up left behind goes before counting begins.
const full = [];
for (let i = 0; i < 2e6; i++) full[i & 1023] = { i };

const before = arrived();
writeSync(1, 'begin\n');
raise(Number(interrupts));
writeSync(1, 'end\n');
if (arrived() - before !== Number(interrupts)) throw new Error('interrupts were lost');
