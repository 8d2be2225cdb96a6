/** Real Linux behind the Kernel port, without a device: requests, memory and eventfds as VFIO's, on files that every machine has. */
import { LinuxKernel } from '../../dist/linux/index.js';
import { inSlices, serveRounds } from '../support/rounds.mjs';

/** Of a file: how many bytes are left in it. */
const FIONREAD = 0x541b;
const WORDS = 65_536;
const STEP = 40_503;

const kernel = await LinuxKernel.load();
const file = kernel.memfd('bench', WORDS * 4);
const argument = new Uint8Array(new ArrayBuffer(128), 0, 32);
const registers = kernel.mmap(file, 0, WORDS * 4);
const eventfd = kernel.eventfd();
const buffer = kernel.allocate(WORDS * 4);
const memory = new Uint32Array(buffer.bytes.buffer, buffer.bytes.byteOffset, WORDS);
const own = new Uint32Array(WORDS);
let sum = 0;

function request(from, end) {
  for (let i = from; i < end; i++)
    if (kernel.ioctl(file, FIONREAD, argument) !== 0) throw new Error('the request failed');
}

function registerRead(from, end) {
  for (let i = from; i < end; i++) sum = (sum + registers.read32((i & (WORDS - 1)) * 4)) | 0;
}

function registerWrite(from, end) {
  for (let i = from; i < end; i++) registers.write32((i & (WORDS - 1)) * 4, i);
}

/** Each word depends on another, so that neither side does several at once. */
function memoryWords(words, from, end) {
  for (let i = from; i < end; i++) {
    const at = Math.imul(i, STEP) & (WORDS - 1);
    words[at] = words[(at + 1) & (WORDS - 1)] + i;
  }
}

function signal(from, end) {
  for (let i = from; i < end; i++) {
    eventfd.signal();
    if (eventfd.drain() !== 1) throw new Error('the count is not 1');
  }
}

serveRounds({
  request: (operations) => inSlices(operations, request),
  'register-read': (operations) => {
    inSlices(operations, registerRead);
    return sum;
  },
  'register-write': (operations) => inSlices(operations, registerWrite),
  memory: (operations) => inSlices(operations, (from, end) => memoryWords(memory, from, end)),
  array: (operations) => inSlices(operations, (from, end) => memoryWords(own, from, end)),
  signal: (operations) => inSlices(operations, signal),
});
process.exit(0);
