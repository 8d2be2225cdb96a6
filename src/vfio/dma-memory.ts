/** Memory for DMA: allocated here or handed over, mapped, and given back when the mapping fails. */
import type { Kernel, UserBuffer } from '../ports/kernel.ts';
import type { AddressSpace, MapDmaOptions } from './address-space.ts';
import { MOST_BYTES, whole, wholeIova } from './argument.ts';
import { roundUp } from './choose-iova.ts';
import { DmaBuffer } from './dma-buffer.ts';
import { check, VfioError } from './error.ts';

/**
 * Maps what `options` ask for into `space`.
 * @param page bytes that a length is rounded up to, besides the kernel's page
 * @param request the request that a mapping is made with, for errors
 * @param unmap undoes the mapping when the buffer is closed; it may be gone already
 */
export function mapMemory(
  space: AddressSpace,
  { length = 0, buffer, iova, access }: MapDmaOptions,
  page: number,
  request: string,
  unmap: (iova: number, length: number) => void,
): DmaBuffer {
  const { kernel } = space;
  const memory =
    buffer ??
    allocate(kernel, roundUp(whole(length, request, 'length', MOST_BYTES), Math.max(page, kernel.pageSize)), request);
  try {
    const mapped = space.map(
      iova === undefined ? null : wholeIova(iova, request),
      memory.address,
      memory.length,
      access,
    );
    return new DmaBuffer(mapped, memory, () => unmap(mapped, memory.length));
  } catch (error) {
    if (buffer === undefined) memory.free();
    throw error;
  }
}

function allocate(kernel: Kernel, length: number, request: string): UserBuffer {
  if (length > 0) return userMemory(kernel, length);
  throw new VfioError({ code: 'EINVAL', request, why: 'no length and no buffer', field: 'length' });
}

/** @throws VfioError ENOMEM */
export function userMemory(kernel: Kernel, length: number): UserBuffer {
  const memory = kernel.allocate(length);
  if (typeof memory !== 'number') return memory;
  check(kernel, memory, 'mmap', () => ({ why: `no ${length} bytes of memory`, field: 'length' }));
  throw new TypeError('Kernel.allocate answered a number that is no error');
}
