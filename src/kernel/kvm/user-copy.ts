/** Typed arguments from and to user space. */
import type { Fields, Struct, StructValue } from '../../uapi/struct.ts';
import type { Process } from '../process.ts';
import type { RefusalLog } from '../refusal.ts';
import { copyFromUser, copyToUser } from '../user-copy.ts';

/** The struct at `argument`, or -EFAULT. */
export function copyStruct<F extends Fields>(
  process: Process,
  struct: Struct<F>,
  argument: bigint,
  refusals: RefusalLog,
): StructValue<F> | number {
  const bytes = copyFromUser(process, argument, struct.size);
  if (bytes !== null) return struct.read(bytes);
  return refusals.refuse('EFAULT', `struct ${struct.name} at 0x${argument.toString(16)} is not readable`, 'argument');
}

/** The s32, u32 or u64 at `argument`, or null (EFAULT). */
export function copyInteger(process: Process, argument: bigint, bits: 32 | 64): bigint | null {
  const bytes = copyFromUser(process, argument, bits / 8);
  if (bytes === null) return null;
  const view = new DataView(bytes.buffer);
  return bits === 32 ? BigInt(view.getUint32(0, true)) : view.getBigUint64(0, true);
}

export function storeInteger(process: Process, argument: bigint, value: bigint, bits: 32 | 64): boolean {
  const bytes = new Uint8Array(bits / 8);
  const view = new DataView(bytes.buffer);
  if (bits === 32) view.setUint32(0, Number(value & 0xffff_ffffn), true);
  else view.setBigUint64(0, value, true);
  return copyToUser(process, argument, bytes);
}
