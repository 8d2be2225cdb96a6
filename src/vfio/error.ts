/** The one exception of this room: a request that the kernel refused, or that cannot be made, and why. */
import type { Kernel } from '../ports/kernel.ts';
import { ERRNO, type ErrnoName, errnoName } from '../uapi/errno.ts';

export interface VfioErrorDetails {
  /** `EINVAL` */
  readonly code: string;
  /** The request: `VFIO_IOMMU_MAP_DMA`, `open(/dev/vfio/3)`. */
  readonly request: string;
  /** A sentence of why. */
  readonly why: string;
  /** The field or argument at fault: `iova`. */
  readonly field?: string | undefined;
  /** What would pass. */
  readonly hint?: string | undefined;
}

/**
 * `VFIO_IOMMU_MAP_DMA: EINVAL: iova 0x0800_0000 + 0x10_0000 overlaps reserved region msi of group 3 (iova)`
 *
 * The simulated kernel says itself which check refused; on real Linux the library says what it can find out afterwards.
 */
export class VfioError extends Error {
  /** `EINVAL` */
  readonly code: string;
  /** Positive: 22. */
  readonly errno: number;
  readonly request: string;
  readonly field: string | undefined;
  readonly why: string;
  readonly hint: string | undefined;

  constructor(details: VfioErrorDetails) {
    const field = details.field === undefined ? '' : ` (${details.field})`;
    const hint = details.hint === undefined ? '' : `; ${details.hint}`;
    super(`${details.request}: ${details.code}: ${details.why}${field}${hint}`);
    this.name = 'VfioError';
    this.code = details.code;
    this.errno = (ERRNO as Readonly<Record<string, number>>)[details.code] ?? 0;
    this.request = details.request;
    this.field = details.field;
    this.why = details.why;
    this.hint = details.hint;
  }
}

/** What the library itself can say of a refusal. Where the kernel says why, only the hint is taken. */
export type Explain = (code: string) => Omit<VfioErrorDetails, 'code' | 'request'> | null;

/** Passes `result` through, or throws what a negative one means. @throws VfioError */
export function check(kernel: Kernel, result: number, request: string, explain?: Explain): number {
  if (result >= 0) return result;
  throw refused(kernel, result, request, explain);
}

/** The error of a negative result. The kernel's own reason goes first, then the library's. */
export function refused(kernel: Kernel, result: number, request: string, explain?: Explain): VfioError {
  const code = errnoName(result);
  const refusal = kernel.refusal();
  const known = explain?.(code) ?? null;
  if (refusal !== null && refusal.errno === -result) {
    return new VfioError({ code, request, why: refusal.why, field: refusal.field, hint: refusal.hint ?? known?.hint });
  }
  return new VfioError({ code, request, ...(known ?? { why: MEANING[code] ?? 'the kernel refused it' }) });
}

/** The error of a use after close. */
export const closed = (what: string, request: string): VfioError =>
  new VfioError({ code: 'EBADF', request, why: `${what} is closed` });

/** What these errno mostly mean on VFIO's files, where nothing better is known. */
const MEANING: Readonly<Partial<Record<ErrnoName, string>> & Record<string, string | undefined>> = {
  EACCES: 'this process may not open it',
  EBADF: 'the file descriptor is not open, or not of the expected kind',
  EBUSY: 'somebody else has it open or attached',
  EFAULT: 'an address of this process is not mapped, or not writable',
  EINVAL: 'a field has a value that the kernel does not take here',
  ENODEV: 'there is no such device, or no driver takes it',
  ENOENT: 'it does not exist',
  ENOMEM: 'no memory is left, or RLIMIT_MEMLOCK is reached',
  ENOSPC: 'there is no room for it',
  ENOTTY: 'this kernel does not know the request on this file',
  EPERM: 'the group is not viable, or its interrupts are not isolated from others',
};
