/** The executable that a program's process starts as: an ELF file of one segment, made for one run, with the run's filter and path in it. */
import { type Instruction, X64_CODE } from './x64-code.ts';

/** Where it is loaded, and where its data starts; the instructions name both. */
const BASE = 0x40_0000;
const DATA = 0x200;
/** struct sock_fprog: count@0, address@8. */
const FILTER_COUNT = DATA;
const FILTER_ADDRESS = DATA + 0x08;
const PATH_ADDRESS = DATA + 0x10;
const SHELL = DATA + 0x18;
const FILTER = DATA + 0x20;

const HEADER = 64;
const PROGRAM_HEADER = 56;
const CODE = HEADER + 2 * PROGRAM_HEADER;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_GNU_STACK = 0x6474_e551;
const EXECUTABLE = 1;
const WRITABLE = 2;
const READABLE = 4;
/** A multiple of every page size. */
const ALIGNMENT = 0x1_0000;

/**
 * `filter`: struct sock_filter, 8 bytes each. `path`: what is executed, with the arguments and the environment that the image was started with.
 * null: there is none for this architecture.
 */
export function stubImage(architecture: string, filter: Uint8Array, path: string): Uint8Array | null {
  if (architecture !== 'x64') return null;
  const code = bytesOf(X64_CODE);
  const name = Buffer.from(`${path}\0`);
  const at = FILTER + filter.length;
  const image = new Uint8Array(new ArrayBuffer(at + name.length));
  const view = new DataView(image.buffer);
  writeHeaders(view);
  image.set(code, CODE);
  view.setUint16(FILTER_COUNT, filter.length / 8, true);
  view.setUint32(FILTER_ADDRESS, BASE + FILTER, true);
  view.setUint32(PATH_ADDRESS, BASE + at, true);
  image.set(Buffer.from('/bin/sh\0'), SHELL);
  image.set(filter, FILTER);
  image.set(name, at);
  return image;
}

const bytesOf = (code: readonly Instruction[]): Uint8Array =>
  Buffer.from(code.map(([bytes]) => bytes.replaceAll(' ', '')).join(''), 'hex');

/** ELF64, little endian, ET_EXEC (gABI, chapters 4 and 5): a segment that is read and executed, and a stack that is not executed. */
function writeHeaders(view: DataView): void {
  const size = view.byteLength;
  view.setUint32(0, 0x7f45_4c46);
  view.setUint32(4, 0x0201_0100);
  view.setUint16(16, 2, true);
  view.setUint16(18, EM_X86_64, true);
  view.setUint32(20, 1, true);
  view.setUint32(24, BASE + CODE, true);
  view.setUint32(32, HEADER, true);
  view.setUint16(52, HEADER, true);
  view.setUint16(54, PROGRAM_HEADER, true);
  view.setUint16(56, 2, true);
  segment(view, HEADER, PT_LOAD, READABLE | EXECUTABLE, size);
  segment(view, HEADER + PROGRAM_HEADER, PT_GNU_STACK, READABLE | WRITABLE, 0);
}

/** Elf64_Phdr: type@0, flags@4, offset@8, virtual address@16, physical@24, size in the file@32, in memory@40, alignment@48. */
function segment(view: DataView, at: number, type: number, flags: number, size: number): void {
  view.setUint32(at, type, true);
  view.setUint32(at + 4, flags, true);
  if (type === PT_LOAD) {
    view.setUint32(at + 16, BASE, true);
    view.setUint32(at + 24, BASE, true);
  }
  view.setUint32(at + 32, size, true);
  view.setUint32(at + 40, size, true);
  view.setUint32(at + 48, ALIGNMENT, true);
}
