/**
 * What the caller of the library gives, checked before it goes into a request. What no request can carry is EINVAL and names the field, as a refusal of
 * the kernel's does, so that a caller has one kind of error to look at.
 */
import { ADDRESS_LIMIT, type Iova, iova } from '../ports/address.ts';
import type { Fields, Struct, StructInit } from '../uapi/struct.ts';
import { VfioError } from './error.ts';

/** @throws VfioError EINVAL: `expected …, got … (field)` */
export function refuseArgument(request: string, field: string, expected: string, value: unknown): never {
  throw new VfioError({ code: 'EINVAL', request, why: `expected ${expected}, got ${shown(value)}`, field });
}

/** Longer memory no process has. */
export const MOST_BYTES = 2 ** 52;

/** An integer from 0 to `max`, 2^53 - 1 when left out: bytes, numbers of vectors, addresses of this process. @throws VfioError EINVAL */
export function whole(value: number, request: string, field: string, max = ADDRESS_LIMIT - 1): number {
  if (Number.isSafeInteger(value) && value >= 0 && value <= max) return value;
  return refuseArgument(request, field, `an integer from 0 to ${limit(max)}`, value);
}

/** @throws VfioError EINVAL for what is no integer from 0 to 2^53 - 1 */
export function wholeIova(value: number | bigint, request: string, field = 'iova'): Iova {
  const number = typeof value === 'bigint' && value >= 0n && value < BigInt(ADDRESS_LIMIT) ? Number(value) : value;
  return typeof number === 'number' && Number.isSafeInteger(number) && number >= 0
    ? iova(number)
    : refuseArgument(request, field, `an integer from 0 to ${limit(ADDRESS_LIMIT - 1)}`, value);
}

/** @throws VfioError EINVAL */
export function oneOf<T extends string>(value: T, known: readonly T[], request: string, field: string): T {
  if (known.includes(value)) return value;
  return refuseArgument(request, field, `one of ${known.join(', ')}`, value);
}

/** The struct's bytes. @throws VfioError EINVAL with the field whose value does not fit it */
export function encoded<F extends Fields>(struct: Struct<F>, fields: StructInit<F>, request: string): Uint8Array {
  return fitting(request, () => struct.bytes(fields));
}

/** Does what writes fields of structs. @throws VfioError EINVAL with the field whose value does not fit it */
export function fitting<T>(request: string, write: () => T): T {
  try {
    return write();
  } catch (error) {
    const [, field, why] = error instanceof RangeError ? (/^\w+\.([^:]+): (.*)$/.exec(error.message) ?? []) : [];
    if (field === undefined || why === undefined) throw error;
    throw new VfioError({ code: 'EINVAL', request, why, field });
  }
}

const limit = (max: number): string => (max === ADDRESS_LIMIT - 1 ? '2^53 - 1' : String(max));

function shown(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`;
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}
