import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decode } from './decode.ts';

const bytes = (text: string): Uint8Array => Uint8Array.from(text.split(' ').map((byte) => Number.parseInt(byte, 16)));
const plain = (number: number) => ({ number, high: false });
const at = (base: number | 'rip' | null, displacement = 0n) => ({
  base,
  index: null,
  scale: 1,
  displacement,
  segment: null,
  bits: 64,
});
const load = (into: number, intoWidth: number, signed = false) => ({
  kind: 'load',
  into: plain(into),
  intoWidth,
  signed,
  swapped: false,
});
const store = (from: object) => ({ kind: 'store', from, swapped: false });
const immediate = (value: bigint) => ({ immediate: value });

// The bytes are GNU as's for the text.
const ROWS: readonly [string, string, number, object | null, object][] = [
  ['mov (%rbx),%edx', '8b 13', 4, at(3), load(2, 4)],
  ['mov 0x10(%rax,%rcx,4),%r9', '4c 8b 4c 88 10', 8, { ...at(0, 16n), index: 1, scale: 4 }, load(9, 8)],
  ['mov %ax,-8(%rbp)', '66 89 45 f8', 2, at(5, -8n), store(plain(0))],
  ['mov %ah,(%rdi)', '88 27', 1, at(7), store({ number: 0, high: true })],
  ['mov %sil,(%rdi)', '40 88 37', 1, at(7), store(plain(6))],
  ['movb $0x7f,0x100(%r13)', '41 c6 85 00 01 00 00 7f', 1, at(13, 256n), store(immediate(0x7fn))],
  ['movl $0x80000001,(%r12)', '41 c7 04 24 01 00 00 80', 4, at(12), store(immediate(BigInt.asIntN(32, 0x8000_0001n)))],
  ['movq $-1,(%rsp)', '48 c7 04 24 ff ff ff ff', 8, at(4), store(immediate(-1n))],
  ['movzbl (%rax),%ecx', '0f b6 08', 1, at(0), load(1, 4)],
  ['movzwl 2(%rdx),%r8d', '44 0f b7 42 02', 2, at(2, 2n), load(8, 4)],
  ['movsbq (%rax),%rdx', '48 0f be 10', 1, at(0), load(2, 8, true)],
  ['movswl (%rax),%edx', '0f bf 10', 2, at(0), load(2, 4, true)],
  ['movslq (%rsi),%rdi', '48 63 3e', 4, at(6), load(7, 8, true)],
  ['movabs 0x1122334455667788,%eax', 'a1 88 77 66 55 44 33 22 11', 4, at(null, 0x1122334455667788n), load(0, 4)],
  ['mov %al,0x12345678', '88 04 25 78 56 34 12', 1, at(null, 0x12345678n), store(plain(0))],
  ['mov 0x1234(%rip),%eax', '8b 05 34 12 00 00', 4, at('rip', 0x1234n), load(0, 4)],
  ['mov %fs:0x28,%rax', '64 48 8b 04 25 28 00 00 00', 8, { ...at(null, 0x28n), segment: 'fs' }, load(0, 8)],
  ['mov (%ecx),%edx', '67 8b 11', 4, { ...at(1), bits: 32 }, load(2, 4)],
  [
    'andl $-2,(%rax)',
    '83 20 fe',
    4,
    at(0),
    { kind: 'arithmetic', what: 'and', other: immediate(-2n), reversed: false },
  ],
  [
    'orb $1,3(%rax)',
    '80 48 03 01',
    1,
    at(0, 3n),
    { kind: 'arithmetic', what: 'or', other: immediate(1n), reversed: false },
  ],
  ['xor %ecx,(%rax)', '31 08', 4, at(0), { kind: 'arithmetic', what: 'xor', other: plain(1), reversed: false }],
  ['add (%rax),%rcx', '48 03 08', 8, at(0), { kind: 'arithmetic', what: 'add', other: plain(1), reversed: true }],
  [
    'cmpl $-1,(%rax)',
    '83 38 ff',
    4,
    at(0),
    { kind: 'arithmetic', what: 'cmp', other: immediate(-1n), reversed: false },
  ],
  [
    'testb $0x80,0x20(%rax)',
    'f6 40 20 80',
    1,
    at(0, 32n),
    { kind: 'arithmetic', what: 'test', other: immediate(-128n), reversed: false },
  ],
  ['test %edx,(%rax)', '85 10', 4, at(0), { kind: 'arithmetic', what: 'test', other: plain(2), reversed: false }],
  ['xchg %eax,(%rdi)', '87 07', 4, at(7), { kind: 'exchange', register: plain(0) }],
  ['lock xadd %eax,(%rdi)', 'f0 0f c1 07', 4, at(7), { kind: 'xadd', register: plain(0) }],
  ['lock cmpxchg %ecx,(%rdi)', 'f0 0f b1 0f', 4, at(7), { kind: 'cmpxchg', register: plain(1) }],
  ['notl (%rax)', 'f7 10', 4, at(0), { kind: 'unary', what: 'not' }],
  ['negw (%rax)', '66 f7 18', 2, at(0), { kind: 'unary', what: 'neg' }],
  ['incb (%rax)', 'fe 00', 1, at(0), { kind: 'unary', what: 'inc' }],
  ['decq (%rax)', '48 ff 08', 8, at(0), { kind: 'unary', what: 'dec' }],
  ['lock btsl $5,(%rax)', 'f0 0f ba 28 05', 4, at(0), { kind: 'bit', what: 'bts', bit: 5 }],
  ['cmovne (%rax),%ecx', '0f 45 08', 4, at(0), { kind: 'cmov', condition: 5, into: plain(1) }],
  ['movbe (%rax),%ecx', '0f 38 f0 08', 4, at(0), { ...load(1, 4), swapped: true }],
  ['movbe %rcx,(%rax)', '48 0f 38 f1 08', 8, at(0), { kind: 'store', from: plain(1), swapped: true }],
  ['movnti %eax,(%rdi)', '0f c3 07', 4, at(7), store(plain(0))],
  ['rep movsb', 'f3 a4', 1, null, { kind: 'string', what: 'movs', repeated: true, segment: null }],
  ['rep stosl', 'f3 ab', 4, null, { kind: 'string', what: 'stos', repeated: true, segment: null }],
  ['lodsl', 'ad', 4, null, { kind: 'string', what: 'lods', repeated: false, segment: null }],
  ['movsq', '48 a5', 8, null, { kind: 'string', what: 'movs', repeated: false, segment: null }],
  ['movups (%rax),%xmm9', '44 0f 10 08', 16, at(0), { kind: 'vector-load', into: 9, part: 'all' }],
  ['movdqu %xmm1,(%rax)', 'f3 0f 7f 08', 16, at(0), { kind: 'vector-store', from: 1, part: 'low' }],
  ['movaps %xmm0,(%rax)', '0f 29 00', 16, at(0), { kind: 'vector-store', from: 0, part: 'low' }],
  ['movd (%rax),%xmm2', '66 0f 6e 10', 4, at(0), { kind: 'vector-load', into: 2, part: 'all' }],
  ['movq (%rax),%xmm2', 'f3 0f 7e 10', 8, at(0), { kind: 'vector-load', into: 2, part: 'all' }],
  ['movq %xmm2,(%rax)', '66 0f d6 10', 8, at(0), { kind: 'vector-store', from: 2, part: 'low' }],
  ['movd %xmm2,(%rax)', '66 0f 7e 10', 4, at(0), { kind: 'vector-store', from: 2, part: 'low' }],
  ['movss (%rax),%xmm1', 'f3 0f 10 08', 4, at(0), { kind: 'vector-load', into: 1, part: 'all' }],
  ['movsd %xmm1,(%rax)', 'f2 0f 11 08', 8, at(0), { kind: 'vector-store', from: 1, part: 'low' }],
  ['movlps (%rax),%xmm1', '0f 12 08', 8, at(0), { kind: 'vector-load', into: 1, part: 'low' }],
  ['movhps %xmm1,(%rax)', '0f 17 08', 8, at(0), { kind: 'vector-store', from: 1, part: 'high' }],
  ['movntdqa (%rax),%xmm3', '66 0f 38 2a 18', 16, at(0), { kind: 'vector-load', into: 3, part: 'all' }],
];

describe('decode', () => {
  it.each(ROWS)('%s', (_text, code, width, memory, action) => {
    const length = bytes(code).length;
    // What follows in memory does not matter.
    expect(decode(bytes(`${code} 90 90`))).toMatchObject({ length, width, memory, action });
    expect(decode(bytes(code).subarray(0, length - 1))).toBe(null);
  });

  it.each([
    ['movaps %xmm0,(%rax)', '0f 29 00', true],
    ['movups (%rax),%xmm9', '44 0f 10 08', false],
    ['movntdqa (%rax),%xmm3', '66 0f 38 2a 18', true],
  ])('%s: misaligned addresses fault, or do not', (_text, code, aligned) => {
    expect(decode(bytes(code))?.aligned).toBe(aligned);
  });

  it.each([
    ['vmovdqu (%rax),%ymm0', 'c5 fe 6f 00'],
    ['mov %eax,%ecx', '89 c1'],
    ['shll (%rax)', 'd1 20'],
    ['call *(%rax)', 'ff 10'],
    ['movq %rax,%xmm0', '66 48 0f 6e c0'],
    ['movq (%rax),%mm0', '0f 6f 00'],
    ['push (%rax)', 'ff 30'],
    ['mull (%rax)', 'f7 20'],
    ['nothing', ''],
  ])('%s is not known', (_text, code) => {
    expect(decode(code === '' ? new Uint8Array(0) : bytes(code))).toBe(null);
  });

  it('answers any bytes, and never takes more than there are', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 15 }), (code) => {
        const found = decode(code);
        if (found !== null) expect(found.length).toBeLessThanOrEqual(code.length);
      }),
      { numRuns: 20_000 },
    );
  });
});
