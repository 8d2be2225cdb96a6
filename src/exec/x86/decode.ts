/**
 * x86-64 instructions with a memory operand, from their bytes (Intel SDM volume 2, appendix A: opcode maps; 2.1: prefixes and ModRM). What is not in the
 * table here (VEX and EVEX, x87, shifts, calls and jumps through memory) is answered with null.
 */
import { Bytes } from './bytes.ts';
import { vectorAction } from './decode-vector.ts';
import type { Action, Arithmetic, Instruction, MemoryOperand, RegisterOperand, Source, Width } from './instruction.ts';

const ARITHMETIC: readonly Arithmetic[] = ['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp'];
const BITS = ['bt', 'bts', 'btr', 'btc'] as const;

/** What stands before the opcode, and the opcode. */
export interface Head {
  readonly bytes: Bytes;
  /** REX bits; `rex` says whether there was one, which turns ah to bh into spl to dil. */
  readonly rex: boolean;
  readonly w: boolean;
  readonly r: number;
  readonly x: number;
  readonly b: number;
  readonly operand16: boolean;
  readonly address32: boolean;
  readonly repeat: 0 | 0xf2 | 0xf3;
  readonly segment: 'fs' | 'gs' | null;
}

/** A memory operand and the register of a ModRM byte. */
interface ModRm {
  readonly memory: MemoryOperand;
  /** The three bits of `reg`, without REX. */
  readonly group: number;
  /** With REX. */
  readonly register: number;
}

/** At most 15 bytes are looked at. null: not an instruction that is known here, or one that has no memory operand. */
export function decode(code: Uint8Array): Instruction | null {
  const bytes = new Bytes(code);
  const head = readHead(bytes);
  const opcode = bytes.next();
  const found = opcode === 0x0f ? twoBytes(head) : oneByte(head, opcode);
  if (found === null || bytes.overrun) return null;
  return { length: bytes.at, aligned: false, ...found };
}

type Found = Omit<Instruction, 'length' | 'aligned'> & { readonly aligned?: boolean };

function readHead(bytes: Bytes): Head {
  let operand16 = false;
  let address32 = false;
  let repeat: 0 | 0xf2 | 0xf3 = 0;
  let segment: 'fs' | 'gs' | null = null;
  for (;;) {
    const byte = bytes.peek();
    if (byte === 0x66) operand16 = true;
    else if (byte === 0x67) address32 = true;
    else if (byte === 0xf2 || byte === 0xf3) repeat = byte;
    else if (byte === 0x64) segment = 'fs';
    else if (byte === 0x65) segment = 'gs';
    // LOCK, and the segment prefixes that mean nothing in 64-bit mode.
    else if (byte !== 0xf0 && byte !== 0x2e && byte !== 0x36 && byte !== 0x3e && byte !== 0x26) break;
    bytes.next();
  }
  const rex = (bytes.peek() & 0xf0) === 0x40;
  const bits = rex ? bytes.next() : 0;
  return {
    bytes,
    rex,
    w: (bits & 8) !== 0,
    r: (bits & 4) << 1,
    x: (bits & 2) << 2,
    b: (bits & 1) << 3,
    operand16,
    address32,
    repeat,
    segment,
  };
}

/** Bytes of an operand that is no byte. */
const wordOf = ({ w, operand16 }: Head): Width => (w ? 8 : operand16 ? 2 : 4);

function registerOf(head: Head, number: number, width: Width): RegisterOperand {
  const high = width === 1 && !head.rex && number >= 4;
  return { number: high ? number - 4 : number, high };
}

function readModRm(head: Head): ModRm | null {
  const { bytes } = head;
  const byte = bytes.next();
  const mode = byte >> 6;
  if (mode === 3) return null;
  const group = (byte >> 3) & 7;
  const low = byte & 7;
  let base: number | 'rip' | null = low | head.b;
  let index: number | null = null;
  let scale = 1;
  let size = mode === 1 ? 1 : mode === 2 ? 4 : 0;
  if (low === 4) {
    const sib = bytes.next();
    scale = 1 << (sib >> 6);
    const number = ((sib >> 3) & 7) | head.x;
    index = number === 4 ? null : number;
    base = (sib & 7) | head.b;
    if ((sib & 7) === 5 && mode === 0) {
      base = null;
      size = 4;
    }
  } else if (low === 5 && mode === 0) {
    base = 'rip';
    size = 4;
  }
  const displacement = size === 0 ? 0n : bytes.signed(size);
  const { segment } = head;
  const memory = { base, index, scale, displacement, segment, bits: head.address32 ? 32 : 64 } as const;
  return { memory, group, register: group | head.r };
}

/** Immediates are 4 bytes at most and widened with their sign. */
const immediateOf = (head: Head, width: Width): { immediate: bigint } => ({
  immediate: head.bytes.signed(width === 8 ? 4 : width),
});

function oneByte(head: Head, opcode: number): Found | null {
  if (opcode >= 0xa0 && opcode <= 0xa3) return absolute(head, opcode);
  const string = STRINGS[opcode & 0xfe];
  if (string !== undefined) {
    const width = (opcode & 1) === 0 ? 1 : wordOf(head);
    if (head.address32) return null;
    const { segment } = head;
    return { width, memory: null, action: { kind: 'string', what: string, repeated: head.repeat !== 0, segment } };
  }
  if (!hasModRm(opcode)) return null;
  const modrm = readModRm(head);
  if (modrm === null) return null;
  const { memory } = modrm;
  if (opcode === 0x63) return { width: 4, memory, action: loadInto(head, modrm, wordOf(head), true) };
  const width = (opcode & 1) === 0 ? 1 : wordOf(head);
  const action = modRmAction(head, opcode, modrm, width);
  return action === null ? null : { width, memory, action };
}

const STRINGS: Readonly<Record<number, 'movs' | 'stos' | 'lods'>> = { 164: 'movs', 170: 'stos', 172: 'lods' };

const hasModRm = (opcode: number): boolean =>
  (opcode < 0x40 && (opcode & 7) < 4) ||
  opcode === 0x63 ||
  (opcode >= 0x80 && opcode <= 0x8b && opcode !== 0x82) ||
  [0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff].includes(opcode);

function modRmAction(head: Head, opcode: number, { group, register }: ModRm, width: Width): Action | null {
  const operand = registerOf(head, register, width);
  if (opcode < 0x40) return arithmetic(ARITHMETIC[opcode >> 3], operand, (opcode & 2) !== 0);
  switch (opcode) {
    case 0x80:
    case 0x81:
      return arithmetic(ARITHMETIC[group], immediateOf(head, width));
    case 0x83:
      return arithmetic(ARITHMETIC[group], immediateOf(head, 1));
    case 0x84:
    case 0x85:
      return arithmetic('test', operand);
    case 0x86:
    case 0x87:
      return { kind: 'exchange', register: operand };
    case 0x88:
    case 0x89:
      return { kind: 'store', from: operand, swapped: false };
    case 0x8a:
    case 0x8b:
      return { kind: 'load', into: operand, intoWidth: width, signed: false, swapped: false };
    case 0xc6:
    case 0xc7:
      return group === 0 ? { kind: 'store', from: immediateOf(head, width), swapped: false } : null;
    case 0xf6:
    case 0xf7:
      if (group < 2) return arithmetic('test', immediateOf(head, width));
      return group === 2 || group === 3 ? { kind: 'unary', what: group === 2 ? 'not' : 'neg' } : null;
    default:
      return group < 2 ? { kind: 'unary', what: group === 0 ? 'inc' : 'dec' } : null;
  }
}

const arithmetic = (what: Arithmetic | undefined, other: Source, reversed = false): Action | null =>
  what === undefined ? null : { kind: 'arithmetic', what, other, reversed };

const loadInto = (head: Head, { register }: ModRm, intoWidth: Width, signed: boolean): Action => ({
  kind: 'load',
  into: registerOf(head, register, intoWidth),
  intoWidth,
  signed,
  swapped: false,
});

/** mov between the accumulator and an address of 8 bytes in the instruction. */
function absolute(head: Head, opcode: number): Found {
  const width = (opcode & 1) === 0 ? 1 : wordOf(head);
  const displacement = head.address32 ? BigInt.asUintN(32, head.bytes.signed(4)) : head.bytes.signed(8);
  const { segment } = head;
  const memory = { base: null, index: null, scale: 1, displacement, segment, bits: 64 } as const;
  const accumulator = { number: 0, high: false };
  const action: Action =
    opcode < 0xa2
      ? { kind: 'load', into: accumulator, intoWidth: width, signed: false, swapped: false }
      : { kind: 'store', from: accumulator, swapped: false };
  return { width, memory, action };
}

function twoBytes(head: Head): Found | null {
  const opcode = head.bytes.next();
  const third = opcode === 0x38 ? head.bytes.next() : 0;
  if (opcode === 0x3a) return null;
  const modrm = readModRm(head);
  if (modrm === null) return null;
  const { memory, register } = modrm;
  if (opcode === 0x38) return threeBytes(head, third, modrm);
  if (opcode >= 0x40 && opcode <= 0x4f) {
    const width = wordOf(head);
    return {
      width,
      memory,
      action: { kind: 'cmov', condition: opcode & 15, into: registerOf(head, register, width) },
    };
  }
  // movzx, movsx
  if ((opcode & 0xf6) === 0xb6) {
    return {
      width: (opcode & 1) === 0 ? 1 : 2,
      memory,
      action: loadInto(head, modrm, wordOf(head), (opcode & 8) !== 0),
    };
  }
  const width = (opcode & 1) === 0 ? 1 : wordOf(head);
  switch (opcode) {
    case 0xb0:
    case 0xb1:
      return { width, memory, action: { kind: 'cmpxchg', register: registerOf(head, register, width) } };
    case 0xc0:
    case 0xc1:
      return { width, memory, action: { kind: 'xadd', register: registerOf(head, register, width) } };
    case 0xba:
      return bitAction(head, modrm);
    case 0xc3:
      // movnti
      return head.operand16 || head.repeat !== 0
        ? null
        : { width, memory, action: { kind: 'store', from: registerOf(head, register, width), swapped: false } };
    default:
      return vectorAction(head, opcode, register, memory);
  }
}

function bitAction(head: Head, { memory, group }: ModRm): Found | null {
  const what = group < 4 ? undefined : BITS[group - 4];
  const width = wordOf(head);
  const bit = Number(head.bytes.signed(1)) & (8 * width - 1);
  return what === undefined ? null : { width, memory, action: { kind: 'bit', what, bit } };
}

function threeBytes(head: Head, opcode: number, { memory, register }: ModRm): Found | null {
  // movntdqa
  if (opcode === 0x2a && head.operand16)
    return { width: 16, memory, aligned: true, action: { kind: 'vector-load', into: register, part: 'all' } };
  if ((opcode !== 0xf0 && opcode !== 0xf1) || head.repeat !== 0) return null;
  const width = wordOf(head);
  const operand = registerOf(head, register, width);
  return {
    width,
    memory,
    action:
      opcode === 0xf0
        ? { kind: 'load', into: operand, intoWidth: width, signed: false, swapped: true }
        : { kind: 'store', from: operand, swapped: true },
  };
}
