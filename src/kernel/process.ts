/** A process of the simulated kernel: credentials, limits, descriptors, memory. */
import type { Credentials, ResourceLimits, UserMemory } from '../ports/process.ts';
import type { File } from './files.ts';

export interface Process {
  readonly pid: number;
  readonly comm: string;
  readonly credentials: Credentials;
  readonly limits: ResourceLimits;
  readonly memory: UserMemory;
  /** Pages pinned and accounted against RLIMIT_MEMLOCK. */
  lockedPages: number;
  /** The open file of a descriptor, or null (EBADF). */
  file(fd: number): File | null;
  /** Takes the lowest free descriptor at or above `from`; -EMFILE beyond the limit. The file gains a reference. */
  install(file: File, from?: number): number;
}
