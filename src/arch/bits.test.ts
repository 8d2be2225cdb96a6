import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bits32, bits64, getField, getInPlace, hi32, layout, lo32, setField, word64 } from './bits.ts';

describe('bits', () => {
  const fields = layout({ LOW: [0, 3, 0], HIGH: [1, 63, 60] });

  it('places fields and nothing else', () => {
    const words = [-1n & 0xffff_ffff_ffff_ffffn, 0n];
    setField(words, fields.LOW, 5);
    setField(words, fields.HIGH, 0xan);
    expect(words).toEqual([0xffff_ffff_ffff_fff5n, 0xa000_0000_0000_0000n]);
    expect(getField(words, fields.HIGH)).toBe(10n);
    expect(getInPlace(words, fields.HIGH)).toBe(0xa000_0000_0000_0000n);
    expect(() => setField(words, fields.LOW, 16)).toThrow(RangeError);
    expect(() => layout({ BAD: [0, 2, 3] })).toThrow(/BAD/);
  });

  it('bits64 takes the same bits from halves as from the whole', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 64n - 1n), fc.nat(63), fc.nat(52), (word, from, width) => {
        const high = Math.min(63, from + width);
        const expected = (word >> BigInt(from)) & ((1n << BigInt(high - from + 1)) - 1n);
        expect(bits64(lo32(word), hi32(word), high, from)).toBe(Number(expected));
        expect(word64(lo32(word), hi32(word))).toBe(word);
      }),
      { numRuns: 2000 },
    );
    expect(bits32(-1, 31, 0)).toBe(0xffff_ffff);
  });
});
