/**
 * Addresses have types: an IOVA is not a guest-physical address is not a host-physical one.
 *
 * Between modules an address is a branded `number`. It is exact: hardware addresses end at 2^52 and a double holds
 * integers to 2^53. Inside the interrupt's walk addresses travel as two signed 32-bit halves instead, since V8 keeps
 * those without allocating; `bigint` appears only in the ABI codec, where the full 64 bits reach the user.
 * This module is the only place that converts, and it refuses what does not fit.
 */

declare const kind: unique symbol;
type Address<Kind extends string> = number & { readonly [kind]: Kind };

/** An address as a device emits it and the IOMMU receives it. */
export type Iova = Address<'iova'>;
/** An address in a guest's physical address space. */
export type Gpa = Address<'gpa'>;
/** An address in the host's physical address space. */
export type Hpa = Address<'hpa'>;
/** An address in a process's virtual address space. */
export type Va = Address<'va'>;

/** 2^53: the first value that this module refuses. */
export const ADDRESS_LIMIT = 2 ** 53;

/** @throws RangeError when `value` is not an integer in [0, 2^53). */
export function toAddress(value: number | bigint, what = 'address'): number {
  const address = typeof value === 'bigint' ? fromU64(value) : value;
  if (address === null || !Number.isSafeInteger(address) || address < 0) {
    throw new RangeError(`${what}: expected an integer from 0 to 2^53 - 1, got ${String(value)}`);
  }
  return address;
}

export const iova = (value: number | bigint): Iova => toAddress(value, 'iova') as Iova;
export const gpa = (value: number | bigint): Gpa => toAddress(value, 'gpa') as Gpa;
export const hpa = (value: number | bigint): Hpa => toAddress(value, 'hpa') as Hpa;
export const va = (value: number | bigint): Va => toAddress(value, 'va') as Va;

/** A u64 as an exact number, or null when it is 2^53 or more (no memory can be there: the caller answers EFAULT). */
export function fromU64(value: bigint): number | null {
  return value >= 0n && value < 9007199254740992n ? Number(value) : null;
}

/** The signed low 32 bits of an exact address. */
export const lowHalf = (address: number): number => address | 0;
/** The signed bits 63..32 of an exact address. */
export const highHalf = (address: number): number => (address / 4294967296) | 0;
/** The exact address of two signed halves; bits 63..53 must be zero. */
export const fromHalves = (hi: number, lo: number): number => (hi >>> 0) * 4294967296 + (lo >>> 0);

/** `0x0800_0040`: hexadecimal for people, grouped by four, at least `digits` long. */
export function hex(value: number | bigint, digits = 8): string {
  const text = value.toString(16).padStart(digits, '0');
  return `0x${text.replace(/\B(?=(?:.{4})+$)/g, '_')}`;
}

/** `0x8000040`: hexadecimal for machines. */
export const hexPlain = (value: number | bigint): string => `0x${value.toString(16)}`;
