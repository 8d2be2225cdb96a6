/** What an x86-64 instruction with a memory operand does, as far as programs reach device registers by it. */

export type Width = 1 | 2 | 4 | 8 | 16;

/** General registers by their hardware numbers: 0 rax, 1 rcx, 2 rdx, 3 rbx, 4 rsp, 5 rbp, 6 rsi, 7 rdi, 8 to 15. */
export interface RegisterOperand {
  readonly number: number;
  /** Bits 8 to 15 of it: ah, ch, dh, bh. */
  readonly high: boolean;
}

export interface MemoryOperand {
  /** A general register, `rip` (of the next instruction), or null. */
  readonly base: number | 'rip' | null;
  readonly index: number | null;
  readonly scale: number;
  readonly displacement: bigint;
  readonly segment: 'fs' | 'gs' | null;
  /** Bits of an address: 32 after the prefix 67. */
  readonly bits: 32 | 64;
}

export type Source = RegisterOperand | { readonly immediate: bigint };

export type Arithmetic = 'add' | 'or' | 'adc' | 'sbb' | 'and' | 'sub' | 'xor' | 'cmp' | 'test';

/** One access of `width` bytes unless said otherwise. `into` is `intoWidth` bytes of a register. */
export type Action =
  | {
      readonly kind: 'load';
      readonly into: RegisterOperand;
      readonly intoWidth: Width;
      readonly signed: boolean;
      /** movbe: the bytes turn round. */
      readonly swapped: boolean;
    }
  | { readonly kind: 'store'; readonly from: Source; readonly swapped: boolean }
  /** The memory's operand first unless `reversed`; the result goes to the first operand, that of cmp and test nowhere. */
  | { readonly kind: 'arithmetic'; readonly what: Arithmetic; readonly other: Source; readonly reversed: boolean }
  | { readonly kind: 'unary'; readonly what: 'not' | 'neg' | 'inc' | 'dec' }
  | { readonly kind: 'bit'; readonly what: 'bt' | 'bts' | 'btr' | 'btc'; readonly bit: number }
  | { readonly kind: 'exchange' | 'xadd' | 'cmpxchg'; readonly register: RegisterOperand }
  /** The access happens whatever the condition is (0 to 15, as in the opcode). */
  | { readonly kind: 'cmov'; readonly condition: number; readonly into: RegisterOperand }
  /** `part`: which half of the vector register; the other one stays. `all`: what is loaded, and zeroes above. */
  | { readonly kind: 'vector-load'; readonly into: number; readonly part: 'all' | 'low' | 'high' }
  | { readonly kind: 'vector-store'; readonly from: number; readonly part: 'low' | 'high' }
  /** [rdi] and [rsi]; `repeated`: rcx times. */
  | {
      readonly kind: 'string';
      readonly what: 'movs' | 'stos' | 'lods';
      readonly repeated: boolean;
      readonly segment: 'fs' | 'gs' | null;
    };

export interface Instruction {
  readonly length: number;
  readonly width: Width;
  /** null: rsi and rdi say where. */
  readonly memory: MemoryOperand | null;
  /** An address that is no multiple of 16 faults (movaps). */
  readonly aligned: boolean;
  readonly action: Action;
}
