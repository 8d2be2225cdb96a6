/** copy_from_user and copy_to_user for requests: the argument is the ABI's u64, and what is no address is a fault. */
import { fromU64 } from '../ports/address.ts';
import type { Process } from './process.ts';

/** A user address that copyIn and copyOut take: what 2^53 does not hold becomes one where nothing is mapped. */
export const userPointer = (argument: bigint): number => fromU64(argument) ?? Number.MAX_SAFE_INTEGER;

/** `size` bytes at `argument` + `offset`, or null (EFAULT). */
export function copyFromUser(process: Process, argument: bigint, size: number, offset = 0): Uint8Array | null {
  const bytes = new Uint8Array(size);
  return process.memory.copyIn(userPointer(argument + BigInt(offset)), bytes) ? bytes : null;
}

/** False is EFAULT. */
export function copyToUser(process: Process, argument: bigint, bytes: Uint8Array, offset = 0): boolean {
  return process.memory.copyOut(userPointer(argument + BigInt(offset)), bytes);
}

/** The number in an ioctl's by-value argument, as the `unsigned long` that the kernel sees, cut to 32 bits where it is an id or a size. */
export const lowWord = (argument: bigint): number => Number(BigInt.asUintN(32, argument));
