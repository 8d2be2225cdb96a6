/**
 * System calls of real Linux. Results are zero or positive, or -errno; nothing here throws for what the kernel refuses.
 *
 * One instance of the bindings serves a program. Structs go through `Uint8Array`s: koffi hands their address on as it is.
 * Pointers elsewhere are exact numbers, declared as `uint64_t`: user space ends at 2^47 (2^56 at most), and a wrapped pointer
 * object would cost an allocation a call.
 */
import {
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  O_CLOEXEC,
  PROT_READ,
  PROT_WRITE,
} from './constants.ts';
import { type Koffi, loadKoffi, type Native } from './koffi.ts';
import { MappedMemory } from './mapped-memory.ts';
import { Poller } from './poller.ts';

/** The C functions, bound once. Results that fit are `int`: a wider type may make each call allocate a bigint. */
interface Bindings {
  readonly open: Native;
  readonly close: Native;
  readonly ioctlPointer: Native;
  readonly ioctlInteger: Native;
  readonly pread: Native;
  readonly pwrite: Native;
  readonly read: Native;
  readonly write: Native;
  readonly mmap: Native;
  readonly munmap: Native;
  readonly eventfd: Native;
  readonly memfd: Native;
  readonly ftruncate: Native;
  readonly getpagesize: Native;
}

export class Libc {
  readonly koffi: Koffi;
  readonly poller: Poller;
  readonly pageSize: number;
  private readonly c: Bindings;
  /** For eventfds. More than 64 bytes, so that V8 keeps it outside of its moving heap from the start. */
  private readonly word = new Uint32Array(new ArrayBuffer(128), 0, 2);
  private readonly wordBytes = new Uint8Array(this.word.buffer, 0, 8);

  /** Made by {@link Libc.load}. */
  constructor(koffi: Koffi) {
    this.koffi = koffi;
    this.c = bind(koffi);
    this.pageSize = Number(this.c.getpagesize());
    this.poller = new Poller(koffi);
  }

  /** @throws LibcUnavailable: not Linux, or the FFI package is not installed */
  static async load(): Promise<Libc> {
    loaded ??= loadKoffi().then((koffi) => new Libc(koffi));
    try {
      return await loaded;
    } catch (error) {
      loaded = null;
      throw error;
    }
  }

  /** open(2), close-on-exec. */
  open(path: string, flags: number): number {
    return this.done(this.c.open(path, flags | O_CLOEXEC));
  }

  /** close(2). Whoever watches the descriptor is stopped first: libuv must not poll a number that becomes another file's. */
  close(fd: number): number {
    this.poller.forget(fd);
    return this.done(this.c.close(fd));
  }

  /**
   * ioctl(2) with a struct, which the kernel reads and may write, or with an integer. C declares the function variadic; x86-64,
   * arm64 and riscv64 pass such integers and pointers as they pass named ones, so two fixed prototypes do.
   */
  ioctl(fd: number, request: number, argument: Uint8Array | number | bigint): number {
    if (argument instanceof Uint8Array) return this.done(this.c.ioctlPointer(fd, request, argument));
    return this.done(this.c.ioctlInteger(fd, request, BigInt.asUintN(64, BigInt(argument))));
  }

  /** pread(2); at most 2 GiB. */
  pread(fd: number, into: Uint8Array, offset: number): number {
    return this.done(this.c.pread(fd, into, into.length, offset));
  }

  pwrite(fd: number, from: Uint8Array, offset: number): number {
    return this.done(this.c.pwrite(fd, from, from.length, offset));
  }

  read(fd: number, into: Uint8Array): number {
    return this.done(this.c.read(fd, into, into.length));
  }

  write(fd: number, from: Uint8Array): number {
    return this.done(this.c.write(fd, from, from.length));
  }

  /** Maps a file, MAP_SHARED, or -errno. */
  mapFile(fd: number, offset: number, length: number, writable: boolean): MappedMemory | number {
    const address = this.mmap(0, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, offset);
    return address < 0 ? address : new MappedMemory(this, address, length);
  }

  /** Zeroed memory of this process, whole pages, at a multiple of `alignment` (a power of two), or -errno. */
  allocate(length: number, alignment: number = this.pageSize): MappedMemory | number {
    const size = Math.ceil(length / this.pageSize) * this.pageSize;
    const slack = alignment > this.pageSize ? alignment - this.pageSize : 0;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const start = this.mmap(0, size + slack, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (start < 0) return start;
    const address = Math.ceil(start / alignment) * alignment;
    if (address > start) this.munmap(start, address - start);
    const end = start + size + slack;
    if (end > address + size) this.munmap(address + size, end - address - size);
    return new MappedMemory(this, address, length, size);
  }

  /** The address, or -errno. */
  mmap(address: number, length: number, protection: number, flags: number, fd: number, offset: number): number {
    const result = this.c.mmap(address, length, protection, flags, fd, offset);
    // MAP_FAILED is the last address of 64 bits, which comes back as a bigint.
    return typeof result === 'bigint' ? -this.koffi.errno() : result;
  }

  /** Puts private zeroed pages over a range: what was there is gone, and accesses still find memory. */
  overlay(address: number, length: number): number {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    return this.mmap(address, length, PROT_READ | PROT_WRITE, flags, -1, 0);
  }

  munmap(address: number, length: number): number {
    return this.done(this.c.munmap(address, length));
  }

  /** eventfd(2): close-on-exec, and reads never block. */
  eventfd(initial: number): number {
    return this.done(this.c.eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK));
  }

  /** Adds to an eventfd's counter. */
  eventfdWrite(fd: number, value: number): number {
    this.word[0] = value;
    this.word[1] = value / 2 ** 32;
    return this.write(fd, this.wordBytes);
  }

  /** Takes an eventfd's counter; 0 when nothing was there. Counts above 2^53 are not exact. */
  eventfdRead(fd: number): number {
    return this.read(fd, this.wordBytes) === 8 ? this.word[1]! * 2 ** 32 + this.word[0]! : 0;
  }

  /** memfd_create(2) of a size, close-on-exec. */
  memfd(name: string, size: number): number {
    const MFD_CLOEXEC = 1;
    const fd = this.done(this.c.memfd(name, MFD_CLOEXEC));
    if (fd < 0) return fd;
    const sized = this.done(this.c.ftruncate(fd, size));
    if (sized === 0) return fd;
    this.close(fd);
    return sized;
  }

  private done(result: number | bigint): number {
    return result === -1 ? -this.koffi.errno() : Number(result);
  }
}

let loaded: Promise<Libc> | null = null;

function bind(koffi: Koffi): Bindings {
  const library = openLibrary(koffi);
  return {
    open: library.func('int open(const char *path, int flags)'),
    close: library.func('int close(int fd)'),
    ioctlPointer: library.func('int ioctl(int fd, unsigned long request, void *argument)'),
    ioctlInteger: library.func('int ioctl(int fd, unsigned long request, uint64_t argument)'),
    pread: library.func('int pread(int fd, void *into, size_t length, int64_t offset)'),
    pwrite: library.func('int pwrite(int fd, const void *from, size_t length, int64_t offset)'),
    read: library.func('int read(int fd, void *into, size_t length)'),
    write: library.func('int write(int fd, const void *from, size_t length)'),
    mmap: library.func(
      'uint64_t mmap(uint64_t address, size_t length, int protection, int flags, int fd, int64_t offset)',
    ),
    munmap: library.func('int munmap(uint64_t address, size_t length)'),
    eventfd: library.func('int eventfd(unsigned int initial, int flags)'),
    memfd: library.func('int memfd_create(const char *name, unsigned int flags)'),
    ftruncate: library.func('int ftruncate(int fd, int64_t length)'),
    getpagesize: library.func('int getpagesize()'),
  };
}

/** glibc by its name; else (musl) what Node itself is linked with. */
function openLibrary(koffi: Koffi): ReturnType<Koffi['load']> {
  try {
    return koffi.load('libc.so.6');
  } catch {
    return koffi.load(null);
  }
}
