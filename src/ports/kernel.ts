/**
 * What user space can ask of a kernel. vfio/ and everything above it knows only this; the simulated kernel and real
 * Linux both stand behind it.
 *
 * Results are as the system call's: zero or positive on success, -errno on failure. Nothing here throws for what a
 * caller's request does wrong; it throws TypeError or RangeError for arguments that are no request at all.
 */
import type { EventFd } from './eventfd.ts';

export interface Kernel {
  /** `sim` or `linux`. */
  readonly kind: 'sim' | 'linux';
  /** What the VFIO ABI speaks: belfry's extensions exist only with `belfry`. */
  readonly abi: 'linux-7.2' | 'belfry';
  readonly pageSize: number;

  /** Opens a device node or a sysfs file. A file descriptor, or -errno. Default: read and write. */
  open(path: string, mode?: 'r' | 'rw'): number;
  close(fd: number): number;
  /** A request whose argument is a struct (copied in, and copied back), or an integer passed by value. */
  ioctl(fd: number, request: number, argument?: Uint8Array | number | bigint): number;
  /** From where the file is, for files without places: event queues, fault queues, eventfds. Linux refuses `pread` of those: ESPIPE. */
  read(fd: number, into: Uint8Array): number;
  write(fd: number, from: Uint8Array): number;
  /** `offset` up to 2^53: VFIO regions start at index << 40. */
  pread(fd: number, into: Uint8Array, offset: number): number;
  pwrite(fd: number, from: Uint8Array, offset: number): number;
  /** Maps [offset, offset + length) of a file, MAP_SHARED. A mapping, or -errno. */
  mmap(fd: number, offset: number, length: number, access?: 'r' | 'rw'): Mapping | number;
  /** Memory of `length` bytes as a file of its own (memfd_create, ftruncate), zeroed: a descriptor, or -errno. `mmap` maps it. */
  memfd(name: string, length: number): number;
  /** A new eventfd with its descriptor, or -errno. */
  eventfd(initial?: number): EventFdHandle | number;
  /** Memory with an address that this process owns, page aligned, zeroed: for DMA, and for structs that point to others. -errno on failure. */
  allocate(length: number, alignment?: number): UserBuffer | number;
  /** The names in a directory of sysfs or /dev, or null. */
  list(path: string): readonly string[] | null;
  /** A whole (sysfs) file as text, or null. */
  readText(path: string): string | null;
  /** The target of a symbolic link, or null. */
  readLink(path: string): string | null;
  /** Why the last request of this process was refused, where the kernel can say (the simulated one can). */
  refusal(): Refusal | null;
  /** Lets everything that waits happen: deferred work of a simulated host; nothing on real Linux. */
  settle(): void;
}

export interface EventFdHandle extends EventFd {
  readonly fd: number;
}

/** A mapped range of a file. After `unmap` accesses throw and never crash. */
export interface Mapping {
  /** Address in this process's address space. */
  readonly address: number;
  readonly length: number;
  /** Plain memory as bytes; null when the range is registers (then use read32 and write32). */
  readonly bytes: Uint8Array | null;
  read32(offset: number): number;
  write32(offset: number, value: number): void;
  unmap(): void;
}

/** Memory of this process. */
export interface UserBuffer {
  readonly address: number;
  readonly length: number;
  readonly bytes: Uint8Array;
  free(): void;
}

/** An errno with the reason that Linux does not give. */
export interface Refusal {
  /** Positive. */
  readonly errno: number;
  /** `EINVAL` */
  readonly code: string;
  /** The request: `VFIO_IOMMU_MAP_DMA`. */
  readonly request: string;
  /** The field or argument at fault, when there is one: `iova`. */
  readonly field?: string;
  /** A sentence: which check refused, with the values that it compared. */
  readonly why: string;
  /** What would pass, when that is known. */
  readonly hint?: string;
}
