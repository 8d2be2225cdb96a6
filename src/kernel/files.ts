/** Open files of the simulated kernel. They are counted apart from file descriptors (dup, fork, passing, exit). */
import type { EventFd } from '../ports/eventfd.ts';
import type { Mapping } from '../ports/kernel.ts';
import type { PinnedPages } from '../ports/process.ts';
import type { FileKind } from '../uapi/request-name.ts';
import type { Process } from './process.ts';

/**
 * An open file description. Results are the system call's: zero or positive, or -errno. Buffers are user addresses in `process`; a file copies
 * through `process.memory`, so that EFAULT comes in Linux's order.
 */
export interface File {
  /** What /proc/self/fd would show: `/dev/vfio/vfio`, `anon_inode:[vfio-device]`, `anon_inode:[eventfd]`. */
  readonly name: string;
  /** What kind of file a request number is read for: the same number means different things on different files. */
  readonly kind?: FileKind;
  /** The eventfd behind the file, when it is one: what eventfd_ctx_fdget takes. */
  readonly eventfd?: EventFdContext;
  /** `argument` is the raw u64. */
  ioctl?(process: Process, request: number, argument: bigint): number;
  read?(process: Process, address: number, count: number, offset: number): number;
  write?(process: Process, address: number, count: number, offset: number): number;
  /** Maps [offset, offset + length) into `process`; the system call layer places it. */
  mmap?(process: Process, offset: number, length: number, write: boolean, how?: MapRequest): FileMapping | number;
  /** Pins pages of a memfd (memfd_pin_folios), both multiples of the page size; -EINVAL beyond its end. Absent: no memfd. */
  pin?(offset: number, length: number, write: boolean): PinnedPages | number;
  /** nonseekable_open: reads and writes move no position. */
  readonly nonseekable?: boolean;
  /** lseek: the new position, or -errno. Absent: the file has none. `offset` is signed. */
  seek?(offset: number, whence: number): number;
  /** What fstat shows, for a file that is no node of a tree. */
  stat?(): FileStat;
  /** ftruncate: 0 or -errno. Absent: no regular file. */
  truncate?(length: number): number;
  /** The requests of fcntl that are the file's own: F_ADD_SEALS, F_GET_SEALS. */
  fcntl?(command: number, argument: number): number;
  /** Bits of EPOLLIN 1, EPOLLOUT 4, EPOLLERR 8, EPOLLHUP 0x10, EPOLLRDNORM 0x40. */
  poll?(): number;
  /** The last reference is gone. */
  release(): void;
}

export interface FileStat {
  /** st_mode: type and permissions. An anonymous inode has no type. */
  readonly mode: number;
  /** Bytes. */
  readonly size: number;
}

export const SEEK_SET = 0;
export const SEEK_CUR = 1;
export const SEEK_END = 2;

/** An eventfd that the kernel may keep after user space closed it (eventfd_ctx_get, eventfd_ctx_put). */
export interface EventFdContext extends EventFd {
  get(): void;
  put(): void;
  /** Raises the counter for something that is no interrupt of a device: user space's write, REQ, ERR. */
  add(value: number): void;
}

/** What else a program says of a mapping that it wants: MAP_SHARED, and PROT_ bits. */
export interface MapRequest {
  readonly shared: boolean;
  readonly prot: number;
}

/** What a file maps: physical memory or registers that the process now sees. */
export interface FileMapping {
  /** Host-physical address of the first byte. */
  readonly pa: number;
  readonly length: number;
  /** VM_PFNMAP: device memory, not struct pages. */
  readonly deviceMemory: boolean;
  /** Where the byte at an offset of the mapping is now, for a file whose pages come and go; null: SIGBUS. Absent: `pa` + offset, always. */
  locate?(offset: number): Located | null;
  /** Made for clients in the same program. */
  open(address: number): Mapping;
  close(): void;
}

/** A page of a file, and what follows it in memory as it does in the file. */
export interface Located {
  readonly pa: number;
  readonly length: number;
  /** Keeps `length` bytes from here where they are, whatever the file does, until the answer is called. */
  hold(length: number): () => void;
}

const references = new WeakMap<File, number>();

/** References of an open file: one for each descriptor, and one for each kernel object that keeps it. */
export const fileCount = (file: File): number => references.get(file) ?? 0;

/** Takes a reference (get_file). */
export function fget(file: File): void {
  references.set(file, fileCount(file) + 1);
}

/** Drops a reference; the last one releases the file. A file that never had one is released at once. */
export function fput(file: File): void {
  const left = fileCount(file) - 1;
  if (left > 0) references.set(file, left);
  else {
    references.delete(file);
    file.release();
  }
}
