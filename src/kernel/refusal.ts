/** errno with its reason: the simulated kernel answers as Linux does, and keeps the *why* that Linux does not give. */

import type { Refusal } from '../ports/kernel.ts';
import { ERRNO, type ErrnoName, errnoName } from '../uapi/errno.ts';

/** Keeps the last refusal; one per simulated kernel, cleared by the system call layer before each request. */
export class RefusalLog {
  last: Refusal | null = null;
  /** Name of the request under way: `VFIO_IOMMU_MAP_DMA`, `open(/dev/vfio/3)`. Set by the system call layer. */
  request = '';

  /** Records why, and returns -errno for the caller to return. The first refusal of a request stands. */
  refuse(code: ErrnoName, why: string, field?: string, hint?: string): number {
    if (this.last === null) {
      this.last = {
        errno: ERRNO[code],
        code,
        request: this.request,
        why,
        ...(field === undefined ? {} : { field }),
        ...(hint === undefined ? {} : { hint }),
      };
    }
    return -ERRNO[code];
  }

  /** Hands on the -errno of something below, with a sentence where that gave none. */
  passOn(error: number, why: string): number {
    this.last ??= { errno: -error, code: errnoName(error), request: this.request, why };
    return error;
  }
}
