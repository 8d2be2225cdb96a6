/** Real Linux behind the Kernel port. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { Libc, LibcUnavailable, O_RDONLY, O_RDWR } from '../libc/index.ts';
import type { EventFdHandle, Kernel, Mapping, Refusal, UserBuffer } from '../ports/kernel.ts';
import { ERRNO } from '../uapi/errno.ts';
import { LinuxEventFd } from './eventfd.ts';
import { explainOpen } from './explain-open.ts';
import { LinuxBuffer, LinuxMapping } from './memory.ts';

/** Thrown by {@link LinuxKernel.load}: what is missing to use VFIO of this machine, and what to do about it. */
export class LinuxUnavailable extends Error {
  /** `platform`: not Linux. `ffi`: the package koffi. */
  readonly missing: 'platform' | 'ffi';
  readonly hint: string;

  constructor(cause: LibcUnavailable) {
    super(cause.message, { cause });
    this.name = 'LinuxUnavailable';
    this.missing = cause.missing;
    this.hint = cause.hint;
  }
}

/**
 * The same interface as the simulated kernel's, on this machine's devices. Whether VFIO is there shows at the first `open`:
 * its `refusal()` says what is missing, a module, the IOMMU, or this process's rights.
 *
 * @example
 * const kernel = await LinuxKernel.load();
 * using device = openDevice(kernel, '0000:01:00.0');
 */
export class LinuxKernel implements Kernel {
  readonly kind = 'linux';
  readonly abi = 'linux-7.2';
  private readonly libc: Libc;
  private readonly eventfds = new Map<number, LinuxEventFd>();
  private refused: Refusal | null = null;

  constructor(libc: Libc) {
    this.libc = libc;
  }

  /** @throws LinuxUnavailable where there is no Linux, or no FFI */
  static async load(): Promise<LinuxKernel> {
    try {
      return new LinuxKernel(await Libc.load());
    } catch (error) {
      throw error instanceof LibcUnavailable ? new LinuxUnavailable(error) : error;
    }
  }

  get pageSize(): number {
    return this.libc.pageSize;
  }

  open(path: string, mode: 'r' | 'rw' = 'rw'): number {
    const fd = this.done(this.libc.open(path, mode === 'r' ? O_RDONLY : O_RDWR));
    if (fd < 0) this.refused = explainOpen(path, -fd);
    return fd;
  }

  close(fd: number): number {
    if (!isDescriptor(fd)) return this.done(-ERRNO.EBADF);
    const eventfd = this.eventfds.get(fd);
    this.eventfds.delete(fd);
    const result = this.done(this.libc.close(fd));
    eventfd?.hangUp();
    return result;
  }

  /** @throws TypeError for a number that is no integer. */
  ioctl(fd: number, request: number, argument: Uint8Array | number | bigint = 0): number {
    if (!(argument instanceof Uint8Array) && typeof argument !== 'bigint' && !Number.isInteger(argument)) {
      throw new TypeError(`argument ${argument}: expected an integer`);
    }
    if (!isDescriptor(fd)) return this.done(-ERRNO.EBADF);
    return this.done(this.libc.ioctl(fd, request, argument));
  }

  read(fd: number, into: Uint8Array): number {
    if (!isDescriptor(fd)) return this.done(-ERRNO.EBADF);
    const result = this.done(this.libc.read(fd, into));
    if (result > 0) this.eventfds.get(fd)?.wasRead();
    return result;
  }

  write(fd: number, from: Uint8Array): number {
    if (!isDescriptor(fd)) return this.done(-ERRNO.EBADF);
    return this.done(this.libc.write(fd, from));
  }

  /** @throws RangeError for an offset that is no integer */
  pread(fd: number, into: Uint8Array, offset: number): number {
    assertInteger('offset', offset);
    if (!isDescriptor(fd)) return this.done(-ERRNO.EBADF);
    return this.done(this.libc.pread(fd, into, offset));
  }

  /** @throws RangeError for an offset that is no integer */
  pwrite(fd: number, from: Uint8Array, offset: number): number {
    assertInteger('offset', offset);
    if (!isDescriptor(fd)) return this.done(-ERRNO.EBADF);
    return this.done(this.libc.pwrite(fd, from, offset));
  }

  /** @throws RangeError for an offset or a length that is no integer */
  mmap(fd: number, offset: number, length: number, access: 'r' | 'rw' = 'rw'): Mapping | number {
    assertInteger('offset', offset);
    assertInteger('length', length);
    if (!isDescriptor(fd)) return this.done(-ERRNO.EBADF);
    const mapped = this.libc.mapFile(fd, offset, length, access === 'rw');
    if (typeof mapped === 'number') return this.done(mapped);
    this.done(0);
    return new LinuxMapping(mapped, access === 'rw', this.isDevice(fd));
  }

  /** @throws RangeError for a length that is no integer from 0 to 2^52 */
  memfd(name: string, length: number): number {
    if (!(Number.isInteger(length) && length >= 0 && length <= 2 ** 52))
      throw new RangeError(`length ${length}: expected an integer from 0 to 2^52`);
    return this.done(this.libc.memfd(name, length));
  }

  /** @throws RangeError for a count that does not fit into 32 bits */
  eventfd(initial = 0): EventFdHandle | number {
    if (initial !== initial >>> 0) throw new RangeError(`count ${initial}: expected an integer from 0 to 2^32 - 1`);
    const fd = this.done(this.libc.eventfd(initial));
    if (fd < 0) return fd;
    const eventfd = new LinuxEventFd(this.libc, fd);
    this.eventfds.set(fd, eventfd);
    return eventfd;
  }

  allocate(length: number, alignment = this.pageSize): UserBuffer | number {
    if (!(length > 0) || !Number.isSafeInteger(length))
      throw new RangeError(`length ${length}: expected a positive integer`);
    if (!(alignment >= 1) || !Number.isInteger(Math.log2(alignment)))
      throw new RangeError(`alignment ${alignment}: expected a power of two`);
    const memory = this.libc.allocate(length, Math.max(alignment, this.pageSize));
    if (typeof memory === 'number') return this.done(memory);
    this.done(0);
    return new LinuxBuffer(memory);
  }

  list(path: string): readonly string[] | null {
    return orNull(() => readdirSync(path));
  }

  readText(path: string): string | null {
    return orNull(() => readFileSync(path, 'latin1'));
  }

  readLink(path: string): string | null {
    return orNull(() => readlinkSync(path));
  }

  /** Only for `open`, and only where something can be found out: Linux itself does not say why. */
  refusal(): Refusal | null {
    return this.refused;
  }

  /** Nothing waits for a step here. */
  settle(): void {}

  private done(result: number): number {
    this.refused = null;
    return result;
  }

  /** What VFIO maps may be registers; nobody but the device's driver knows. */
  private isDevice(fd: number): boolean {
    const name = this.readLink(`/proc/self/fd/${fd}`) ?? '';
    return name.includes('vfio') || name.startsWith('/sys/') || name === '/dev/mem';
  }
}

/** The FFI would take another number for an `int` by cutting it, and NaN for 0: somebody else's file. */
function isDescriptor(fd: number): boolean {
  return fd === (fd | 0);
}

function assertInteger(name: string, value: number): void {
  if (!Number.isInteger(value)) throw new RangeError(`${name} ${value}: expected an integer`);
}

function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}
