// kill -9 at any moment: node kill-counts.mjs PROGRAM KILLS SEED, where PROGRAM is device-program. One driver's processes are killed one after the other
// while another driver works on another device of the same host. After each kill everything of the victim must be back. Prints a line of JSON.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const dist = process.env.BELFRY_DIST ?? join(import.meta.dirname, '..', '..', 'dist');
const { runProgram } = await import(join(dist, 'exec', 'index.js'));
const { Machine, preset } = await import(join(dist, 'machine', 'index.js'));
const { bootLinux } = await import(join(dist, 'kernel', 'index.js'));
const { createDevice } = await import(join(dist, 'devices', 'index.js'));

const [program, kills = '40', seed = '1'] = process.argv.slice(2);
const device = { at: '00.0', kind: 'function', device: 'bell' };
const port = (at) => ({ at, kind: 'root-port', acs: true, below: [device] });
const spec = preset('arm-its');
const machine = new Machine({ ...spec, pci: { ...spec.pci, slots: [port('01.0'), port('02.0')] } }, createDevice);
const host = bootLinux(machine, { abi: 'linux-7.2' });
const victim = host.pciDevices.find(({ name }) => name === '0000:01:00.0');

/** Everything that a killed driver may have had, and what the others have. */
const counts = ({ files, eventfds, pinned }) => ({
  ...{ files, eventfds, pinned },
  vectors: host.msi.mode(victim),
  translates: victim.iommuGroup.domain === victim.iommuGroup.defaultDomain,
  tables: machine.memory.allocated,
  processes: host.kernel.processes.size,
  descriptors: readdirSync('/proc/self/fd').length,
});

let before = null;
let ended = 0;
const different = [];
const script = `"$0" 0000:02:00.0 pattern & while ! "$0" 0000:01:00.0 open || ! "$0" 0000:01:00.0 open; do :; done; sleep 0.2
"$0" 0000:01:00.0 open; "$0" 0000:01:00.0 kills ${kills} ${seed}; kill $!; wait`;
const result = await runProgram(() => host, ['sh', '-c', script, program], {
  onEnd(name, left) {
    if (name === 'victim') ended += 1;
    const now = JSON.stringify(counts(left));
    // The last one before the kills says what there is without a victim.
    if (ended === 0) before = now;
    else if (name === 'victim' && now !== before) different.push({ kill: ended, before, now });
  },
  onError: (error) => console.error(error),
});
const { ledger } = machine.tap;
console.log(
  JSON.stringify({
    ended,
    different,
    before: JSON.parse(before),
    status: result.status,
    sent: ledger[0],
    delivered: ledger[1],
  }),
);
