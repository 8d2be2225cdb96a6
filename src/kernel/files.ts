/** Open files of the simulated kernel. They are counted apart from file descriptors (dup, fork, passing, exit). */
import type { Mapping } from '../ports/kernel.ts';
import type { Process } from './process.ts';

/**
 * An open file description. Results are the system call's: zero or positive, or -errno. Buffers are user addresses in `process`; a file copies
 * through `process.memory`, so that EFAULT comes in Linux's order.
 */
export interface File {
  /** What /proc/self/fd would show: `/dev/vfio/vfio`, `anon_inode:[vfio-device]`, `anon_inode:[eventfd]`. */
  readonly name: string;
  /** `argument` is the raw u64. */
  ioctl?(process: Process, request: number, argument: bigint): number;
  read?(process: Process, address: number, count: number, offset: number): number;
  write?(process: Process, address: number, count: number, offset: number): number;
  /** Maps [offset, offset + length) into `process`; the system call layer places it. */
  mmap?(process: Process, offset: number, length: number, write: boolean): FileMapping | number;
  /** Bits of EPOLLIN 1, EPOLLOUT 4, EPOLLERR 8, EPOLLHUP 0x10. */
  poll?(): number;
  /** The last reference is gone. */
  release(): void;
}

/** What a file maps: physical memory or registers that the process now sees. */
export interface FileMapping {
  /** Host-physical address of the first byte. */
  readonly pa: number;
  readonly length: number;
  /** VM_PFNMAP: device memory, not struct pages. */
  readonly deviceMemory: boolean;
  /** Made for clients in the same program. */
  open(address: number): Mapping;
  close(): void;
}
