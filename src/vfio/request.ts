/** How requests with an `argsz` are made, and how their answers' capability chains are read. */
import type { Kernel } from '../ports/kernel.ts';
import type { Fields, Struct } from '../uapi/struct.ts';
import { vfio_info_cap_header } from '../uapi/vfio-container.ts';
import { check, type Explain, VfioError } from './error.ts';

/** An answer may grow between two asks (a domain was attached), but not for ever. */
const MOST_ASKS = 4;

/**
 * Makes an info request, and makes it again with the size that the kernel asks for when the answer has capabilities
 * behind the struct: without room the kernel answers 0, the needed `argsz`, and no chain (vfio_main.c `vfio_info_cap_add`).
 * @returns the answer, `argsz` bytes
 */
export function askInfo<F extends Fields>(
  kernel: Kernel,
  fd: number,
  request: number,
  name: string,
  struct: Struct<F>,
  fill: (bytes: Uint8Array) => void,
  explain?: Explain,
): Uint8Array {
  let size = struct.size;
  for (let asks = 0; asks < MOST_ASKS; asks++) {
    const bytes = new Uint8Array(size);
    fill(bytes);
    u32(bytes).setUint32(0, size, true);
    check(kernel, kernel.ioctl(fd, request, bytes), name, explain);
    const wanted = u32(bytes).getUint32(0, true);
    if (wanted <= size) return bytes;
    size = wanted;
  }
  throw new VfioError({
    code: 'EIO',
    request: name,
    why: `the answer grew with each of ${MOST_ASKS} asks`,
    field: 'argsz',
  });
}

const u32 = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** One capability behind an info struct. */
export interface InfoCapability {
  readonly id: number;
  readonly version: number;
  /** The capability from its header on, to the end of the answer. */
  readonly bytes: Uint8Array;
}

/** Follows a chain from `offset` (0: there is none). @throws VfioError EIO when it leaves the answer or loops */
export function capabilityChain(answer: Uint8Array, offset: number, request: string): InfoCapability[] {
  const found: InfoCapability[] = [];
  const seen = new Set<number>();
  for (let at = offset; at !== 0; ) {
    if (at + vfio_info_cap_header.size > answer.length || seen.has(at)) {
      throw new VfioError({
        code: 'EIO',
        request,
        why: `the capability chain goes to offset ${at} of an answer of ${answer.length} bytes`,
        field: 'cap_offset',
      });
    }
    seen.add(at);
    const { id, version, next } = vfio_info_cap_header.read(answer, at);
    found.push({ id, version, bytes: answer.subarray(at) });
    at = next;
  }
  return found;
}
