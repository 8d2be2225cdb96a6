/** What answers a system call that stopped. */
import type { SeccompListener } from '../libc/seccomp.ts';

/** The call is not the simulated host's: the real kernel does it. No result of a system call is so small. */
export const PROCEED = -0x8000_0000;

/** The result (zero or positive, or -errno), or {@link PROCEED}. */
export type Handler = (call: SeccompListener) => number;
