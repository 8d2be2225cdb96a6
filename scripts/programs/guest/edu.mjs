/**
 * Runs in the guest, by Node: the edu device that was passed through, driven by the guest's own VFIO. The guest has no IOMMU, so the group is one
 * without; a DMA address is the guest's physical one, found in /proc/self/pagemap, and the simulated host translates it.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LinuxKernel } from 'belfry/linux';

const PAGE = 4096;
const NO_IOMMU = 8;
const kernel = await LinuxKernel.load();
const request = (number) => 0x3b64 + number;
const words = (...values) => new Uint8Array(Uint32Array.from(values).buffer);

const name = readdirSync('/sys/bus/pci/devices').find((each) => attribute(each, 'device') === '0x11e8');
const group = basename(readlinkSync(`/sys/bus/pci/devices/${name}/iommu_group`));
const container = need(kernel.open('/dev/vfio/vfio'), 'container');
const file = need(kernel.open(`/dev/vfio/noiommu-${group}`), 'group');
need(kernel.ioctl(file, request(4), words(container)), 'VFIO_GROUP_SET_CONTAINER');
need(kernel.ioctl(container, request(2), NO_IOMMU), 'VFIO_SET_IOMMU');
const device = need(kernel.ioctl(file, request(6), Buffer.from(`${name}\0`)), 'VFIO_GROUP_GET_DEVICE_FD');
need(kernel.pwrite(device, Uint8Array.of(6, 0), 7 * 2 ** 40 + 4), 'COMMAND');
const interrupts = kernel.eventfd();
need(kernel.ioctl(device, request(10), words(24, 0x24, 1, 0, 1, interrupts.fd)), 'VFIO_DEVICE_SET_IRQS');

write(4, 0x1234_5678);
console.log(`edu 0x${read(0).toString(16)}, liveness 0x${read(4).toString(16)}`);
write(0x20, 0x80);
write(0x08, 10);
const count = await wait();
console.log(`10! = ${read(0x08)}, interrupts ${count}, status 0x${read(0x24).toString(16)}`);
write(0x64, 1);

const memory = kernel.allocate(2 * PAGE, PAGE);
for (let i = 0; i < PAGE; i += 1) memory.bytes[i] = i * 7 + 3;
memory.bytes.fill(0, PAGE);
await dma(physical(memory.address), 0x4_0000, 0);
await dma(0x4_0000, physical(memory.address + PAGE), 2);
const same = Buffer.compare(memory.bytes.subarray(0, PAGE), memory.bytes.subarray(PAGE)) === 0;
console.log(`DMA of ${PAGE} bytes there and back: ${same ? 'same' : 'different'}`);
const line = readFileSync('/proc/interrupts', 'utf8')
  .split('\n')
  .find((each) => each.includes('vfio-msi'));
console.log(line?.trim() ?? 'no interrupt of vfio');
process.exit(0);

function attribute(each, of) {
  return readFileSync(`/sys/bus/pci/devices/${each}/${of}`, 'utf8').trim();
}

function need(result, what) {
  if (typeof result === 'number' && result >= 0) return result;
  console.log(`${what}: ${result}`);
  process.exit(1);
}

function read(offset) {
  const bytes = new Uint8Array(4);
  need(kernel.pread(device, bytes, offset), `read of ${offset}`);
  return new DataView(bytes.buffer).getUint32(0, true);
}

function write(offset, value) {
  need(kernel.pwrite(device, words(value), offset), `write of ${offset}`);
}

async function wait() {
  for (let turn = 0; turn < 500; turn += 1) {
    const taken = interrupts.drain();
    if (taken > 0) return taken;
    await sleep(10);
  }
  console.log('no interrupt within 5 s');
  process.exit(1);
}

async function dma(from, to, command) {
  for (const [i, address] of [from, to].entries()) {
    write(0x80 + 8 * i, address % 2 ** 32);
    write(0x84 + 8 * i, Math.floor(address / 2 ** 32));
  }
  write(0x90, PAGE);
  write(0x98, command | 1 | 4);
  await wait();
  write(0x64, 0x100);
}

/** Bits 54:0 of an entry of pagemap are the frame. */
function physical(address) {
  const map = openSync('/proc/self/pagemap', 'r');
  const entry = new BigUint64Array(1);
  readSync(map, new Uint8Array(entry.buffer), 0, 8, (address / PAGE) * 8);
  closeSync(map);
  return Number(entry[0] & 0x7f_ffff_ffff_ffffn) * PAGE;
}
