/**
 * Bit fields of hardware formats. A structure is a list of 64-bit words; a field is a bit range in one of them, as the
 * manuals print it: word, highest bit, lowest bit. Control paths work on `bigint` words, hot paths on signed 32-bit halves.
 */

/** A bit range [high:low] of 64-bit word `word`. */
export interface Field {
  readonly word: number;
  readonly high: number;
  readonly low: number;
}

/** A structure as named fields. */
export type Layout<Name extends string = string> = Readonly<Record<Name, Field>>;

/** Makes a layout of `{ NAME: [word, high, low] }`. */
export function layout<const Name extends string>(
  fields: Readonly<Record<Name, readonly [word: number, high: number, low: number]>>,
): Layout<Name> {
  const result: Partial<Record<Name, Field>> = {};
  for (const name of Object.keys(fields) as Name[]) {
    const [word, high, low] = fields[name];
    if (!(high >= low && low >= 0 && high <= 63)) throw new RangeError(`${name}: no bit range [${high}:${low}]`);
    result[name] = { word, high, low };
  }
  return result as Layout<Name>;
}

export const fieldWidth = (field: Field): number => field.high - field.low + 1;
const ones = (field: Field): bigint => (1n << BigInt(fieldWidth(field))) - 1n;

/** The field's value, right aligned. */
export function getField(words: readonly bigint[], field: Field): bigint {
  return (words[field.word] >> BigInt(field.low)) & ones(field);
}

/** The field's value as a number; for fields of up to 53 bits. */
export const getNumber = (words: readonly bigint[], field: Field): number => Number(getField(words, field));

/** @throws RangeError when the value does not fit the field. */
export function setField(words: bigint[], field: Field, value: bigint | number): void {
  const wide = BigInt(value);
  if (wide < 0n || wide > ones(field)) {
    throw new RangeError(`0x${wide.toString(16)} does not fit bits [${field.high}:${field.low}]`);
  }
  const mask = ones(field) << BigInt(field.low);
  words[field.word] = (words[field.word] & ~mask) | (wide << BigInt(field.low));
}

/** Address bits [high:low] in place: the field's value without shifting it down. */
export function getInPlace(words: readonly bigint[], field: Field): bigint {
  return getField(words, field) << BigInt(field.low);
}

/** A structure of `count` words from named values; what is not named is zero. */
export function pack<Name extends string>(
  from: Layout<Name>,
  count: number,
  values: Partial<Readonly<Record<Name, bigint | number>>>,
): bigint[] {
  const words = new Array<bigint>(count).fill(0n);
  for (const name of Object.keys(values) as Name[]) setField(words, from[name], values[name]!);
  return words;
}

/** All fields by name. */
export function unpack<Name extends string>(from: Layout<Name>, words: readonly bigint[]): Record<Name, bigint> {
  const result: Partial<Record<Name, bigint>> = {};
  for (const name of Object.keys(from) as Name[]) result[name] = getField(words, from[name]);
  return result as Record<Name, bigint>;
}

/** A 64-bit word of two 32-bit halves. */
export const word64 = (lo: number, hi: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
/** The signed low half of a 64-bit word. */
export const lo32 = (word: bigint): number => Number(word & 0xffffffffn) | 0;
/** The signed high half of a 64-bit word. */
export const hi32 = (word: bigint): number => Number((word >> 32n) & 0xffffffffn) | 0;

/** Bits [high:low] of a 32-bit value, unsigned; high - low up to 31. */
export function bits32(value: number, high: number, low: number): number {
  return high - low === 31 ? value >>> 0 : (value >>> low) & ((1 << (high - low + 1)) - 1);
}

/** Bits [high:low] of the 64-bit value {hi, lo}, unsigned, as an exact number; for widths up to 53. */
export function bits64(lo: number, hi: number, high: number, low: number): number {
  if (low >= 32) return bits32(hi, high - 32, low - 32);
  if (high < 32) return bits32(lo, high, low);
  return bits32(hi, high - 32, 0) * 2 ** (32 - low) + (lo >>> low);
}
