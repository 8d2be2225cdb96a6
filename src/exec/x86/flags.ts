/** The arithmetic flags of RFLAGS (Intel SDM volume 1, 3.4.3.1), and what integer instructions leave in them. */
import type { Arithmetic } from './instruction.ts';

const CF = 1n;
const PF = 4n;
const AF = 0x10n;
const ZF = 0x40n;
const SF = 0x80n;
const DF = 0x400n;
const OF = 0x800n;

export interface Outcome {
  /** Of as many bits as the operands. */
  readonly value: bigint;
  readonly flags: bigint;
}

/** `left` and `right` are unsigned and of `bits` bits; flags that the instruction does not define stay. */
export function compute(what: Arithmetic, left: bigint, right: bigint, bits: number, flags: bigint): Outcome {
  switch (what) {
    case 'add':
      return sum(left, right, 0n, bits, flags);
    case 'adc':
      return sum(left, right, flags & CF, bits, flags);
    case 'sub':
    case 'cmp':
      return difference(left, right, 0n, bits, flags);
    case 'sbb':
      return difference(left, right, flags & CF, bits, flags);
    case 'or':
      return logic(left | right, bits, flags);
    case 'xor':
      return logic(left ^ right, bits, flags);
    default:
      return logic(left & right, bits, flags);
  }
}

/** inc and dec leave CF alone. */
export function step(what: 'inc' | 'dec', value: bigint, bits: number, flags: bigint): Outcome {
  const done = compute(what === 'inc' ? 'add' : 'sub', value, 1n, bits, flags);
  return { value: done.value, flags: (done.flags & ~CF) | (flags & CF) };
}

export const carry = (flags: bigint, set: boolean): bigint => (set ? flags | CF : flags & ~CF);

/** The direction of string instructions: 1 or -1. */
export const direction = (flags: bigint): bigint => ((flags & DF) === 0n ? 1n : -1n);

/** A condition of the opcode's low four bits (Intel SDM volume 1, appendix B). */
export function holds(condition: number, flags: bigint): boolean {
  const set = (bit: bigint): boolean => (flags & bit) !== 0n;
  const plain = [
    () => set(OF),
    () => set(CF),
    () => set(ZF),
    () => set(CF) || set(ZF),
    () => set(SF),
    () => set(PF),
    () => set(SF) !== set(OF),
    () => set(ZF) || set(SF) !== set(OF),
  ][condition >> 1]!();
  return (condition & 1) === 0 ? plain : !plain;
}

function sum(left: bigint, right: bigint, carried: bigint, bits: number, flags: bigint): Outcome {
  const all = left + right + carried;
  const value = BigInt.asUintN(bits, all);
  const overflow = (left ^ value) & (right ^ value) & top(bits);
  return result(value, all !== value, left ^ right ^ value, overflow !== 0n, bits, flags);
}

function difference(left: bigint, right: bigint, borrowed: bigint, bits: number, flags: bigint): Outcome {
  const all = left - right - borrowed;
  const value = BigInt.asUintN(bits, all);
  const overflow = (left ^ right) & (left ^ value) & top(bits);
  return result(value, all < 0n, left ^ right ^ value, overflow !== 0n, bits, flags);
}

const logic = (value: bigint, bits: number, flags: bigint): Outcome => result(value, false, 0n, false, bits, flags);

const top = (bits: number): bigint => 1n << BigInt(bits - 1);

function result(value: bigint, carried: boolean, half: bigint, overflow: boolean, bits: number, old: bigint): Outcome {
  let flags = old & ~(CF | PF | AF | ZF | SF | OF);
  if (carried) flags |= CF;
  if (evenBits(Number(value & 0xffn))) flags |= PF;
  flags |= half & AF;
  if (value === 0n) flags |= ZF;
  if ((value & top(bits)) !== 0n) flags |= SF;
  if (overflow) flags |= OF;
  return { value, flags };
}

function evenBits(byte: number): boolean {
  let folded = byte ^ (byte >> 4);
  folded ^= folded >> 2;
  folded ^= folded >> 1;
  return (folded & 1) === 0;
}
