/** Does what a decoded instruction does: its accesses, each once and in order, and then its registers. */
import { carry, compute, direction, holds, step } from './flags.ts';
import type { Action, Instruction, MemoryOperand, RegisterOperand, Source, Width } from './instruction.ts';

/** A stopped thread's registers. */
export interface Registers {
  /** Hardware numbers 0 to 15; 64 bits, unsigned. */
  general(number: number): bigint;
  setGeneral(number: number, value: bigint): void;
  /** 128 bits, unsigned. */
  vector(number: number): bigint;
  setVector(number: number, value: bigint): void;
  rip: bigint;
  flags: bigint;
  readonly fsBase: bigint;
  readonly gsBase: bigint;
}

/** Everything that the thread's addresses reach. */
export interface Memory {
  /** Unsigned; null: nothing is there. */
  load(address: bigint, width: Width): bigint | null;
  store(address: bigint, width: Width, value: bigint): boolean;
}

/** False: an access had no memory behind it, or an address was misaligned; what came before it has happened, rip stands. */
export function execute(instruction: Instruction, registers: Registers, memory: Memory): boolean {
  const { action, length, width } = instruction;
  if (action.kind === 'string') {
    if (!string(action, width, registers, memory)) return false;
  } else {
    const address = addressOf(instruction, registers);
    if (instruction.aligned && address % 16n !== 0n) return false;
    if (!one(action, width, address, registers, memory)) return false;
  }
  registers.rip = BigInt.asUintN(64, registers.rip + BigInt(length));
  return true;
}

/** The address of the memory operand (of [rdi] or [rsi] where the instruction is one of strings). */
export function addressOf({ memory, length }: Instruction, registers: Registers): bigint {
  const { base, index, scale, displacement, segment, bits } = memory ?? STRING_OPERAND;
  let address = displacement;
  if (base === 'rip') address += registers.rip + BigInt(length);
  else if (base !== null) address += registers.general(base);
  if (index !== null) address += registers.general(index) * BigInt(scale);
  address = BigInt.asUintN(bits, address);
  if (segment !== null) address += segment === 'fs' ? registers.fsBase : registers.gsBase;
  return BigInt.asUintN(64, address);
}

const RAX = 0;
const RCX = 1;
const RSI = 6;
const RDI = 7;
const STRING_OPERAND: MemoryOperand = { base: RDI, index: null, scale: 1, displacement: 0n, segment: null, bits: 64 };

type Plain = Exclude<Action, { kind: 'string' }>;

function one(action: Plain, width: Width, address: bigint, registers: Registers, memory: Memory): boolean {
  const bits = 8 * width;
  if (action.kind === 'store') {
    const value = sourceOf(action.from, width, registers);
    return memory.store(address, width, action.swapped ? turned(value, width) : value);
  }
  if (action.kind === 'vector-store') {
    const value = registers.vector(action.from) >> (action.part === 'high' ? 64n : 0n);
    return memory.store(address, width, BigInt.asUintN(bits, value));
  }
  const found = memory.load(address, width);
  if (found === null) return false;
  switch (action.kind) {
    case 'load': {
      const value = action.swapped ? turned(found, width) : action.signed ? BigInt.asIntN(bits, found) : found;
      setRegister(action.into, action.intoWidth, value, registers);
      return true;
    }
    case 'vector-load':
      return loadVector(action.into, action.part, found, registers);
    case 'cmov': {
      const old = registerOf(action.into, width, registers);
      setRegister(action.into, width, holds(action.condition, registers.flags) ? found : old, registers);
      return true;
    }
    case 'arithmetic': {
      const other = sourceOf(action.other, width, registers);
      const [left, right] = action.reversed ? [other, found] : [found, other];
      const done = compute(action.what, left, right, bits, registers.flags);
      if (action.what !== 'cmp' && action.what !== 'test') {
        if (!action.reversed && !memory.store(address, width, done.value)) return false;
        if (action.reversed && !('immediate' in action.other)) setRegister(action.other, width, done.value, registers);
      }
      registers.flags = done.flags;
      return true;
    }
    default:
      return change(action, width, address, found, registers, memory);
  }
}

/** Instructions that read, change and write. */
function change(
  action: Extract<Plain, { kind: 'unary' | 'bit' | 'exchange' | 'xadd' | 'cmpxchg' }>,
  width: Width,
  address: bigint,
  found: bigint,
  registers: Registers,
  memory: Memory,
): boolean {
  const bits = 8 * width;
  switch (action.kind) {
    case 'unary': {
      if (action.what === 'not') return memory.store(address, width, BigInt.asUintN(bits, ~found));
      const done =
        action.what === 'neg'
          ? compute('sub', 0n, found, bits, registers.flags)
          : step(action.what, found, bits, registers.flags);
      if (!memory.store(address, width, done.value)) return false;
      registers.flags = done.flags;
      return true;
    }
    case 'bit': {
      const mask = 1n << BigInt(action.bit);
      const changed = { bt: found, bts: found | mask, btr: found & ~mask, btc: found ^ mask }[action.what];
      if (action.what !== 'bt' && !memory.store(address, width, changed)) return false;
      registers.flags = carry(registers.flags, (found & mask) !== 0n);
      return true;
    }
    case 'exchange': {
      if (!memory.store(address, width, registerOf(action.register, width, registers))) return false;
      setRegister(action.register, width, found, registers);
      return true;
    }
    case 'xadd': {
      const done = compute('add', found, registerOf(action.register, width, registers), bits, registers.flags);
      if (!memory.store(address, width, done.value)) return false;
      setRegister(action.register, width, found, registers);
      registers.flags = done.flags;
      return true;
    }
    case 'cmpxchg': {
      const accumulator = { number: RAX, high: false };
      const expected = registerOf(accumulator, width, registers);
      const equal = expected === found;
      // The processor writes either way: what it found when they differ.
      if (!memory.store(address, width, equal ? registerOf(action.register, width, registers) : found)) return false;
      registers.flags = compute('cmp', expected, found, bits, registers.flags).flags;
      if (!equal) setRegister(accumulator, width, found, registers);
      return true;
    }
  }
}

function loadVector(into: number, part: 'all' | 'low' | 'high', found: bigint, registers: Registers): boolean {
  const old = registers.vector(into);
  const low = BigInt.asUintN(64, old);
  if (part === 'all') registers.setVector(into, found);
  else registers.setVector(into, part === 'low' ? old - low + found : (found << 64n) | low);
  return true;
}

function string(
  { what, repeated, segment }: Extract<Action, { kind: 'string' }>,
  width: Width,
  registers: Registers,
  memory: Memory,
): boolean {
  const distance = direction(registers.flags) * BigInt(width);
  const add = (number: number, by: bigint): void =>
    registers.setGeneral(number, BigInt.asUintN(64, registers.general(number) + by));
  const offset = segment === null ? 0n : segment === 'fs' ? registers.fsBase : registers.gsBase;
  while (!repeated || registers.general(RCX) !== 0n) {
    const source = BigInt.asUintN(64, registers.general(RSI) + offset);
    const value = what === 'stos' ? BigInt.asUintN(8 * width, registers.general(RAX)) : memory.load(source, width);
    if (value === null) return false;
    if (what === 'lods') setRegister({ number: RAX, high: false }, width, value, registers);
    else if (!memory.store(registers.general(RDI), width, value)) return false;
    if (what !== 'stos') add(RSI, distance);
    if (what !== 'lods') add(RDI, distance);
    if (!repeated) return true;
    add(RCX, -1n);
  }
  return true;
}

function sourceOf(source: Source, width: Width, registers: Registers): bigint {
  return 'immediate' in source ? BigInt.asUintN(8 * width, source.immediate) : registerOf(source, width, registers);
}

const registerOf = ({ number, high }: RegisterOperand, width: Width, registers: Registers): bigint =>
  BigInt.asUintN(8 * width, registers.general(number) >> (high ? 8n : 0n));

/** 4 bytes clear what is above them; 1 and 2 leave it. */
function setRegister({ number, high }: RegisterOperand, width: Width, value: bigint, registers: Registers): void {
  if (width >= 4) {
    registers.setGeneral(number, BigInt.asUintN(8 * width, value));
    return;
  }
  const shift = high ? 8n : 0n;
  const mask = ((1n << BigInt(8 * width)) - 1n) << shift;
  const old = registers.general(number);
  registers.setGeneral(number, (old & ~mask) | ((value << shift) & mask));
}

function turned(value: bigint, width: Width): bigint {
  let result = 0n;
  for (let i = 0; i < width; i += 1) result = (result << 8n) | ((value >> BigInt(8 * i)) & 0xffn);
  return result;
}
