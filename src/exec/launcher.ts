/**
 * The program's first life where stub/ has none for the machine: a small Node process that installs the filter on itself, hands its listener over and
 * becomes the program. Run as `node launcher.js FILTER(hex) PROGRAM ARGS…` with pipes on descriptors 3 (out) and 4 (in).
 */
import { readSync, writeSync } from 'node:fs';
import { Libc } from '../libc/libc.ts';
import { cLibrary } from '../libc/library.ts';

const F_SETFD = 2;
const PR_SET_NO_NEW_PRIVS = 38;
const SECCOMP_SET_MODE_FILTER = 1;
/** NEW_LISTENER, and WAIT_KILLABLE_RECV (Linux 5.19): a signal must not make a call that is being served start again. */
const FILTER_FLAGS = [0x08 | 0x20, 0x08];
const SIGPIPE = 13;
const SIGXFSZ = 25;
const ENOENT = 2;

const [filterText = '', ...argv] = process.argv.slice(2);
const libc = await Libc.load();
const library = cLibrary(libc.koffi);
const fcntl = library.func('int fcntl(int fd, int command, int argument)');
const prctl = library.func('int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)');
const syscall = library.func('int syscall(long number, long operation, long flags, void *argument)');
const signal = library.func('uint64_t signal(int number, uint64_t handler)');
const execvp = library.func('int execvp(const char *file, void *arguments)');

// Everything that needs memory first: between the filter and exec as little as possible happens.
const program = sockProgram(Buffer.from(filterText, 'hex'));
const pointers = argumentVector(argv);
const word = Buffer.alloc(8);
for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 0);
for (const fd of [3, 4]) fcntl(fd, F_SETFD, 1);
// Node ignores both; the program would inherit that.
for (const number of [SIGPIPE, SIGXFSZ]) signal(number, 0);
prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
const listener = install();
tell(listener);
if (listener < 0) process.exit(125);
// Without an answer nobody would serve the program.
if (readSync(4, word, 0, 1, null) !== 1) process.exit(125);
execvp(argv[0] ?? '', pointers);
const error = libc.koffi.errno();
tell(error);
process.exit(error === ENOENT ? 127 : 126);

/** A number of 4 bytes. */
function tell(number: number): void {
  word.writeInt32LE(number);
  writeSync(3, word, 0, 4);
}

/** The listener's descriptor, or -errno. */
function install(): number {
  const number = process.arch === 'x64' ? 317 : 277;
  for (const flags of FILTER_FLAGS) {
    const fd = Number(syscall(number, SECCOMP_SET_MODE_FILTER, flags, program));
    if (fd >= 0) return fd;
  }
  return -libc.koffi.errno();
}

/** struct sock_fprog (len@0, pointer@8) with the filter behind it. */
function sockProgram(filter: Uint8Array): Uint8Array {
  const { address, bytes } = memory(16 + filter.length);
  bytes.set(filter, 16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, filter.length / 8, true);
  view.setBigUint64(8, BigInt(address + 16), true);
  return bytes;
}

/** char *argv[] with its strings behind it. */
function argumentVector(values: readonly string[]): Uint8Array {
  const strings = values.map((value) => Buffer.from(`${value}\0`));
  const table = 8 * (values.length + 1);
  const { address, bytes } = memory(strings.reduce((sum, { length }) => sum + length, table));
  const view = new DataView(bytes.buffer);
  let at = table;
  strings.forEach((string, i) => {
    bytes.set(string, at);
    view.setBigUint64(8 * i, BigInt(address + at), true);
    at += string.length;
  });
  return bytes;
}

function memory(length: number): { address: number; bytes: Uint8Array } {
  const mapped = libc.allocate(length);
  if (typeof mapped === 'number') throw new RangeError(`no memory for ${length} bytes: errno ${-mapped}`);
  return { address: mapped.address, bytes: new Uint8Array(mapped.view()) };
}
