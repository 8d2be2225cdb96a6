import { stage1Geometry } from '../../dist/arch/lpae/geometry.js';
import { Stage } from '../../dist/machine/smmu/stage.js';
import { TableWalker } from '../../dist/machine/smmu/walker.js';
import { highHalf, lowHalf } from '../../dist/ports/address.js';
import { Prot } from '../../dist/ports/iommu.js';
import { Access, Transaction } from '../../dist/ports/transaction.js';
import { bootHost } from '../support/host.mjs';
import { inSlices, randomSequence, serveRounds } from '../support/rounds.mjs';

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

/** One object for all, as a device has it. */
const transaction = new Transaction();
transaction.requester = SID;
transaction.access = Access.WRITE;
transaction.iovaHi = HIGH;

function translate(iommu, tx, addresses, from, end) {
  const mask = SAMPLES - 1;
  let mixed = 0;
  for (let n = from; n < end; n++) {
    tx.iovaLo = addresses[n & mask];
    if (iommu.translate(tx) !== 0) throw new Error('refused');
    mixed ^= tx.paLo;
  }
  return mixed;
}

const walker = new TableWalker(host.machine.memory);
const { base } = domain.table;
const stage = new Stage(1, stage1Geometry(12, 48), {
  tableHi: highHalf(base),
  tableLo: lowHalf(base),
  outputBits: 48,
  hierarchical: true,
});

function walk(by, addresses, from, end) {
  const mask = SAMPLES - 1;
  let mixed = 0;
  for (let n = from; n < end; n++) {
    if (by.walk(stage, null, HIGH, addresses[n & mask], 2) !== 0) throw new Error('refused');
    mixed ^= by.outLo;
  }
  return mixed;
}

serveRounds({
  hit: (n) => inSlices(n, (from, end) => translate(smmu, transaction, narrow, from, end)),
  miss: (n) => inSlices(n, (from, end) => translate(smmu, transaction, wide, from, end)),
  'walk-1G': (n) => inSlices(n, (from, end) => walk(walker, wide, from, end)),
  'walk-4M': (n) => inSlices(n, (from, end) => walk(walker, narrow, from, end)),
});
