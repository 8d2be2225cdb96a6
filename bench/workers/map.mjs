import { PageTable } from '../../dist/kernel/iommu/pgtable.js';
import { lpaeFormat } from '../../dist/kernel/iommu/pgtable-format.js';
import { RamMemory } from '../../dist/machine/memory.js';
import { Prot } from '../../dist/ports/iommu.js';
import { inSlices, serveRounds, shuffled } from '../support/rounds.mjs';

const RUN = 262_144;
const PAGES = 65_536;
const PA = 0x90_0000_1000;
const PROT = Prot.READ | Prot.WRITE | Prot.NOEXEC;

const memory = new RamMemory([{ base: 0x80_0000_0000, size: 2 ** 30 }]);
const table = new PageTable(memory, lpaeFormat(1, 12, 48, 48));
const order = shuffled(PAGES);
const scattered = (i) => 0x2_0000_0000 + i * 8192;
for (let i = 0; i < PAGES; i++) table.map(scattered(i) + 4096, PA, 4096, PROT);

let at = 0;

function run(pages) {
  const size = RUN * 4096;
  for (let done = 0; done < pages; done += RUN) {
    if (table.map(0x1_0000_0000, PA, size, PROT) !== 0) throw new Error('a run was not mapped');
    if (table.unmap(0x1_0000_0000, size) !== size) throw new Error('a run was not unmapped');
    // As a domain does after the invalidation.
    table.reclaim();
  }
}

/** The tables stay: every page next to it is mapped. */
function single(operations) {
  inSlices(operations, (from, end) => singles(table, end - from));
}

function singles(table, operations) {
  for (let n = 0; n < operations; n++) {
    const iova = scattered(order[at]);
    if (table.map(iova, PA, 4096, PROT) !== 0) throw new Error('a page was not mapped');
    if (table.unmap(iova, 4096) !== 4096) throw new Error('a page was not unmapped');
    table.reclaim();
    at = (at + 1) & (PAGES - 1);
  }
}

serveRounds({ run, single });
