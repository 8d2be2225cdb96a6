import { stage1Geometry } from '../../dist/arch/lpae/geometry.js';
import { Stage } from '../../dist/machine/smmu/stage.js';
import { TableWalker } from '../../dist/machine/smmu/walker.js';
import { highHalf, lowHalf } from '../../dist/ports/address.js';
import { Prot } from '../../dist/ports/iommu.js';
import { Access, Status, Transaction } from '../../dist/ports/transaction.js';
import { bootHost } from '../support/host.mjs';
import { randomSequence, serveRounds } from '../support/rounds.mjs';

const SAMPLES = 65_536;
const SID = 0x100;
const BASE = 0x1_0000_0000;

const host = bootHost({ driver: null });
const smmu = host.machine.iommu;
const domain = host.iommuDriver.allocate(SID, 1);
// 4 KiB beside the alignment of a block: every page gets its own entry.
if (domain.map(BASE, 0x80_4000_1000, 2 ** 30, Prot.READ | Prot.WRITE | Prot.NOEXEC) !== 0) throw new Error('map');
if (host.iommuDriver.attach(SID, domain) !== 0) throw new Error('attach');

const random = randomSequence();
const wide = new Int32Array(SAMPLES);
const narrow = new Int32Array(SAMPLES);
for (let i = 0; i < SAMPLES; i++) {
  wide[i] = lowHalf(BASE + (random() & 0x3fff_fffc));
  narrow[i] = lowHalf(BASE + (random() & 0x3f_fffc));
}
const HIGH = highHalf(BASE);

function translate(addresses, operations) {
  const tx = new Transaction();
  tx.requester = SID;
  tx.access = Access.WRITE;
  tx.iovaHi = HIGH;
  let low = 0;
  for (let n = 0; n < operations; n++) {
    tx.iovaLo = addresses[n & (SAMPLES - 1)];
    if (smmu.translate(tx) !== Status.OK) throw new Error('refused');
    low = (low + tx.paLo) | 0;
  }
  return low;
}

const walker = new TableWalker(host.machine.memory);
const { base } = domain.table;
const stage = new Stage(1, stage1Geometry(12, 48), {
  tableHi: highHalf(base),
  tableLo: lowHalf(base),
  outputBits: 48,
  hierarchical: true,
});

function walk(addresses, operations) {
  let low = 0;
  for (let n = 0; n < operations; n++) {
    if (walker.walk(stage, null, HIGH, addresses[n & (SAMPLES - 1)], Access.WRITE) !== 0) throw new Error('refused');
    low = (low + walker.outLo) | 0;
  }
  return low;
}

serveRounds({
  hit: (n) => translate(narrow, n),
  miss: (n) => translate(wide, n),
  'walk-1G': (n) => walk(wide, n),
  'walk-4M': (n) => walk(narrow, n),
});
