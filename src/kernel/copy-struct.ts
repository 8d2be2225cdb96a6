/** copy_struct_from_user (include/linux/uaccess.h): structs that grow at their end, between programs and kernels of different age. */
import type { Process } from './process.ts';
import { userPointer } from './user-copy.ts';

const PIECE = 4096;

/**
 * The first `kernelSize` bytes of a struct of which the user has `userSize`: a shorter one is continued with zeroes; a longer one must be zero
 * behind what the kernel knows, else E2BIG.
 */
export function copyStructFromUser(
  process: Process,
  argument: bigint,
  userSize: number,
  kernelSize: number,
): Uint8Array | 'EFAULT' | 'E2BIG' {
  for (let at = kernelSize; at < userSize; at += PIECE) {
    const piece = new Uint8Array(Math.min(PIECE, userSize - at));
    if (!process.memory.copyIn(userPointer(argument + BigInt(at)), piece)) return 'EFAULT';
    if (piece.some((byte) => byte !== 0)) return 'E2BIG';
  }
  const bytes = new Uint8Array(kernelSize);
  const known = bytes.subarray(0, Math.min(userSize, kernelSize));
  return process.memory.copyIn(userPointer(argument), known) ? bytes : 'EFAULT';
}
