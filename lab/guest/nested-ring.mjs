/**
 * The policy nested: an NVMe drive behind a stage 1 in this process's memory, its MSI-X at an IOVA that this process chose, on an
 * unpatched Linux (`arm64-nesting`), or on a simulated host: `node lab/guest/nested-ring.mjs sim`. The interrupts are the drive's
 * own: it completes commands of its admin queue, which it reaches through the stage 1 too.
 */
import { Ioas, Iommufd, Nested, openDevice } from 'belfry/vfio';
import { findDevice, isNvme, kernelFor, settled } from '../../docs/examples/kernel.mjs';
import { NvmeAdmin } from '../../docs/examples/nvme-admin.mjs';
import { Findings, hex } from './findings.mjs';

const STREAM = 0x42;
/** What the drive calls its memory, and where its interrupts go: nothing of either is known to the kernel. */
const MEMORY = 0x5_0000_0000;
const DOORBELL = 0x7_1234_5000;
const OTHER = 0x3000_0000;
const PAGE = 4096;
/** A while in which nothing must come. */
const QUIET = 500;

const kernel = await kernelFor(process.argv[2] === 'sim' ? 'arm-its' : 'linux');
const found = new Findings('nested ring');
const iommufd = Iommufd.open(kernel);
const ioas = Ioas.create(iommufd);
const device = openDevice(kernel, findDevice(kernel, 'NVMe drive', isNvme), ioas);
const nested = Nested.attach(device, ioas, { streamId: STREAM });
device.config.memoryEnabled = true;
device.config.busMaster = true;
const memory = ioas.mapDma({ length: NvmeAdmin.MEMORY });
nested.map(MEMORY, memory.iova, memory.length);
const registers = device.bar(0).map();
const drive = new NvmeAdmin(kernel, registers, memory.bytes, MEMORY);

await choose();
await rewrittenByTheKernel();
await unmapped();
await invalidation();
await moved();
iommufd.close();
found.end();

/** The address in an MSI-X entry as the device has it, by the mapped table. */
function entry(vector) {
  const at = 0x2000 + vector * 16;
  return registers.read32(at + 4) * 2 ** 32 + registers.read32(at);
}

/** One command, and how many interrupts came: 0 after a while. */
async function identify(vector, patience) {
  drive.submitIdentify();
  const count = await settled(kernel, () => vector.take(), patience);
  // The command is done whether its interrupt arrives or not: a lost one is found by looking.
  const model = await settled(kernel, () => drive.complete());
  return { count, model };
}

async function choose() {
  const state = nested.doorbell.set({ iova: DOORBELL + 0x40 });
  found.expect('the page of the doorbell', hex(state.iova), hex(DOORBELL));
  found.expect('the page of the kernel’s window', hex(state.window), '0x8000000');
  found.expect('who puts it into the entries', state.by, 'table');
  const { granted, vectors } = nested.doorbell.enable(2);
  found.expect('vectors granted', granted, 2);
  found.expect('the entries hold the chosen IOVA', `${hex(entry(0))} ${hex(entry(1))}`, '0x712345040 0x712345040');
  await drive.start();
  // As an event of the library, by the event loop.
  const arrival = vectors[0].next();
  drive.submitIdentify();
  kernel.settle();
  found.expect('an interrupt arrives there', await arrival, 1);
  const model = await settled(kernel, () => drive.complete());
  found.expect('and the command was done', typeof model === 'string' && model !== '', true);
  console.log(`  the drive: ${model}`);
  found.expect('no records', nested.events().length, 0);
}

/** Until the repair the entry holds the kernel's own address, which stage 1 maps to itself: nothing is lost. */
async function rewrittenByTheKernel() {
  const [vector] = device.msix.vectors;
  device.msix.program(0, [vector.target]);
  found.expect('the kernel rewrote the entry', hex(entry(0)), '0x8000040');
  found.expect('its interrupt arrives before the repair', (await identify(vector)).count, 1);
  found.expect('entries repaired', nested.doorbell.repair(), 1);
  found.expect('the entry holds the chosen IOVA again', hex(entry(0)), '0x712345040');
  found.expect('its interrupt arrives after it', (await identify(vector)).count, 1);
}

async function unmapped() {
  const [vector] = device.msix.vectors;
  found.expect('bytes unmapped, with invalidation', nested.unmap(DOORBELL, PAGE), PAGE);
  const { count, model } = await identify(vector, QUIET);
  found.expect('the interrupt is lost', count, 0);
  found.expect('the command was done all the same', typeof model === 'string', true);
  const events = nested.events();
  found.expect(
    'the record',
    events.map(({ name, streamId, input }) => `${name} ${hex(streamId)} ${hex(input)}`).join(),
    'F_TRANSLATION 0x42 0x712345040',
  );
  found.expect('its words', events[0]?.words.map(hex).join(' '), '0x4200000010 0x20000000000 0x712345040 0x0');
  nested.map(DOORBELL, nested.doorbell.state.window, PAGE, 'device');
  found.expect('mapped again it arrives', (await identify(vector)).count, 1);
  found.expect('without a record', nested.events().length, 0);
}

/** The commands of a guest's own queue, as they are. */
async function invalidation() {
  const [vector] = device.msix.vectors;
  const invalidateAsid = [0x11n | (1n << 48n), 0n];
  found.expect('an interrupt, so that the translation is remembered', (await identify(vector)).count, 1);
  nested.invalidate([invalidateAsid]);
  found.expect('TLBI_NH_ASID: it arrives by a new walk', (await identify(vector)).count, 1);
  const refusal = found.refusal(() => nested.invalidate([[0x28n, 0n]]));
  found.expect('TLBI_EL2_ALL is no command of a guest', refusal, 'EIO');
}

async function moved() {
  const [vector] = device.msix.vectors;
  nested.doorbell.set({ iova: OTHER });
  found.expect('moved while it is enabled', `${hex(entry(0))} ${hex(entry(1))}`, '0x30000040 0x30000040');
  found.expect('it arrives at the new place', (await identify(vector)).count, 1);
  found.expect('the old place is free', nested.lookup(DOORBELL), null);
  nested.doorbell.clear();
  found.expect('cleared, the window’s', hex(entry(0)), '0x8000040');
  found.expect('and it arrives', (await identify(vector)).count, 1);
  found.expect('no records since', nested.events().length, 0);
}
